"""HTML report of evaluations: page, plots, videos, and the JSON behind them."""
