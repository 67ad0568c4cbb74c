"""Device of a run: choice, settings for speed, and name."""

from __future__ import annotations

import ctypes

import torch

from dp_ros.inference.hardware import has_bf16
from dp_ros.schema import TrainConfig
from dp_ros.train.stopping import TrainingError


def find_device(name: str) -> torch.device:
    """Device for "auto", "cpu" or "cuda"; TrainingError for "cuda" without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device cuda: torch sees no GPU; set device to auto or cpu")
    return torch.device(name)


def set_up(device: torch.device, config: TrainConfig) -> None:
    """Process-wide settings of memory and of torch for fast training on `device`."""
    if device.type == "cpu":
        _keep_freed_memory()
        return
    short = config.precision == "tf32"
    torch.set_float32_matmul_precision("high" if short else "highest")
    torch.backends.cudnn.allow_tf32 = short
    torch.backends.cudnn.benchmark = (
        config.run_length == 1
    )  # batches of runs differ in their number of frames


def computes_bf16(device: torch.device, precision: str) -> bool:
    """Whether a training of that `precision` multiplies in bf16: not on a processor that takes many times as long."""
    return precision == "bf16" and (device.type != "cpu" or has_bf16())


def name_hardware(device: torch.device, processes: int, precision: str) -> str:
    """Hardware of a training and the precision it really computes in: "NVIDIA H100, bf16", "2 CPU threads, f32"."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return f"{name if processes == 1 else f'{processes} x {name}'}, {precision}"
    threads = torch.get_num_threads() * processes
    computed = "bf16" if computes_bf16(device, precision) else "f32"
    return f"{'1 CPU thread' if threads == 1 else f'{threads} CPU threads'}, {computed}"


def _keep_freed_memory() -> None:
    """Let glibc keep freed blocks: returning each activation to the kernel costs page faults in every step."""
    M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
    except (OSError, AttributeError):  # another libc: training is only slower
        pass
