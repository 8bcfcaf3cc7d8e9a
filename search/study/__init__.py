"""An experiment on disk: its paths, its Optuna study, and the records of its trials."""
