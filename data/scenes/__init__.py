"""Rendered rooms and figures with exact mask and depth."""
