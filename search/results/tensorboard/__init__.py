"""TensorBoard of an experiment: its curves and images, and a table of all trials made from the study."""
