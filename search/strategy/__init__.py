"""Proposals and early stopping: searcher, surrogate, scheduler and the first trials."""
