"""A batch of a data set as training sees it: images picked, cropped, mirrored and normalised."""

from __future__ import annotations

from typing import NamedTuple

from ...device import Array, array_module, device_of
from ..dispatch import kernel
from .random import CROP, FLIP, below, words


class Crop(NamedTuple):
    """A window of `size` (rows, columns), anywhere in the image with `padding` zeros around it."""

    size: tuple[int, int]
    padding: int
    seed: int


class Flip(NamedTuple):
    """Left to right, with probability `p`."""

    p: float
    seed: int


class Scale(NamedTuple):
    """x * factor - shift in float32, each product and difference rounded, with a number of each for every channel."""

    factor: tuple[float, ...]
    shift: tuple[float, ...]


@kernel
def augment(
    images: Array,
    rows: Array | None,
    index: Array,
    epoch: int,
    crop: Crop | None,
    flip: Flip | None,
    scale: Scale | None,
) -> Array:
    """images[rows] (N, H, W, C), or images where `rows` is None, after those of the three steps that are not None.

    Draws are those of (seed, epoch, index): index (N,) says which examples of the data set the images are.
    """
    x = images if rows is None else images[rows]
    if crop is not None:
        x = _crop(x, index, epoch, crop)
    if flip is not None:
        x = _flip(x, index, epoch, flip)
    return x if scale is None else _scale(x, scale)


def _crop(x: Array, index: Array, epoch: int, crop: Crop) -> Array:
    xp, (n, h, w, c), p, (high, wide) = array_module(x), x.shape, crop.padding, crop.size
    padded = xp.zeros((n, h + 2 * p, w + 2 * p, c), x.dtype)
    padded[:, p : p + h, p : p + w] = x
    drawn = words(crop.seed, epoch, index, CROP)
    top, left = below(drawn[:, 0], h + 2 * p - high + 1), below(drawn[:, 1], w + 2 * p - wide + 1)
    lines = padded.reshape(n, h + 2 * p, (w + 2 * p) * c)  # so that each line of a window is one copy
    windows = xp.lib.stride_tricks.sliding_window_view(lines, (high, wide * c), axis=(1, 2))
    return windows[xp.arange(n), top, left * c].reshape(n, high, wide, c)


def _flip(x: Array, index: Array, epoch: int, flip: Flip) -> Array:
    flipped = words(flip.seed, epoch, index, FLIP)[:, 0] < flip.p * 2.0**32
    if device_of(x) != "cpu":  # a GPU would have to be waited for: how many are there?
        return array_module(x).where(flipped[:, None, None, None], x[:, :, ::-1], x)
    y = x.copy()
    y[flipped] = x[flipped].take(array_module(x).arange(x.shape[2])[::-1], axis=2)
    return y


def _scale(x: Array, scale: Scale) -> Array:
    xp, (n, h, w, c) = array_module(x), x.shape
    lines = xp.ascontiguousarray(x).reshape(n * h, w * c).astype(xp.float32)  # an axis of 3 channels alone is slow
    lines *= xp.tile(xp.asarray(scale.factor, xp.float32), w)
    lines -= xp.tile(xp.asarray(scale.shift, xp.float32), w)
    return lines.reshape(x.shape)
