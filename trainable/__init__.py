"""One trial: its configuration, model, losses, metrics and loop. Ray is imported in `trainer` alone."""
