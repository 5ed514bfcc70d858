"""Upload of stored images to a registry, resumed after any fault."""
