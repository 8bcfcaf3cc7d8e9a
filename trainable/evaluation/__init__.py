"""Use of trained networks: evaluation, prediction, export, image grids, latency and profiles."""
