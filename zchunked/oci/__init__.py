"""The OCI documents and names, parsed once and strictly into frozen values."""
