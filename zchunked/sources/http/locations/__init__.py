"""Where blobs are: URLs, redirects, and when they expire."""
