"""Building blocks of the tests: a second opinion that imports nothing of what it judges."""
