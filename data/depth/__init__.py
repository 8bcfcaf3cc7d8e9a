"""Depth as users have it: what its values mean, and the files that hold it."""
