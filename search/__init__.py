"""Searches of many trials: specs, searcher, experiments on disk, and the command line."""
