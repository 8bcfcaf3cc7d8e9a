"""Losses of one head, and the training loss of both."""
