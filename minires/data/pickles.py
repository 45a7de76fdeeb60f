"""Batches of CIFAR as Python pickled them, read without trust in what they ask for."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np

BYTES_PER_STEP = 500  # of unpickling, at least; the real files have 770 and more, and no step takes as much memory


class _Described:
    """An array or element type as the file describes it: NumPy makes nothing of it until it is known to be harmless."""

    def __init__(self, kind: Any = None, *_: Any) -> None:
        self.kind, self.state = kind, ()  # and not the rest, which a file may hand to many

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Steps(dict[int, Any]):
    """The unpickler's methods by their codes, of which a file may call as many as its size allows."""

    def __init__(self, size: int) -> None:
        methods = pickle._Unpickler.dispatch.items()
        super().__init__((code, method) for code, method in methods if code != pickle.BYTEARRAY8[0])
        self.left = 1000 + size // BYTES_PER_STEP

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError("it takes more steps to read than a file of its size")
        return super().__getitem__(code)


class _BatchUnpickler(pickle._Unpickler):
    """Admits what a batch holds, and nothing that could run code or ask for more memory than the file has.

    The Python unpickler, not the C one, which allocates whatever table size five bytes of a damaged file ask for. Its
    steps are counted, since a step of one byte makes a list of 56 bytes, or a set of 216.
    """

    ADMITTED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")  # strings of Python 2
        self.dispatch = _Steps(len(content))  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:99]}, which no CIFAR file needs")
        return _Described


def read_batch(content: bytes, kinds: Iterable[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows (N, 3072) of uint8 and the labels `kinds` of a batch file; what is wrong with it can raise any exception."""
    batch = _BatchUnpickler(content).load()
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
