"""Many trials: the spec a user writes, the searcher, the experiment on disk, and the command line."""
