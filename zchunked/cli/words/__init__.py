"""Words of the command line: verbs, options, their values, and parsing them."""
