"""Archives as layouts: tars read in place, and what docker saves."""
