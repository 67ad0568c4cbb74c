"""What this machine computes with: GPU, its free memory, and bf16. No torch is imported where there is no GPU."""

from __future__ import annotations

import gc
from pathlib import Path


def has_gpu() -> bool:
    """Whether torch sees a GPU. Without a driver's device file torch need not be asked, which takes a second."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):
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
