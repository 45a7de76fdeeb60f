"""Batches of CIFAR as Python pickled them, read without trust in what they ask for."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np


class _Described:
    """An array or element type as the file describes it: NumPy makes nothing of it until it is known to be harmless."""

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BatchUnpickler(pickle._Unpickler):
    """Admits what a batch holds, and nothing that could run code or ask for more memory than the file has.

    The Python unpickler, not the C one, which allocates whatever table size five bytes of a damaged file ask for.
    """

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: RUF012
    ADMITTED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return _Described


def read_batch(content: bytes, kinds: Iterable[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows (N, 3072) of uint8 and the labels `kinds` of a batch file; what is wrong with it can raise any exception."""
    batch = _BatchUnpickler(io.BytesIO(content), encoding="latin1").load()  # strings of Python 2
    _, shape, dtype, by_columns, raw = batch["data"].state
    if dtype.given[0] != "u1" or len(shape) != 2 or shape[1] != 3072:
        raise ValueError("its data are not uint8 rows of 3072 values")
    pixels = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, np.uint8)
    labels = {}
    for kind in kinds:
        if not isinstance(batch[kind], list) or not batch[kind] or any(type(label) is not int for label in batch[kind]):
            raise ValueError(f"its {kind} are no list of numbers")
        labels[kind] = np.array(batch[kind], np.int64)
    return pixels.reshape(shape, order="F" if by_columns else "C"), labels
