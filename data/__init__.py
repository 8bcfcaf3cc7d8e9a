"""Raw images to batches: what a data set is, where it comes from, and how a trial reads it."""
