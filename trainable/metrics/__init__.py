"""Metrics of mask and depth: pooled, per image, and as published; objective, bootstrap intervals and baselines."""
