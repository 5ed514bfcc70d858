"""One layer, understood: pure code from bytes to values."""
