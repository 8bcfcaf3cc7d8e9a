"""Data sets composed of backgrounds, their depth, and foregrounds in front of them."""
