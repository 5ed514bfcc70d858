"""The download: what is wanted of a blob → bytes in the store, retried, resumed and counted."""
