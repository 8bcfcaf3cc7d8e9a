"""Use of trained networks: evaluation, prediction, image grids, latency and profiles."""
