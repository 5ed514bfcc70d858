"""The calls of a client, one family a file."""
