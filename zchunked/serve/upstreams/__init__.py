"""One pull for each image from upstream registries, and what is known of those."""
