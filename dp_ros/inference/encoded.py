"""Features of the newest pictures. Several windows contain the same picture, which is encoded once."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Encoded(Generic[T]):
    """The features of the newest `kept` pictures of each camera, each with its instruction."""

    def __init__(self, cameras: int, kept: int) -> None:
        # A weak reference cannot be mistaken for a new array.
        self._of: list[deque[tuple[Any, bytes, T]]] = [deque(maxlen=kept) for _ in range(cameras)]

    def get(self, view: int, picture: NDArray[np.uint8], told: bytes, encode: Callable[[], T]) -> T:
        """The features of a picture of the camera number `view`. Without them, `encode` is called."""
        for known, instruction, encoded in self._of[view]:
            if known() is picture and instruction == told:
                return encoded
        encoded = encode()
        self._of[view].append((weakref.ref(picture), told, encoded))
        return encoded
