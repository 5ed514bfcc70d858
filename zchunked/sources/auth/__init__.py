"""Authorization: challenges, tokens and credentials."""
