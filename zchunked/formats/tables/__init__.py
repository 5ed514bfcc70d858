"""Tables of contents: JSON or columns, read as they arrive, checked."""
