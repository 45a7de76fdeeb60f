"""Transforms of a whole batch: `transform(images, index, epoch)` maps images (N, H, W, C) to images.

`index` (N,) says which examples of the data set they are. Random transforms draw from (seed, epoch, index) alone, so an
example looks the same whichever batch, thread or order it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, DataError, ShapeError
from . import draws

Transform = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class RandomCrop:
    """Surround each image with `padding` zeros and cut a window of the old size out at a random place."""

    padding: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ArgumentError(f"RandomCrop: padding {self.padding} must be at least 0")

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        p = self.padding
        n, h, w, _ = images.shape
        padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
        drawn = draws.words(self.seed, epoch, index, draws.CROP)
        top, left = draws.below(drawn[:, 0], 2 * p + 1), draws.below(drawn[:, 1], 2 * p + 1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (h, w), axis=(1, 2))  # (N, 2P+1, 2P+1, C, H, W)
        return np.ascontiguousarray(windows[np.arange(n), top, left].transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror each image left to right with probability 1/2."""

    seed: int = 0

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        flipped = draws.below(draws.words(self.seed, epoch, index, draws.FLIP)[:, 0], 2).astype(bool)
        return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


@dataclass(frozen=True)
class Normalize:
    """(images / scale - mean) / std in float32, channel by channel; scale is 255 for the usual eight bits."""

    mean: Sequence[float]
    std: Sequence[float]
    scale: float = 255.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std, default=0.0) <= 0:
            raise ArgumentError(f"Normalize: mean {self.mean} and std {self.std} must be as many, and std above 0")
        if self.scale <= 0:
            raise ArgumentError(f"Normalize: scale {self.scale} must be above 0")

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        if images.shape[-1] != len(self.mean):
            raise ShapeError(
                f"Normalize: {len(self.mean)} means, but images {images.shape} have {images.shape[-1]} channels"
            )
        std = np.asarray(self.std, np.float64)
        y = images.astype(np.float32)
        y *= (1 / (self.scale * std)).astype(np.float32)
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
