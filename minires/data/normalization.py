"""Mean and standard deviation of each channel: known ones of data sets, and those of a data set at hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .dataset import ImageDataset


class Preset(NamedTuple):
    """What `Normalize` takes: `Normalize(*NORMALIZATION["cifar10"])`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float | None = None


# Of the training images. The second of CIFAR-10 stands in many scripts, and in a widely read post, as its standard
# deviation, but is the mean of the deviations within each image: smaller, since images differ in brightness. Inputs are
# then 1.2 to 1.3 times as large. A net wants the numbers that it was trained with.
NORMALIZATION = {
    "cifar10": Preset((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar10_post": Preset((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Preset((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": Preset((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "fashion_mnist": Preset((0.2860,), (0.3530,)),
    "mnist": Preset((0.1307,), (0.3081,)),
    "digits": Preset((0.3049,), (0.3759,), 16.0),  # grey values from 0 to 16
}


class ChannelStatistics(NamedTuple):
    """Of each channel: the mean, the deviation of all pixels, and the mean of the deviations within each image.

    The last one with n - 1 in its denominator, as the scripts that it comes from compute it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_image_std: tuple[float, ...]


def channel_statistics(dataset: ImageDataset | np.ndarray, scale: float | None = None) -> ChannelStatistics:
    """The statistics of images (N, H, W, C) before any transform, divided by `scale`: None is 255 for uint8, else 1.

    All images have one size, so that the variance of all pixels is the mean of the images' variances plus the variance
    of their means. Raises DataError where there is no pixel.
    """
    images = dataset.images if isinstance(dataset, ImageDataset) else dataset
    if images.ndim != 4 or images.size == 0:
        raise DataError(f"channel_statistics: images (N, H, W, C) are needed, not {images.shape}")
    scale = scale or (255.0 if images.dtype == np.uint8 else 1.0)
    means, variances = [], []
    for start in range(0, len(images), 256):  # a block that fits the cache, in float64
        block = images[start : start + 256].astype(np.float64) / scale
        means.append(block.mean(axis=(1, 2)))
        variances.append(((block - means[-1][:, None, None]) ** 2).mean(axis=(1, 2)))
    mean, variance, pixels = np.concatenate(means), np.concatenate(variances), images.shape[1] * images.shape[2]
    std = np.sqrt(variance.mean(axis=0) + mean.var(axis=0))
    image_std = np.sqrt(variance * (pixels / max(1, pixels - 1))).mean(axis=0)
    return ChannelStatistics(*(tuple(values.tolist()) for values in (mean.mean(axis=0), std, image_std)))
