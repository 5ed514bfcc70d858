"""What failed, as our errors: sockets and TLS, HTTP statuses."""
