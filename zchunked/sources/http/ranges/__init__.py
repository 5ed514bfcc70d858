"""Ranged reads over HTTP: the requests, what a response may be, its body."""
