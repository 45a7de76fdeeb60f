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
        if self.padding < 0 or len(self._size()) != 2 or min(self._size()) < 1:
            raise ArgumentError(f"{self}: size must be one number or two, at least 1, and padding at least 0")

    def _size(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        (n, h, w, c), p, size = images.shape, self.padding, self._size()
        padded = np.zeros((n, h + 2 * p, w + 2 * p, c), images.dtype)
        padded[:, p : p + h, p : p + w] = images
        rows, columns = h + 2 * p - size[0] + 1, w + 2 * p - size[1] + 1  # places for the window
        if min(rows, columns) < 1:
            raise ShapeError(f"{self}: images {images.shape} with padding are smaller than the crop")
        drawn = draws.words(self.seed, epoch, index, draws.CROP)
        top, left = draws.below(drawn[:, 0], rows), draws.below(drawn[:, 1], columns)
        lines = padded.reshape(n, h + 2 * p, (w + 2 * p) * c)  # so that each line of a window is one copy
        windows = np.lib.stride_tricks.sliding_window_view(lines, (size[0], size[1] * c), axis=(1, 2))
        return windows[np.arange(n), top, left * c].reshape(n, *size, c)


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
        y = images.copy()
        y[flipped] = images[flipped].take(np.arange(images.shape[2])[::-1], axis=2)
        return y


@dataclass(frozen=True)
class Cutout:
    """Set a square of `size` pixels to 0 whose centre is any pixel, so that it may reach over the border.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017, section 3.2.
    Theirs comes after Normalize, where 0 is the mean.
    """

    size: int
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ArgumentError(f"{self}: size must be at least 1")

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        drawn = draws.words(self.seed, epoch, index, draws.CUTOUT)
        sides = np.full(len(images), self.size)
        y = images.copy()
        y[boxes(images.shape[1:3], drawn[:, 0], drawn[:, 1], sides, sides)] = 0
        return y


def boxes(
    shape: tuple[int, ...], row: np.ndarray, column: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Boxes in maps of (H, W), True inside: (N, H, W). Words (N,) draw their centres; the border clips them."""
    lines = []
    for length, word, size in zip(shape, (row, column), (height, width), strict=True):
        start = (draws.below(word, length) - size // 2)[:, None]
        lines.append((np.arange(length) >= start) & (np.arange(length) < start + size[:, None]))
    return lines[0][:, :, None] & lines[1][:, None, :]


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
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ArgumentError(f"Normalize: mean {self.mean} and std {self.std} must be as many, and std above 0")
        if self.scale is not None and not self.scale > 0:
            raise ArgumentError(f"Normalize: scale {self.scale} must be above 0")

    def __call__(self, images: np.ndarray, index: np.ndarray, epoch: int) -> np.ndarray:
        if images.shape[-1] != len(self.mean):
            raise ShapeError(
                f"Normalize: {len(self.mean)} means, but images {images.shape} have {images.shape[-1]} channels"
            )
        scale = self.scale or (1.0 if images.dtype.kind == "f" else 255.0)
        n, h, w, c = images.shape
        std = np.asarray(self.std, np.float64)
        lines = images.reshape(n * h, w * c).astype(np.float32, order="C")  # NumPy is slow along an axis of 3 channels
        lines *= np.tile((1 / (scale * std)).astype(np.float32), w)
        lines -= np.tile((np.asarray(self.mean, np.float64) / std).astype(np.float32), w)
        return lines.reshape(images.shape)


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
