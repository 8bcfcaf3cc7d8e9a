"""The training loop of a trial: one step, its state, its checkpoints and its clock."""
