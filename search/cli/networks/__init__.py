"""The commands that use a trained network: `best`, `export`, `evaluate` and `predict`."""
