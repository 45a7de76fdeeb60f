"""CIFAR-10 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) from its python files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import ImageDataset
from .transforms import Transform

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = [f"data_batch_{i}" for i in range(1, 6)]
TEST_FILES = ["test_batch"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LARGEST_FILE = 64 << 20  # the real ones have 31 MB


class CIFAR10(ImageDataset):
    """60,000 colour images of 32x32 in 10 classes, 50,000 to train on and 10,000 to test: uint8 (N, 32, 32, 3).

    `root` is the folder that holds cifar-10-batches-py, or that folder itself. `transform(images, index, epoch)` maps
    whole batches, see data/transforms.py. Raises DataError for files that are
    missing or damaged.
    """

    def __init__(self, root: str | Path, train: bool = True, transform: Transform | None = None) -> None:
        folder = find(root)
        batches = [_read(folder / name) for name in (TRAIN_FILES if train else TEST_FILES)]
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        super().__init__(images, labels, CLASSES, transform)


def find(root: str | Path) -> Path:
    """The folder with the batch files, at or under `root`. Raises DataError that lists what is missing."""
    root = Path(root)
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    missing = [name for name in TRAIN_FILES + TEST_FILES if not (folder / name).is_file()]
    if len(missing) == len(TRAIN_FILES + TEST_FILES):
        raise DataError(
            f"no CIFAR-10 in {root.resolve()}: unpack cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a, "
            f"from https://www.cs.toronto.edu/~kriz/cifar.html) there, so that {root / FOLDER / TEST_FILES[0]} exists"
        )
    if missing:
        raise DataError(f"CIFAR-10 in {folder} is incomplete: {', '.join(missing)} missing")
    return folder


class _Described:
    """An array or element type as the file describes it: NumPy makes nothing of it until it is known to be harmless."""

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BatchUnpickler(pickle._Unpickler):
    """Admits what a CIFAR-10 batch holds, and nothing that could run code or ask for more memory than the file has.

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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file needs")
        return _Described


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and labels (N,) of one batch file."""
    if path.stat().st_size > LARGEST_FILE:
        raise DataError(f"{path} is no CIFAR-10 batch: it has {path.stat().st_size:,} bytes")
    try:  # from memory: a file asked for more bytes than it has would first allocate them
        batch = _BatchUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()  # strings of Python 2
        _, shape, dtype, by_columns, raw = batch["data"].state
        pixels = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, np.uint8)
        data, labels = pixels.reshape(shape, order="F" if by_columns else "C"), batch["labels"]
        dtype_name = dtype.given[0]
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} is damaged or no CIFAR-10 batch: {type(error).__name__}: {error}") from error
    if dtype_name != "u1" or data.shape[1:] != (3072,):
        raise DataError(f"{path} is damaged: its data are not uint8 rows of 3072 values")
    if not isinstance(labels, list) or not labels or any(type(label) is not int for label in labels):
        raise DataError(f"{path} is damaged: its labels are no list of numbers")
    if len(labels) != len(data):
        raise DataError(f"{path} is damaged: it has {len(data)} images, but {len(labels)} labels")
    if min(labels) < 0 or max(labels) > 9:
        raise DataError(f"{path} is damaged: it has labels from {min(labels)} to {max(labels)}, not 0 to 9")
    images = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels)
