"""Noise of the sampler: the numbers that torch's CPU generator draws, without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16  # torch's Box-Muller transform takes uniform numbers in blocks of this size


class PlanNoise:
    """Standard normal numbers of one plan. All engines draw them here, so that chunks do not depend on the engine.

    They equal `torch.randn` with `torch.Generator().manual_seed(...)`, up to rounding, for shapes of 16 numbers or
    more: evaluations of older versions, which drew them with torch, repeat.
    """

    def __init__(self, seed: Sequence[int]) -> None:
        """seed: of the plan; see `PlanRequest`."""
        number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
        self._bits = np.random.MT19937()
        self._bits._legacy_seeding(
            number & 0xFFFFFFFF
        )  # the initialisation of Matsumoto & Nishimura, as in torch

    def draw(self, *shape: int) -> NDArray[np.float32]:
        """The next numbers."""
        count = int(np.prod(shape))
        uniform = self._uniform(max(count, _BLOCK))
        whole = len(uniform) - len(uniform) % _BLOCK
        drawn = np.empty(len(uniform), dtype=np.float32)
        drawn[:whole] = _box_muller(uniform[:whole])
        if whole < len(uniform):  # the last block overlaps the one before, and is drawn again
            drawn[-_BLOCK:] = _box_muller(self._uniform(_BLOCK))
        return drawn[:count].reshape(shape)

    def _uniform(self, count: int) -> NDArray[np.float32]:
        """In [0, 1), 24 bits each."""
        bits = self._bits.random_raw(count).astype(np.uint32) & np.uint32((1 << 24) - 1)
        return bits.astype(np.float32) * np.float32(2.0**-24)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normal numbers from uniform ones, (16 n,): in each block the first half gives radii, the second angles."""
    first, second = np.moveaxis(uniform.reshape(-1, 2, _BLOCK // 2), 1, 0)
    radius = np.sqrt(-2.0 * np.log(1.0 - first))
    angle = np.float32(2.0 * np.pi) * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
