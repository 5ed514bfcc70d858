"""`zpull serve`: a read-only registry on loopback through which every engine pulls partially."""
