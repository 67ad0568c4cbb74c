"""The sampler's noise: torch's numbers without torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dp_ros.inference.noise import PlanNoise


@pytest.mark.parametrize("seed", [(0,), (3, 5), (2**40, 7)])
@pytest.mark.parametrize("shapes", [[(1, 8, 4)], [(1, 8, 4)] * 3, [(1, 5, 4), (1, 5, 4)], [(7, 7), (16,)]])
def test_it_equals_the_generator_of_torch(seed: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
    number = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)
    generator, noise = torch.Generator().manual_seed(number), PlanNoise(seed)
    for shape in shapes:
        expected = torch.randn(shape, generator=generator).numpy()
        np.testing.assert_allclose(noise.draw(*shape), expected, rtol=0, atol=1e-6)


def test_few_numbers_are_normal_too() -> None:
    drawn = np.array([PlanNoise((i,)).draw(3) for i in range(2000)])
    assert drawn.shape == (2000, 3)
    assert np.abs(drawn.mean(0)).max() < 0.1
    assert np.abs(drawn.std(0) - 1).max() < 0.1
