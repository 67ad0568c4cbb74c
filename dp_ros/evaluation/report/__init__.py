"""HTML report of evaluations: page, plots, videos, and their data as JSON."""
