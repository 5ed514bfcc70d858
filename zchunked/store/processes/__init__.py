"""Processes that share a store: their sessions, locks, and the log of their pulls."""
