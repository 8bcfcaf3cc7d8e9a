"""The YAML spec of a search: its sections, its search space, its checks and its template."""
