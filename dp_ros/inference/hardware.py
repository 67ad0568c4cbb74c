"""Hardware that computes plans: whether there is a GPU, how much of its memory is free, and whether there is bf16."""

from __future__ import annotations

import gc
from pathlib import Path

_DRIVER_FILES = ("/dev/nvidiactl", "/dev/kfd")


def has_gpu_driver() -> bool:
    """Whether a driver of a GPU is loaded. torch is not imported."""
    return any(Path(file).exists() for file in _DRIVER_FILES)


def has_gpu() -> bool:
    """Whether torch sees a GPU. It is imported only where there is a driver: that takes seconds."""
    if not has_gpu_driver():
        return False
    import torch

    return torch.cuda.is_available()


def free_gpu_bytes() -> int:
    """Memory of the GPU that no process has taken, and what this one has but does not use."""
    import torch

    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


def has_bf16() -> bool:
    """Whether the processor multiplies numbers of bf16. Where it does not, bf16 is slower than f32."""
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(name in facts for name in ("avx512_bf16", "amx_bf16", " bf16"))
