"""Pictures of the training windows on a GPU, so that a step need not wait for them to be cropped and copied there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dp_ros.data.stream import StreamedPictures
from dp_ros.data.windows import PictureStore, Windows
from dp_ros.schema import TrainConfig

SHARE = 0.6  # of the free memory of a GPU that pictures may take; a step needs the rest
_BLOCK = 4096  # pictures copied at once


class PicturesOnDevice:
    """Pictures of one camera in the memory of a device."""

    def __init__(self, pixels: NDArray[np.uint8] | StreamedPictures, device: torch.device) -> None:
        """pixels (N, H, W, 3), an array or on disk."""
        self.shape: tuple[int, ...] = tuple(pixels.shape)
        self._pixels = torch.empty(self.shape, dtype=torch.uint8, device=device)
        if isinstance(pixels, StreamedPictures):
            pixels.copy(self._put)
        else:
            for first in range(0, len(pixels), _BLOCK):
                self._put(first, pixels[first : first + _BLOCK])

    def _put(self, first: int, block: NDArray[np.uint8]) -> None:
        self._pixels[first : first + len(block)] = torch.from_numpy(block).to(self._pixels.device)

    def crops(self, ticks: NDArray[np.int64], corners: NDArray[np.int64], size: tuple[int, int]) -> Tensor:
        """ticks (n,), corners (n, 2): top and left of each crop; size (height, width) -> uint8 (n, height, width, 3)
        on the device."""
        device = self._pixels.device
        tick, top_left = torch.from_numpy(ticks).to(device), torch.from_numpy(corners).to(device)
        rows = top_left[:, :1] + torch.arange(size[0], device=device)
        columns = top_left[:, 1:] + torch.arange(size[1], device=device)
        return self._pixels[tick[:, None, None], rows[:, :, None], columns[:, None, :]]


def move_pictures(windows: Windows, config: TrainConfig, device: torch.device) -> Windows | None:
    """The windows with their pictures on the GPU `device`; None where they would not fit, or are changed on the CPU."""
    if device.type != "cuda" or config.augmentation.cover:
        return None
    free, _ = torch.cuda.mem_get_info(device)
    stores: Sequence[Any] = windows.stores
    if sum(int(np.prod(store.shape)) for store in stores) > SHARE * free:
        return None
    on_device: list[PictureStore] = [PicturesOnDevice(store, device) for store in stores]
    return windows.with_stores(on_device)
