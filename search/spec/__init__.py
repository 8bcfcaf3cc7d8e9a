"""The YAML spec of a search: sections, search space, checks and template."""
