"""Model families, losses and metrics of the user, in Python files that a spec or a command names."""
