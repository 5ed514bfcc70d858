"""The distribution API for pulls: paths, ranges, documents, lists, errors."""
