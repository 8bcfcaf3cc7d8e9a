"""The commands that draw what a search found: `front` and `report`."""
