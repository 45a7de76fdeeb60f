"""Transforms of a whole batch: `transform(images, index, epoch)` maps images (N, H, W, C) to images.

`index` (N,) says which examples of the data set they are. Random transforms draw from (seed, epoch, index) alone, so an
example looks the same whichever batch, thread or order it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..device import Array, array_module
from ..errors import ArgumentError, DataError, ShapeError
from ..kernels import Crop, Flip, Scale, augment
from . import draws

Transform = Callable[[Array, Array, int], Array]


class Step:
    """A transform that the `augment` kernel knows: several of them that follow each other become one call."""

    order: ClassVar[int]  # within the kernel

    def plan(self, images: Array) -> Crop | Flip | Scale:
        """What the kernel is told, for such images. Raises ShapeError where they do not fit."""
        raise NotImplementedError

    def __call__(self, images: Array, index: Array, epoch: int) -> Array:
        return _together([self], images, None, as_index(index), epoch)


@dataclass(frozen=True)
class RandomCrop(Step):
    """Surround each image with `padding` zeros, and cut a window of `size` (rows and columns) out at a random place."""

    order = 0
    size: int | tuple[int, int]
    padding: int = 0
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.padding < 0 or len(self._size()) != 2 or min(self._size()) < 1:
            raise ArgumentError(f"{self}: size must be one number or two, at least 1, and padding at least 0")

    def _size(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def plan(self, images: Array) -> Crop:
        if any(length + 2 * self.padding < size for length, size in zip(images.shape[1:3], self._size(), strict=True)):
            raise ShapeError(f"{self}: images {images.shape} with padding are smaller than the crop")
        return Crop(self._size(), self.padding, self.seed)


@dataclass(frozen=True)
class RandomHorizontalFlip(Step):
    """Mirror each image left to right with probability `p`."""

    order = 1
    p: float = 0.5
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ArgumentError(f"{self}: p must be from 0 to 1")

    def plan(self, images: Array) -> Flip:
        return Flip(self.p, self.seed)


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

    def __call__(self, images: Array, index: Array, epoch: int) -> Array:
        drawn = draws.words(self.seed, epoch, index, draws.CUTOUT)
        sides = array_module(images).full(len(images), self.size)
        box = boxes(images.shape[1:3], drawn[:, 0], drawn[:, 1], sides, sides)
        y = images.copy()
        array_module(images).copyto(y, y.dtype.type(0), where=box[..., None])
        return y


def boxes(shape: tuple[int, ...], row: Array, column: Array, height: Array, width: Array) -> Array:
    """Boxes in maps of (H, W), True inside: (N, H, W). Words (N,) draw their centres; the border clips them."""
    lines = []
    for length, word, size in zip(shape, (row, column), (height, width), strict=True):
        start = (draws.below(word, length) - size // 2)[:, None]
        places = array_module(word).arange(length)
        lines.append((places >= start) & (places < start + size[:, None]))
    return lines[0][:, :, None] & lines[1][:, None, :]


@dataclass(frozen=True)
class Normalize(Step):
    """(images / scale - mean) / std in float32, channel by channel.

    `scale` makes values run from 0 to 1; if None it is 255 for images of eight bits, and 1 for floats.
    """

    order = 2
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

    def plan(self, images: Array) -> Scale:
        if images.shape[-1] != len(self.mean):
            raise ShapeError(
                f"Normalize: {len(self.mean)} means, but images {images.shape} have {images.shape[-1]} channels"
            )
        scale = self.scale or (1.0 if images.dtype.kind == "f" else 255.0)
        std = np.asarray(self.std, np.float64)
        return Scale(*(tuple(v.tolist()) for v in (1 / (scale * std), np.asarray(self.mean, np.float64) / std)))


@dataclass(frozen=True)
class Compose:
    """One transform after the other."""

    transforms: Sequence[Transform]

    def __call__(self, images: Array, index: Array, epoch: int) -> Array:
        return apply(self.transforms, images, None, index, epoch)


def apply(transforms: Sequence[Transform], images: Array, rows: Array | None, index: Any, epoch: int) -> Array:
    """images[rows], or images where `rows` is None, after all transforms. Raises DataError where one drops images."""
    index = as_index(index)
    waiting: list[Step] = []
    for transform in flat(transforms):
        step = transform if isinstance(transform, Step) and type(transform).__call__ is Step.__call__ else None
        if step is None or (waiting and step.order <= waiting[-1].order):
            images, rows, waiting = _together(waiting, images, rows, index, epoch), None, []
        if step is not None:
            waiting.append(step)
            continue
        count = len(images)
        images = transform(images, index, epoch)
        if len(images) != count:
            raise DataError(f"transform {transform!r} made {len(images)} images of {count}")
    return _together(waiting, images, rows, index, epoch)


def as_index(index: Any) -> Array:
    """An index as an array, which a list may be, too."""
    return index if hasattr(index, "dtype") else np.asarray(index)


def flat(transforms: Sequence[Transform]) -> list[Transform]:
    """Transforms, with those of a Compose in its place, unless a subclass does something else with them."""
    parts: list[Transform] = []
    for t in transforms:
        parts += flat(t.transforms) if isinstance(t, Compose) and type(t).__call__ is Compose.__call__ else [t]
    return parts


def _together(steps: Sequence[Step], images: Array, rows: Array | None, index: Array, epoch: int) -> Array:
    """images[rows] after steps in the kernel's order, in one call of it."""
    plan: dict[int, Any] = {step.order: step.plan(images) for step in steps}
    if not plan or images.dtype not in (np.uint8, np.float32):
        images, rows = images if rows is None else images[rows], None  # of the batch alone, where it is converted below
    if not plan:
        return images
    half = images.dtype == np.float16  # kernels compute in float32; cropping and mirroring leave the type as it was
    y = augment(images.astype(np.float32) if half else images, rows, index, epoch, *map(plan.get, range(3)))
    return y.astype(np.float16) if half and Normalize.order not in plan else y
