"""Training of one policy by several processes: `accelerate launch --multi_gpu -m dp_ros.cli train ...`, or torchrun.

Each process has the whole policy and trains on its part of every batch. Gradients are averaged, so that all processes
keep the same weights. Up to rounding these are the weights that one process would learn; with dropout, they are the
same in distribution. Only the first process writes. Without a launcher accelerate is not imported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed
from torch import Tensor, nn

from dp_ros.train.device import find_device
from dp_ros.train.stopping import TrainingError

TIMEOUT_S = 600.0  # the others wait while the first process validates and saves


def is_first_process() -> bool:
    """Whether this process reports and writes, by the launcher's environment."""
    return os.environ.get("RANK", "0") == "0"


class Ranks:
    """The processes that train together; this one is number `index` of `count`."""

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.index, self.count, self.device = index, count, device

    @classmethod
    def join(cls, device: str, timeout_s: float = TIMEOUT_S) -> Ranks:
        """Connect to the other processes of the launcher; one process without a launcher.

        TrainingError where they do not answer, or `device` is "cuda" and there is no GPU.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        on_cpu = find_device(device).type == "cpu"
        with _one_line():
            # On GPUs too, tensors on the CPU are exchanged by gloo: see `average`.
            backend = {} if on_cpu else {"backend": "cpu:gloo,cuda:nccl"}
            state = PartialState(cpu=on_cpu, timeout=timedelta(seconds=timeout_s), **backend)
        return cls(state.process_index, state.num_processes, state.device)

    def leave(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.index == 0

    @property
    def part(self) -> tuple[int, int]:
        return self.index, self.count

    def average(self, parameters: Iterable[nn.Parameter], values: Sequence[float]) -> list[float]:
        """Average over the processes: the parameters' gradients in place, `values` as the return value.

        The values are exchanged first, by gloo on the CPU: it notices at once when a process has ended, NCCL does not.
        """
        if self.count == 1:
            return list(values)
        means = torch.tensor(values, dtype=torch.float32)
        gradients = [p.grad for p in parameters if p.grad is not None]
        message = torch.cat([gradient.flatten() for gradient in gradients])
        with _one_line():
            torch.distributed.all_reduce(means)
            torch.distributed.all_reduce(message)
        message /= self.count
        parts = torch.split(message, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view(gradient.shape))
        return (means / self.count).tolist()

    def check_agreed(self, facts: str, parameters: Iterable[Tensor]) -> None:
        """TrainingError unless `facts` and the weights are the same in every process."""
        if self.count == 1:
            return
        digest = hashlib.sha256(facts.encode())
        for parameter in parameters:
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        digests: list[str | None] = [None] * self.count
        with _one_line():
            torch.distributed.all_gather_object(digests, digest.hexdigest())
        if len(set(digests)) > 1:
            raise TrainingError(
                "the processes of this run start from different states: give all the same dataset, config and --out "
                "(a shared folder)"
            )

    def wait(self) -> None:
        """Wait for every process to reach this call."""
        if self.count > 1:
            with _one_line():
                torch.distributed.barrier()


@contextmanager
def _one_line() -> Iterator[None]:
    """Errors of gloo and NCCL about an ended process become a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        # gloo's errors have no class of their own. Any other RuntimeError is this process's own.
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in text or "pair closure" in text):
            raise
        raise TrainingError(
            f"another process of this run ended or does not answer ({' '.join(str(error).split())[:120]}): read its "
            "error, then run the same command with --resume"
        ) from None
