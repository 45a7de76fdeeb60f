"""Batches of CIFAR as Python pickled them, read without trust in what they ask for."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..pickles import RestrictedUnpickler

BYTES_PER_STEP = 500  # of unpickling, at least; the real files have 770 and more, and no step takes as much memory


class _Described:
    """An array or element type as the file describes it: NumPy makes nothing of it until it is known to be harmless."""

    def __init__(self, kind: Any = None, *_: Any) -> None:
        self.kind, self.state = kind, ()  # and not the rest, which a file may hand to many

    def __setstate__(self, state: Any) -> None:
        self.state = state


ADMITTED = dict.fromkeys(
    [
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    ],
    _Described,
)


def read_batch(content: bytes, kinds: Iterable[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows (N, 3072) of uint8 and the labels `kinds` of a batch file; what is wrong with it can raise any exception."""
    steps = 1000 + len(content) // BYTES_PER_STEP
    file, reader = io.BytesIO(content), "no CIFAR file needs"
    batch = RestrictedUnpickler(file, ADMITTED, steps, "latin1", reader).load()
    _, shape, dtype, by_columns, raw = batch["data"].state
    if dtype.kind != "u1" or len(shape) != 2 or shape[1] != 3072:
        raise ValueError("its data are not uint8 rows of 3072 values")
    pixels = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, np.uint8)
    labels = {}
    for kind in kinds:
        if not isinstance(batch[kind], list) or not batch[kind] or any(type(label) is not int for label in batch[kind]):
            raise ValueError(f"its {kind} are no list of numbers")
        labels[kind] = np.array(batch[kind], np.int64)
    return pixels.reshape(shape, order="F" if by_columns else "C"), labels
