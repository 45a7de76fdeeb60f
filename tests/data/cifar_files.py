"""Miniature CIFAR files in the standard layouts, pickles written by hand as Python 2 wrote the real ones."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable, Mapping, Sequence
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


Labels = Sequence[int] | Mapping[str, Sequence[int]]  # class numbers, or several kinds of them by name


def pickled(data: bytes, labels: Labels) -> bytes:
    """A whole batch file around the pickle of its data."""
    items = string(b"batch_label") + b"q\x01" + string(b"a miniature batch") + b"q\x02"
    for kind, numbers in by_kind(labels).items():
        items += string(kind.encode()) + b"](" + b"".join(map(integer, numbers)) + b"e"
    items += string(b"data") + b"q\x05" + data
    items += string(b"filenames") + b"q\x0b]q\x0c(" + b"".join(string(b"cat_%d.png" % i) for i in range(3)) + b"e"
    return b"\x80\x02}(" + items + b"u."


def by_kind(labels: Labels) -> Mapping[str, Sequence[int]]:
    return labels if isinstance(labels, Mapping) else {"labels": labels}


def planes(images: np.ndarray) -> np.ndarray:
    """Images (N, 32, 32, 3) as rows: all reds, then all greens, then all blues."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def batch(images: np.ndarray, labels: Labels) -> bytes:
    """The python form's file of images (N, 32, 32, 3) and their labels."""
    rows = planes(images)
    return pickled(array(rows.shape, rows.tobytes()), labels)


def records(images: np.ndarray, labels: Labels) -> bytes:
    """The binary form's file of images (N, 32, 32, 3) and their labels."""
    return np.column_stack([*by_kind(labels).values(), planes(images)]).astype(np.uint8).tobytes()


FORMS = {  # folder, archive, files to train on, files to test with, what writes one
    "CIFAR-10 python": (FOLDER, "cifar-10-python.tar.gz", TRAIN_FILES, ["test_batch"], batch),
    "CIFAR-10 binary": (
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz", [f"{name}.bin" for name in TRAIN_FILES], ["test_batch.bin"],
        records,
    ),
    "CIFAR-100 python": ("cifar-100-python", "cifar-100-python.tar.gz", ["train"], ["test"], batch),
    "CIFAR-100 binary": ("cifar-100-binary", "cifar-100-binary.tar.gz", ["train.bin"], ["test.bin"], records),
}  # fmt: skip


def drawn(form: str, rng: np.random.Generator, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Random pixels; labels go round."""
    images, number = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count)
    if form.startswith("CIFAR-10 "):
        return images, {"labels": number % 10}
    return images, {"coarse_labels": number * 7 % 20, "fine_labels": number * 3 % 100}


def contents(form: str, images: np.ndarray, labels: Mapping[str, np.ndarray], train: int) -> dict[str, bytes]:
    """The files of a form by their names, the first `train` images spread over those to train on."""
    _, _, train_files, test_files, write = FORMS[form]
    edges = [train // len(train_files) * i for i in range(len(train_files))] + [train, len(images)]
    parts = zip(train_files + test_files, edges, edges[1:], strict=False)
    return {
        name: write(images[start:end], {kind: numbers[start:end].tolist() for kind, numbers in labels.items()})
        for name, start, end in parts
    }


def put(form: str, root: Path, files: Mapping[str, bytes], packed: bool = False) -> Path:
    """Write the files into their folder, or into their archive, under `root`."""
    folder, archive = FORMS[form][:2]
    if packed:
        return tar(root / archive, [(f"{folder}/{name}", content) for name, content in files.items()])
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / folder / name).write_bytes(content)
    return root / folder


def tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """A .tar.gz of these members."""
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT, compresslevel=1) as file:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if isinstance(member, str):
                info.size = len(content)
            file.addfile(info, io.BytesIO(content) if content else None)
    return path


def write(root: Path, rng: np.random.Generator, train: int = 40, test: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Write random pixels into root/cifar-10-batches-py: `train` images over five files, then `test`; return them all.

    Labels go round from 0 to 9.
    """
    images, labels = drawn("CIFAR-10 python", rng, train + test)
    put("CIFAR-10 python", root, contents("CIFAR-10 python", images, labels, train))
    return images, labels["labels"]
