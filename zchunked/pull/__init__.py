"""The pull: from a reference to an image in the store."""
