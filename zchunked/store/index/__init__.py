"""The index of the store: one SQLite file, its tables, and who reads and writes them."""
