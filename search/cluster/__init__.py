"""Searches as jobs of a Ray cluster: submitted, watched, stopped and resumed from any machine."""
