"""Images decoded once per node and read by every trial, or decoded on the fly."""
