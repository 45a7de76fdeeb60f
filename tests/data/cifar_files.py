"""A miniature CIFAR-10 folder in the standard layout, its pickles written by hand as Python 2 wrote the real ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = [f"data_batch_{i}" for i in range(1, 6)]
NAMES = TRAIN_FILES + ["test_batch"]


def string(text: bytes) -> bytes:
    """A string of Python 2: SHORT_BINSTRING, or BINSTRING from 256 bytes on."""
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def integer(value: int) -> bytes:
    """BININT1, BININT2 or BININT, whichever is shortest."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"M" + struct.pack("<H", value) if 0 <= value < 65536 else b"J" + struct.pack("<i", value)


def array(shape: Sequence[int], raw: bytes, dtype: bytes = b"u1") -> bytes:
    """A NumPy array, as `cPickle.dumps(array, 2)` has it."""
    start = b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07" + integer(0) + b"\x85"
    start += string(b"b") + b"\x87Rq\x08(" + integer(1) + b"(" + b"".join(map(integer, shape)) + b"t"
    described = b"cnumpy\ndtype\nq\x09" + string(dtype) + integer(0) + integer(1) + b"\x87Rq\x0a("
    described += integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    return start + described + b"\x89" + string(raw) + b"tb"


def pickled(data: bytes, labels: Sequence[int]) -> bytes:
    """A whole batch file around the pickle of its data."""
    items = string(b"batch_label") + b"q\x01" + string(b"a miniature batch") + b"q\x02"
    items += string(b"labels") + b"q\x03]q\x04(" + b"".join(map(integer, labels)) + b"e"
    items += string(b"data") + b"q\x05" + data
    items += string(b"filenames") + b"q\x0b]q\x0c(" + b"".join(string(b"cat_%d.png" % i) for i in range(3)) + b"e"
    return b"\x80\x02}(" + items + b"u."


def batch(images: np.ndarray, labels: Sequence[int]) -> bytes:
    """The batch file of images (N, 32, 32, 3) and their labels."""
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    return pickled(array(rows.shape, rows.tobytes()), labels)


def write(root: Path, rng: np.random.Generator, train: int = 40, test: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Write random pixels into root/cifar-10-batches-py: `train` images over five files, then `test`; return them all.

    Labels go round from 0 to 9.
    """
    images = rng.integers(0, 256, (train + test, 32, 32, 3), np.uint8)
    labels = np.arange(train + test) % 10
    folder = root / FOLDER
    folder.mkdir(parents=True)
    edges = [train // 5 * i for i in range(5)] + [train, train + test]
    for name, start, end in zip(NAMES, edges, edges[1:], strict=False):
        (folder / name).write_bytes(batch(images[start:end], labels[start:end].tolist()))
    return images, labels
