"""The life of the store."""
