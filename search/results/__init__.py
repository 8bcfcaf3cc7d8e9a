"""What a search found: summary, front, importance, export and reports."""
