"""Compose data sets from backgrounds, their depth maps, and foregrounds."""
