"""The `twinhead` command line: one module a group of commands."""
