"""Single objects of a repository: found, fetched, proved."""
