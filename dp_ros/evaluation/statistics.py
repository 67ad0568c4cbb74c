"""Confidence intervals of success probabilities and of their differences; JSON files."""

from __future__ import annotations

import math


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a success probability (Wilson 1927); (0, 1) for no trials."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def paired_interval(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two success probabilities measured on the same trials, first - second.

    The four counts are of trials: both succeed, only the first, only the second, neither. Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data", Statistics in Medicine
    17:2635, method 10: Wilson's intervals of both, combined by their correlation.
    """
    n = both + first + second + neither
    p1, p2 = (both + first) / n, (both + second) / n
    (l1, u1), (l2, u2) = wilson_interval(both + first, n), wilson_interval(both + second, n)
    product = float(both * neither - first * second)
    if product > 0:
        product = max(product - n / 2, 0.0)  # continuity correction
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = product / math.sqrt(margins) if margins else 0.0
    below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    return p1 - p2 - math.sqrt(max(below, 0.0)), p1 - p2 + math.sqrt(max(above, 0.0))
