"""Bimodal toy: paths around a disc, half of them on each side. It needs no simulator."""
