"""Train, val and test parts of a data set: stable and published splits, and subsets."""
