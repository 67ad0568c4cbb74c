"""Floor of a plan's latency: the least time that this machine needs for its arithmetic and for reading its weights.

A plan has phases, one after the other: the encoder, the network's share of the observation, and the iterations. A
phase cannot be faster than its operations at the rate of a large matrix product, nor than its weights at the rate of
reading memory; the floor is the larger of the two, summed over the phases. Both rates are measured beside the plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from dp_ros.schema import PolicyConfig

GEMM_SIZE = 1024  # rows and columns of the matrix product
STREAM_MB = 256  # read to measure the memory: more than any cache
REPEATS = 3  # of each measurement in a turn
BYTES = {"f32": 4, "bf16": 2}


@dataclass(frozen=True)
class Phase:
    """Work of one run of a phase, and the number of its runs in a plan."""

    flops: float  # a multiplication and an addition are two
    weights: int
    runs: int = 1


@dataclass(frozen=True)
class Rates:
    """Rates of a machine, in operations and in bytes a second; `flops` by precision, without those it lacks."""

    flops: Mapping[str, float]
    memory: float


def phases(policy: Any, config: PolicyConfig) -> dict[str, Phase]:
    """The phases of a plan of one window by a `DiffusionPolicy` with a U-Net, which is run once to count.

    A convolution counts the products with its input, not those with its padding, which need not be computed. What the
    network takes from the iteration k is a constant and counts nothing.
    """
    import torch

    from dp_ros.policy.unet import ResidualBlock

    T_o, network = config.horizons.T_o, policy.network
    films = [block.film[1] for block in network.modules() if isinstance(block, ResidualBlock)]
    film_weights = sum(film.out_features for film in films) * policy.encoder.out_dim
    with torch.no_grad():
        state = torch.zeros(1, T_o, policy.state_normalizer.centre.numel())
        images = [torch.zeros(1, T_o, 3, *config.encoder.crop(camera)) for camera in config.encoder.cameras]
        encoder_flops = _flops(policy.encoder, lambda: policy.encode(images, state))
        condition, step = (
            network.condition(policy.encode(images, state)),
            network.embed(torch.zeros(1).long()),
        )
        actions = torch.zeros(1, config.horizons.T_p, config.action.dim)
        network_flops = _flops(network, lambda: network.denoise(actions, step, condition))
    constant = [*films, network.embed_step]  # outside of the iterations
    network_weights = _weights(network) - sum(map(_weights, constant))
    return {
        "encoder": Phase(encoder_flops, _weights(policy.encoder)),
        "condition": Phase(2.0 * film_weights, film_weights),
        "iterations": Phase(network_flops, network_weights, config.diffusion.sampler_iterations),
    }


def floor_ms(work: Mapping[str, Phase], rates: Rates, precision: str, cache_bytes: int) -> float:
    """The floor of a plan. Weights that fit the last-level cache are read once, larger ones in every run."""
    total_s = 0.0
    for phase in work.values():
        compute_s = phase.flops / rates.flops[precision]
        read = phase.weights * BYTES[precision]
        read_s = read / rates.memory
        reads = phase.runs if read > cache_bytes else min(1, phase.runs)
        total_s += reads * max(compute_s, read_s) + (phase.runs - reads) * compute_s
    return 1e3 * total_s


def last_level_cache_bytes() -> int:
    """Size of the first core's largest cache; 0 where the system does not say."""
    sizes = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1] in units), default=0)


_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def measure_rates(precisions: list[str], pipe: Connection) -> None:
    """Work of a side: the best rates of a few repeats, each time it is asked. `Rates`."""
    import torch

    pipe.recv()
    stream = torch.ones(STREAM_MB << 18)
    products = {precision: _products(precision) for precision in precisions}
    while True:
        flops = {
            precision: 2.0 * GEMM_SIZE**3 / min(_best_s(product) for product in of_precision)
            for precision, of_precision in products.items()
        }
        memory = stream.numel() * 4 / min(_best_s(stream.sum), _best_s(stream.max))
        pipe.send(Rates(flops, memory))
        pipe.recv()


def best(rates: list[Rates]) -> Rates:
    """The highest of each rate: what the machine does when nothing disturbs it."""
    precisions = rates[0].flops
    flops = {precision: max(rate.flops[precision] for rate in rates) for precision in precisions}
    return Rates(flops, max(rate.memory for rate in rates))


def _products(precision: str) -> list[Callable[[], object]]:
    """Matrix products of the libraries that the engines use; which one is fastest depends on the processor."""
    import torch

    from dp_ros.inference.openvino_engine import shared_core

    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    a = torch.rand(GEMM_SIZE, GEMM_SIZE, dtype=torch.float32).to(dtype)
    products: list[Callable[[], object]] = [lambda: a @ a]
    try:
        import openvino
    except ImportError:
        return products
    rows = openvino.opset13.parameter([GEMM_SIZE, GEMM_SIZE], np.float32)
    weights = openvino.opset13.constant(np.ones((GEMM_SIZE, GEMM_SIZE), dtype=np.float32))
    model = openvino.Model([openvino.opset13.matmul(rows, weights, False, True)], [rows])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    return [*products, shared_core().compile_model(model, "CPU", settings).create_infer_request().infer]


def _best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _weights(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops(module: Any, run: Callable[[], object]) -> float:
    """Operations of the convolutions and linear layers in `module` while `run` runs."""
    import torch

    counted = 0.0

    def count(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal counted
        counted += 2.0 * products_of(layer, inputs[0].shape, output.shape)

    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.ConvTranspose1d, torch.nn.Linear)
    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, kinds)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def products_of(layer: Any, taken: Any, given: Any) -> float:
    """Multiplications of a convolution or a linear layer, from an input of shape `taken` to an output of shape `given`.

    Those with padding are left out.
    """
    if hasattr(layer, "in_features"):
        return float(np.prod(taken)) * layer.out_features
    # A transposed convolution is a convolution from its output to its input.
    wide, narrow = (given, taken) if layer.transposed else (taken, given)
    products = float(taken[0] * layer.in_channels * layer.out_channels / layer.groups)
    for i, (size, stride, padding) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.padding, strict=True), 2
    ):
        first = np.arange(narrow[i])[:, None] * stride - padding + np.arange(size)
        products *= int(((first >= 0) & (first < wide[i])).sum())
    return products
