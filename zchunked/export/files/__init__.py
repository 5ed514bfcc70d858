"""Output files and folders: complete or absent, locked while they are written."""
