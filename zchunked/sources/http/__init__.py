"""HTTP: one request, its answer, and what either can mean."""
