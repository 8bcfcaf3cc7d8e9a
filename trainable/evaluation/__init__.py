"""Trained networks at work: evaluation, prediction, image grids, latency and profiles."""
