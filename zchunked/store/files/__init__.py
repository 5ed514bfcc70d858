"""Byte files of the store: written, journalled, read, cloned, removed."""
