"""Augmentations that mix the examples of a batch, labels and all: `mix(images, labels, index, epoch)` for DataLoader.

    mix = functools.partial(cutmix, alpha=1.0, classes=10)
    loader = DataLoader(train_set, 128, shuffle=True, mix=mix)

Labels (N,) become probabilities of the classes (N, C) in float32, which cross_entropy takes. Each image is mixed with
the one that follows it in a random circle of the batch, by a share of its own. Circle and shares are functions of
(seed, epoch, index), so that a batch looks the same whichever thread makes it and wherever a run was resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..device import Array, array_module
from ..errors import ArgumentError, DTypeError, RangeError, ShapeError
from . import draws
from .transforms import boxes

Mix = Callable[[Array, Array, Array, int], tuple[Array, ...]]


def mixup(
    images: Array,
    labels: Array,
    index: Array,
    epoch: int,
    *,
    alpha: float = 1.0,
    classes: int,
    seed: int = 0,
) -> tuple[Array, Array]:
    """share * image + (1 - share) * partner, the labels likewise, with share ~ Beta(alpha, alpha).

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, section 2, which draws a share for each pair; their
    code draws one for a batch. Images (N, H, W, C) of integers become float32. labels are class numbers (N,), or
    probabilities (N, classes). Raises ArgumentError, DTypeError, ShapeError, RangeError.
    """
    _check("mixup", alpha, images, labels, index)
    share = draws.symmetric_beta(draws.words(seed, epoch, index, draws.MIXUP_SHARE), alpha).astype(np.float32)
    partner = _partners(draws.words(seed, epoch, index, draws.MIXUP_PAIR))
    if images.dtype.kind != "f":
        images = images.astype(np.float32)
    s = share.astype(images.dtype)[:, None, None, None]
    return s * images + (1 - s) * images[partner], _mixed("mixup", labels, partner, share, classes)


def cutmix(
    images: Array,
    labels: Array,
    index: Array,
    epoch: int,
    *,
    alpha: float = 1.0,
    classes: int,
    seed: int = 0,
) -> tuple[Array, Array]:
    """A box of each image is its partner's; the labels are mixed by area.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019, section
    3.1: the box has the image's proportions and the area 1 - share, share ~ Beta(alpha, alpha). Any pixel is its
    centre, the border clips it, and the share is then what is left of the image. Images (N, H, W, C) keep their type.
    labels are class numbers (N,), or probabilities (N, classes). Raises ArgumentError, DTypeError, ShapeError,
    RangeError.
    """
    _check("cutmix", alpha, images, labels, index)
    drawn = draws.words(seed, epoch, index, draws.CUTMIX_PAIR)
    xp = array_module(images)
    side = xp.sqrt(1 - draws.symmetric_beta(draws.words(seed, epoch, index, draws.CUTMIX_SHARE), alpha))
    height, width = ((side * length).astype(np.int64) for length in images.shape[1:3])
    partner = _partners(drawn)
    box = boxes(images.shape[1:3], drawn[:, 2], drawn[:, 3], height, width)
    share = 1 - box.mean(axis=(1, 2), dtype=np.float32)
    return xp.where(box[..., None], images[partner], images), _mixed("cutmix", labels, partner, share, classes)


def label_smoothing(labels: Array, smoothing: float, classes: int) -> Array:
    """(1 - smoothing) * label + smoothing / classes as probabilities (N, classes) in float32.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7. labels are class
    numbers (N,), or probabilities (N, classes). Raises ArgumentError, DTypeError, ShapeError, RangeError.
    """
    if not 0 <= smoothing <= 1:
        raise ArgumentError(f"label_smoothing: smoothing {smoothing} must be from 0 to 1")
    q = _probabilities("label_smoothing", labels, classes)
    return (1 - smoothing) * q + np.float32(smoothing / classes)


def _check(name: str, alpha: float, images: Array, labels: Array, index: Array) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ArgumentError(f"{name}: alpha {alpha} must be above 0")
    labelled, numbered = (getattr(array, "shape", ()) for array in (labels, index))
    if images.ndim != 4 or not images.shape[:1] == labelled[:1] == numbered[:1]:
        raise ShapeError(
            f"{name}: images {images.shape} must be (N, H, W, C), with labels {labelled} and index {numbered} of as "
            "many examples"
        )


def _partners(word: Array) -> Array:
    """For each example its successor in the batch's random circle: itself only if it is alone."""
    order = draws.ranks(word)
    xp = array_module(order)
    partner = xp.empty_like(order)
    partner[order] = xp.roll(order, -1)
    return partner


def _mixed(name: str, labels: Array, partner: Array, share: Array, classes: int) -> Array:
    q = _probabilities(name, labels, classes)
    return share[:, None] * q + (1 - share[:, None]) * q[partner]


def _probabilities(name: str, labels: Array, classes: int) -> Array:
    """Labels as rows of probabilities (N, classes) in float32; rows of probabilities as they are."""
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if classes < 1:
        raise ArgumentError(f"{name}: classes={classes} must be at least 1")
    if labels.dtype.kind == "f":
        if labels.ndim != 2 or labels.shape[1] != classes:
            raise ShapeError(f"{name}: probabilities {labels.shape} must be (N, {classes}), as classes={classes} says")
        return labels.astype(np.float32)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DTypeError(f"{name}: labels {labels.shape} of {labels.dtype} are no class numbers (N,)")
    xp = array_module(labels)
    can_look = xp is np and len(labels) > 0  # a GPU would have to be waited for: there what is no class becomes NaN
    if can_look and not 0 <= labels.min() <= labels.max() < classes:
        raise RangeError(f"{name}: labels run from {labels.min()} to {labels.max()}, but classes={classes}")
    q = (xp.arange(classes) == labels[:, None]).astype(np.float32)
    return q if xp is np else xp.where(((labels >= 0) & (labels < classes))[:, None], q, xp.float32("nan"))
