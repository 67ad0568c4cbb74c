"""What an engine computed from the newest pictures, kept for the windows to come that contain them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Encoded(Generic[T]):
    """Of each camera the newest `kept` pictures, each with the instruction that it was encoded under."""

    def __init__(self, cameras: int, kept: int) -> None:
        # A weak reference cannot be mistaken for a new array.
        self._of: list[deque[tuple[Any, bytes, T]]] = [deque(maxlen=kept) for _ in range(cameras)]

    def get(self, view: int, picture: NDArray[np.uint8], told: bytes, encode: Callable[[], T]) -> T:
        """What a picture of the camera number `view` was encoded to under that instruction; by `encode` if not yet."""
        for known, instruction, encoded in self._of[view]:
            if known() is picture and instruction == told:
                return encoded
        encoded = encode()
        self._of[view].append((weakref.ref(picture), told, encoded))
        return encoded
