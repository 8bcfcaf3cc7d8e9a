"""HTML reports of searches and comparisons: one self-contained file each."""
