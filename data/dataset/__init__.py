"""A data set on disk: Parquet parts and one `dataset.json`, written once, read by row group, verified."""
