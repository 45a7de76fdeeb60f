"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017) from their IDX files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import DataError
from . import archive, identity
from .dataset import ImageDataset
from .transforms import Transform

LARGEST = 16 + 60_000 * 28 * 28  # bytes in the largest of the files, unpacked


class MNIST(ImageDataset):
    """70,000 handwritten digits of 28x28, 60,000 to train on and 10,000 to test: uint8 (N, 28, 28, 1).

    The files train-images-idx3-ubyte and so on, plain or .gz, lie in `root`, or in the folder MNIST/raw under it, where
    torchvision keeps them. `transform(images, index, epoch)` maps whole batches, see data/transforms.py. `download`
    fetches what is not there. `verify` True admits the published files only, False any of their format; None any,
    unless some of them prove that another is damaged. Raises DataError for files that are missing or damaged.
    """

    title = "MNIST"
    class_names = tuple("0123456789")

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Transform | None = None,
        *,
        download: bool = False,
        verify: bool | None = None,
    ) -> None:
        folder = self._folder(Path(root), download)
        (images_file, labels_file), beside = NAMES[train], NAMES[not train]
        files = [_file(folder, images_file), _file(folder, labels_file)]
        others = (_file(folder, name) for name in beside if _path(folder, name).is_file())
        published = identity.are_published(self.title, files, lambda: others, verify)
        images, labels = _array(files[0], 3)[..., None], _array(files[1], 1)
        if images.shape[1:] != (28, 28, 1):
            raise DataError(f"{files[0].place} is damaged: its images are {images.shape[1:3]}, not (28, 28)")
        if len(images) != len(labels):
            raise DataError(
                f"{files[1].place} is damaged: it has {len(labels)} labels, but there are {len(images)} images"
            )
        if len(labels) == 0 or labels.max() > 9:
            raise DataError(f"{files[1].place} is damaged: its labels are not from 0 to 9")
        name = self.title if published else identity.name_of(images, labels)
        name = name or identity.unrecognised(self.title, labels, 10, train)
        super().__init__(images, labels, self.class_names, transform, name=name)

    @classmethod
    def _folder(cls, root: Path, download: bool = False) -> Path:
        names = NAMES[True] + NAMES[False]
        for folder in (root / cls.__name__ / "raw", root):
            missing = [name for name in names if not _path(folder, name).is_file()]
            if not missing:
                return folder
            if len(missing) < len(names) and not download:
                raise DataError(f"{cls.title} in {folder} is incomplete: {', '.join(missing)} missing")
        short_name = cls.title.lower()
        if download:
            from .download import fetch  # here, since `python -m` runs that module, too

            return fetch(short_name, root)
        raise DataError(
            f"no {cls.title} in {root.resolve()}: put {', '.join(names)}, plain or .gz, there, "
            f"or run python -m minires.data.download {short_name} --root {root}"
        )


class FashionMNIST(MNIST):
    """70,000 pictures of clothes, in MNIST's format; torchvision's folder is FashionMNIST/raw."""

    title = "Fashion-MNIST"
    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


NAMES = {
    train: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    for train, part in ((True, "train"), (False, "t10k"))
}


def _path(folder: Path, name: str) -> Path:
    """The file `name`: packed, since that has a checksum, else plain."""
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() else folder / name


def _file(folder: Path, name: str) -> identity.File:
    path = _path(folder, name)
    return identity.File(name, str(path), archive.read_file(path, LARGEST))


def _array(file: identity.File, axes: int) -> np.ndarray:
    """The uint8 array in an IDX file: two zeros, 8 for uint8, the number of axes, their sizes in four bytes each."""
    start = 4 + 4 * axes
    if len(file.content) < start or file.content[:4] != bytes((0, 0, 8, axes)):
        raise DataError(f"{file.place} is damaged or another file: no IDX header of uint8 in {axes} axes")
    shape = [int.from_bytes(file.content[i : i + 4]) for i in range(4, start, 4)]
    values = np.frombuffer(file.content, np.uint8, offset=start)
    if len(values) != math.prod(shape):
        raise DataError(f"{file.place} is damaged: it holds {len(values):,} values for an array of {shape}")
    return values.reshape(shape)
