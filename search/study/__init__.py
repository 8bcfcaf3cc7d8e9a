"""Experiments on disk: paths, Optuna study, and records of trials."""
