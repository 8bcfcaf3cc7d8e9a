"""Results of a search: summary, Pareto front, analysis, export and reports."""
