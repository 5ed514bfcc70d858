"""Convert: write a stored image's layers anew as zstd:chunked, under a new manifest."""
