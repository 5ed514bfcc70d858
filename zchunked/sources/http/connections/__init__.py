"""Connections to servers: host names, proxies, TLS, time limits, keeping them open."""
