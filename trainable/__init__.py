"""One trial: its configuration, model, losses, metrics and loop. Only `trainer` imports Ray."""
