"""Other tools that record the trials of a search, by Ray's own callbacks."""
