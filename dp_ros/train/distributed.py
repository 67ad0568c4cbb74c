"""Several processes that train one policy: `accelerate launch --multi_gpu -m dp_ros.cli train ...`, or torchrun.

Each has the whole policy and learns from its part of every batch; gradients are averaged, so that the weights stay
the same in all. Up to rounding they are those that one process learns; with dropout, the same in distribution.
The first process alone writes. Without a launcher nothing here is used, nor accelerate imported.
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

TIMEOUT_S = 600.0  # the first process may validate and save meanwhile


def is_first_process() -> bool:
    """Whether this is the process that reports and writes, as the launcher's environment says."""
    return os.environ.get("RANK", "0") == "0"


class Ranks:
    """This process among those that train together: the `index`-th of `count`."""

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | None = None) -> None:
        self.index, self.count, self.device = index, count, device

    @classmethod
    def join(cls, device: str, timeout_s: float = TIMEOUT_S) -> Ranks:
        """Meet the other processes that the launcher started; alone where it started none.

        TrainingError where they cannot be met, or `device` is "cuda" and there is no GPU.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        on_cpu = find_device(device).type == "cpu"
        with _one_line():
            # On GPUs too, what the hosts say to each other goes over gloo: see `average`.
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
        """Average the gradients, in place, and the values, which the return value holds.

        The values go first, from CPU to CPU: gloo notices at once that a process is gone, where NCCL waits for it.
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
        """TrainingError unless every process begins from the same facts and the same weights."""
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
                "the processes of this run do not begin alike: give each the same dataset and config, and let all see "
                "the same --out"
            )

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            with _one_line():
                torch.distributed.barrier()


@contextmanager
def _one_line() -> Iterator[None]:
    """What gloo and NCCL say of a process that is gone as a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        # gloo's own have no class of their own; any other RuntimeError is not of another process.
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in text or "pair closure" in text):
            raise
        raise TrainingError(
            f"another process of this run ended or does not answer ({' '.join(str(error).split())[:120]}): see what it "
            "said, then run the same command with --resume"
        ) from None
