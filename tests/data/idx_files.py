"""Miniature MNIST files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def idx(shape: Sequence[int], raw: bytes, kind: int = 8) -> bytes:
    """An IDX file: two zeros, the element type (8 is uint8), the number of axes, their sizes, the values."""
    return bytes((0, 0, kind, len(shape))) + b"".join(size.to_bytes(4) for size in shape) + raw


def array(values: np.ndarray) -> bytes:
    """The IDX file of an array, as uint8."""
    return idx(values.shape, values.astype(np.uint8).tobytes())


def write(
    folder: Path, rng: np.random.Generator, train: int = 20, test: int = 10, packed: bool = False
) -> dict[str, bytes]:
    """Write random images and labels; return the four files' contents, unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for part, count in (("train", train), ("t10k", test)):
        files[f"{part}-images-idx3-ubyte"] = array(rng.integers(0, 256, (count, 28, 28), np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = array(rng.integers(0, 10, count))
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content, 1) if packed else content)
    return files
