"""The published recipes, listed, trained and compared without a search; and the demo."""
