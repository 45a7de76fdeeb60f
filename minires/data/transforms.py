"""Transforms of a whole batch: `transform(images, index, epoch)` maps images (N, H, W, C) to images.

`index` (N,) says which examples of the data set they are. Random transforms draw from (seed, epoch, index) alone, so an
example looks the same whichever batch, thread or order it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import ArgumentError, DataError, ShapeError
from . import draws

Transform = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class RandomCrop:
    """Surround each image with `padding` zeros, and cut a window of `size` (rows and columns) out at a random place."""

    size: int | tuple[int, int]
    padding: int = 0
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.padding < 0 or min(self._size()) < 1:
            raise ArgumentError(f"{self}: size must be at least 1 and padding at least 0")

    def _size(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        p, size = self.padding, self._size()
        padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
        rows, columns = padded.shape[1] - size[0] + 1, padded.shape[2] - size[1] + 1  # places for the window
        if min(rows, columns) < 1:
            raise ShapeError(f"{self}: images {images.shape} with padding are smaller than the crop")
        drawn = draws.words(self.seed, epoch, index, draws.CROP)
        top, left = draws.below(drawn[:, 0], rows), draws.below(drawn[:, 1], columns)
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))  # (N, rows, columns, C, *size)
        return np.ascontiguousarray(windows[np.arange(len(images)), top, left].transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror each image left to right with probability `p`."""

    p: float = 0.5
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ArgumentError(f"{self}: p must be from 0 to 1")

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        drawn = draws.words(self.seed, epoch, index, draws.FLIP)[:, 0]
        flipped = drawn < self.p * 2.0**32
        return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


@dataclass(frozen=True)
class Normalize:
    """(images / scale - mean) / std in float32, channel by channel.

    `scale` makes values run from 0 to 1; if None it is 255 for images of eight bits, and 1 for floats.
    """

    mean: Sequence[float]
    std: Sequence[float]
    scale: float | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(v, (Sequence, np.ndarray)) for v in (self.mean, self.std)):
            raise ArgumentError("Normalize: mean and std have a number for each channel, such as mean=(0.305,)")
        if len(self.mean) != len(self.std) or min(self.std, default=0.0) <= 0:
            raise ArgumentError(f"Normalize: mean {self.mean} and std {self.std} must be as many, and std above 0")
        if self.scale is not None and self.scale <= 0:
            raise ArgumentError(f"Normalize: scale {self.scale} must be above 0")

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        if images.shape[-1] != len(self.mean):
            raise ShapeError(
                f"Normalize: {len(self.mean)} means, but images {images.shape} have {images.shape[-1]} channels"
            )
        scale = self.scale or (1.0 if images.dtype.kind == "f" else 255.0)
        std = np.asarray(self.std, np.float64)
        y = images.astype(np.float32)
        y *= (1 / (scale * std)).astype(np.float32)
        y -= (np.asarray(self.mean, np.float64) / std).astype(np.float32)
        return y


@dataclass(frozen=True)
class Compose:
    """One transform after the other."""

    transforms: Sequence[Transform]

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        for transform in self.transforms:
            count = len(images)
            images = transform(images, index, epoch)
            if len(images) != count:
                raise DataError(f"transform {transform!r} made {len(images)} images of {count}")
        return images
