"""1,797 real handwritten digits that come with minires."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import ImageDataset
from .transforms import Transform


class Digits(ImageDataset):
    """Digits of 8x8 grey values from 0 to 16 (UCI, CC BY 4.0; see assets/DIGITS.md): 1,437 to train on, 360 to test.

    Images are uint8 (N, 8, 8, 1). The split is fixed, with 36 test images of each class. `transform(images, index,
    epoch)` maps whole batches, see data/transforms.py.
    """

    def __init__(self, train: bool = True, transform: Transform | None = None) -> None:
        with np.load(Path(__file__).parent / "assets" / "digits.npz") as arrays:
            chosen = arrays["test"] != train
            images, labels = arrays["images"][chosen], arrays["labels"][chosen]
        super().__init__(images, labels, [str(d) for d in range(10)], transform, name="digits")
