"""A stored layer: its metadata read, its tar rebuilt, its digests proved."""
