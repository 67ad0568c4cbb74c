"""Bimodal toy: paths around a disc, half of the demonstrations on each side. It needs no simulator."""
