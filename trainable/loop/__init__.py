"""The training loop of a trial: its loaders, steps, state, checkpoints, clock and precision."""
