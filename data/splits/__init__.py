"""Train, val and test parts of a data set: stable, published, and subsets of them."""
