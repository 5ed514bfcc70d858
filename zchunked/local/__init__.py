"""This machine's files, for rooms that store, read and write them."""
