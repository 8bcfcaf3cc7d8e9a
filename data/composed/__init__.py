"""Data sets that are recipes: source images, and a row for each sample that is composed from them when it is read."""
