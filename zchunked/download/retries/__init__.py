"""Retries: karma, the loop, what ends it; a source that is retried."""
