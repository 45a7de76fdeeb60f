"""Make digits.npz from the copy of UCI's digits inside scikit-learn: `python make_digits.py OUT.npz`.

The test split is 36 images of each of the 10 classes, the first in an order drawn once with seed 0.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits


def main(path: str) -> None:
    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., None]  # (1797, 8, 8, 1), grey values 0 to 16
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    test = np.zeros(len(labels), dtype=bool)
    for c in range(10):
        test[order[labels[order] == c][:36]] = True
    np.savez_compressed(path, images=images, labels=labels, test=test)


if __name__ == "__main__":
    main(sys.argv[1])
