"""Image data sets of the user's in NumPy's .npz files."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ArgumentError, DataError
from . import identity
from .dataset import ImageDataset
from .transforms import Transform

if TYPE_CHECKING:
    import zipfile

LARGEST_RATIO = 100  # of the arrays' size to the file's; noisy images come to 1.2, drawings to 20
STORED, DEFLATED = 0, 8  # as zip numbers its ways of packing
MOST_ENTRIES, MOST_CLASSES = 1000, 100_000


class NpzDataset(ImageDataset):
    """Images, labels and class names from the arrays `images`, `labels` and, if there, `classes` of a .npz file.

    With `split` "train" or another word the names are `train_images`, `train_labels` and still `classes`; class names
    that are given stand in for the file's, and numbers for names that are nowhere. Images are
    uint8 or float, (N, H, W, C), or (N, H, W) of one channel; `layout` "NCHW" says that a file's are (N, C, H, W).
    Written by `np.savez(path, images=..., labels=..., classes=[...])`, packed or not. Nothing in the file can run code
    or take more memory than a hundred times its size. Raises DataError for what is missing or damaged.
    """

    def __init__(
        self,
        path: str | Path,
        split: str = "",
        transform: Transform | None = None,
        *,
        layout: str = "NHWC",
        classes: Sequence[str] | None = None,
    ) -> None:
        if layout not in ("NHWC", "NCHW"):
            raise ArgumentError(f"layout {layout!r}: choose NHWC or NCHW")
        prefix = f"{split}_" if split else ""
        keys = [f"{prefix}images", f"{prefix}labels"]
        arrays = load_npz(path, keys, optional=["classes"])
        images, labels = arrays[keys[0]], arrays[keys[1]]
        if images.ndim == 3:
            images = images[..., None]
        elif images.ndim == 4 and layout == "NCHW":
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        if images.dtype.kind not in "uf" or (images.dtype.kind == "u" and images.dtype != np.uint8):
            raise DataError(f"{path}: {keys[0]} are {images.dtype}, not uint8 or float")
        if images.ndim != 4 or images.shape[3] not in (1, 2, 3, 4):
            raise DataError(
                f"{path}: {keys[0]} {images.shape} are not (N, H, W, C) with 1 to 4 channels"
                "; if they are (N, C, H, W), say layout='NCHW'"
            )
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise DataError(f"{path}: {keys[1]} are {labels.dtype} {labels.shape}, not N class numbers")
        if classes is None:
            numbers = range(min(int(labels.max(initial=0)) + 1, MOST_CLASSES))
            classes = [str(name) for name in arrays.get("classes", np.array(numbers)).ravel()]
        name = identity.name_of(images, labels) or f"images in {Path(path).name}"
        super().__init__(images, labels, classes, transform, name=name)


def load_npz(
    path: str | Path,
    keys: list[str] | None,
    optional: list[str] | None = None,
    *,
    most_entries: int = MOST_ENTRIES,
    largest_ratio: int = LARGEST_RATIO,
) -> dict[str, np.ndarray]:
    """The arrays `keys` of a .npz file, or all, and those of `optional` that are there, of numbers or text.

    Sizes are checked against the file's before memory is taken, and nothing is ever unpickled. Raises DataError.
    """
    import zipfile  # late, as this would make every import of minires slower

    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            if len(names) > most_entries or len(set(names)) < len(names):
                raise DataError(f"{path} is damaged: it has {len(names)} entries, some of one name")
            if keys is None:
                keys = [name.removesuffix(".npy") for name in names]
            missing = [key for key in keys if f"{key}.npy" not in names]
            if missing:
                there = ", ".join(name.removesuffix(".npy") for name in names[:10])
                raise DataError(f"{path} has no array {' and no '.join(missing)}; it has {there or 'none'}")
            wanted = keys + [key for key in optional or [] if f"{key}.npy" in names]
            # Against the file's size, not the packed sizes that it claims, which may be lies or count bytes twice.
            unpacked, size = sum(file.getinfo(f"{key}.npy").file_size for key in wanted), path.stat().st_size
            if unpacked > largest_ratio * size:
                raise DataError(
                    f"{path} is refused: its {size:,} bytes would unpack to {unpacked:,}, more than {largest_ratio} "
                    "times as many; write it by np.savez, which does not pack"
                )
            return {key: _array(file, f"{key}.npy", path) for key in wanted}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"no file {path}") from None
    except Exception as error:  # a damaged zip or header can raise anything
        raise DataError(f"{path} is damaged or no .npz file: {type(error).__name__}: {error}") from error


def _array(file: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """One array: its header says what is to come, and only as much is read."""
    info = file.getinfo(name)
    if info.compress_type not in (STORED, DEFLATED) or info.flag_bits & 1:
        raise DataError(f"{path}: {name} is packed in a way that NumPy does not write")
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_2_0(member)
        else:
            raise DataError(f"{path}: {name} has format {version}, which no image data set needs")
        if dtype.kind not in "biufU":
            raise DataError(f"{path}: {name} holds {dtype}, not numbers or text")
        promised, there = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if promised != there:
            raise DataError(f"{path} is damaged: {name} has {there:,} bytes, which are no {shape} of {dtype}")
        values = np.frombuffer(member.read(there), dtype)  # and no more, whatever else unpacks
    if dtype.kind == "U" and (values.view(dtype.byteorder + "u4") > sys.maxunicode).any():
        raise DataError(f"{path} is damaged: {name} holds what is no text")
    return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape, order="F" if by_columns else "C")
