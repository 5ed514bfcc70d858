"""registries.conf and other small files that people write."""
