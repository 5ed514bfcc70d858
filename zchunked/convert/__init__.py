"""A stored image's layers written anew as zstd:chunked ones, for another manifest of the same
image.
"""
