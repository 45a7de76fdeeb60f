"""Images in memory with their labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..device import device_of, resolve, to_device
from ..errors import ArgumentError, DataError
from . import identity
from .transforms import Transform, apply, as_index


class ImageDataset:
    """Images (N, H, W, C) and class numbers (N,), with the transform that batches of them go through.

    `images` and `labels` are the arrays, `classes` the names. `name` says which data these are, wherever results on
    them are shown; None looks whether they are a known copy of a published data set. Raises DataError for labels
    outside the classes.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str],
        transform: Transform | None = None,
        *,
        name: str | None = None,
    ) -> None:
        images, labels = np.asarray(images), np.asarray(labels)
        if labels.dtype.kind not in "iu" and labels.size:
            raise DataError(f"labels must be class numbers of an integer type, not {labels.dtype}")
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise DataError(
                f"images must be (N, H, W, C) with N labels, but are {images.shape} with labels {labels.shape}"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise DataError(f"labels run from {labels.min()} to {labels.max()}, but there are {len(classes)} classes")
        self.images, self.labels = images, labels.astype(np.int64)
        self.classes, self.transform = list(classes), transform
        self.name = name or identity.name_of(self.images, self.labels) or "unnamed images"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images and labels as they were when first asked for: equal for equal pixels, whatever the file."""
        return identity.fingerprint(to_device(self.images, "cpu"), to_device(self.labels, "cpu"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """One image (H, W, C), transformed as in epoch 0, and its class number."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        images, labels = self.batch(np.array([index % len(self)]), epoch=0)
        return images[0], int(labels[0])

    def batch(self, index: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels at `index` (N,), transformed as in `epoch`: what the loader asks for."""
        index = to_device(as_index(index), self.device)
        transforms = [] if self.transform is None else [self.transform]
        return apply(transforms, self.images, index, index, epoch), self.labels[index]

    @property
    def device(self) -> str:
        """Where images and labels are: "cpu" or "cuda:0"."""
        return device_of(self.images)

    def to(self, device: str) -> ImageDataset:
        """This data set with images and labels on a device, in whose memory they must fit; itself if they are there.

        Batches are then made there, with the draws that the CPU would make. Transforms must take the device's arrays:
        RandomCrop, RandomHorizontalFlip and Normalize do, in one kernel where they follow each other in this order.
        """
        if resolve(device) == self.device:
            return self
        moved = copy.copy(self)
        moved.images, moved.labels = to_device(self.images, device), to_device(self.labels, device)
        return moved

    def take(self, count: int | None) -> ImageDataset:
        """The first `count` examples as a data set of the same name; all of them for None. ArgumentError below 1."""
        if count is not None and count < 1:
            raise ArgumentError(f"take: {count} examples; at least 1 is needed")
        part = copy.copy(self)
        part.__dict__.pop("fingerprint", None)
        part.images, part.labels = self.images[:count], self.labels[:count]
        return part
