"""What people see: progress, results, errors; the streams that carry them."""
