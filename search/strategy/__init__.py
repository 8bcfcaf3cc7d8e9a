"""What to try next and what to stop: searcher, surrogate, scheduler and the first trials."""
