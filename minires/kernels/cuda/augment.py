"""Augmentation of a whole batch in one launch, with the draws that the CPU makes."""

from __future__ import annotations

import numpy as np

from ...device import Array, array_module
from ..dispatch import Accepts, variant
from ..portable.augment import Crop, Flip, Scale, augment
from ..portable.random import CROP, FLIP, key
from .compiler import THREADS, blocks, launch

CHANNELS = 4  # as in augment.cu
_SIZES = ("H", "W", "C", "h", "w", "padding", "crop", "flip")
_PLAN = np.dtype(
    [*((name, np.int32) for name in _SIZES), ("images", np.int64)]
    + [("crop_key", np.uint32, 2), ("flip_key", np.uint32, 2)]
    + [(name, np.uint32) for name in ("epoch", "crop_use", "flip_use", "unused")]
    + [("mirrored", np.float64), ("factor", np.float32, CHANNELS), ("shift", np.float32, CHANNELS)]
)


def normalised(
    images: Array,
    rows: Array | None,
    index: Array,
    epoch: int,
    crop: Crop | None,
    flip: Flip | None,
    scale: Scale | None,
) -> bool:
    """float32 or uint8 images of up to 4 channels that are normalised at the end, int64 rows and index, as many"""
    whole = all(a is None or a.dtype == np.int64 for a in (rows, index))
    whole = whole and index.shape == (images.shape[:1] if rows is None else rows.shape) and index.ndim == 1
    return (
        whole and images.dtype in (np.uint8, np.float32) and images.shape[3] <= CHANNELS and scale is not None
        and images.size > 0 and len(index) > 0
    )  # fmt: skip


@variant(augment, Accepts("cuda", ("uint8", "float32", "int64")), suits=normalised)
def augment_cuda(
    images: Array,
    rows: Array | None,
    index: Array,
    epoch: int,
    crop: Crop | None,
    flip: Flip | None,
    scale: Scale | None,
) -> Array:
    """One thread for each pixel of the batch, which reads its pixel of the data set. A row that is not there is NaN."""
    assert scale is not None
    count, h, w, c = images.shape
    size, padding, seed = crop or Crop((h, w), 0, 0)
    probability, flip_seed = flip or Flip(0, 0)
    plan = np.zeros((), _PLAN)
    for name, value in zip(_SIZES, (h, w, c, *size, padding, crop is not None, flip is not None), strict=True):
        plan[name] = value
    plan["images"] = count
    plan["crop_key"], plan["flip_key"], plan["epoch"] = key(seed), key(flip_seed), epoch
    plan["crop_use"], plan["flip_use"], plan["mirrored"] = CROP, FLIP, probability * 2.0**32
    plan["factor"][:c], plan["shift"][:c] = scale.factor, scale.shift
    y = array_module(images).empty((len(index), *size, c), np.float32)
    grid = len(index), blocks(size[0] * size[1])
    launch("augment", f"augment_{images.dtype}", grid, THREADS, images, rows, index, y, plan)
    return y
