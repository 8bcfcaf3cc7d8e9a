"""A search as it runs on Ray: preparation, cluster, trials, progress and retraining."""
