"""Metrics of mask and depth: pooled, per image, and as published; bootstrap intervals and baselines."""
