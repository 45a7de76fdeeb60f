"""Pictures of the user's in a folder for each class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, DataError
from .dataset import ImageDataset
from .transforms import Transform

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Pillow goes by a file's first bytes, whatever its name ends in, and would run another program on PostScript.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # of eight bits; Pillow clips others at 255


class ImageFolder(ImageDataset):
    """The pictures root/class/*.png, .jpg and so on, in any depth under a class, in memory: uint8 (N, H, W, 3).

    Classes are the names of the folders, sorted, and pictures are sorted by path, as in torchvision; what begins with a
    dot is passed over. All pictures have one size, or `size` (rows and columns, or one number for both) is what each is
    scaled to, cut at the longer side. Raises DataError for what is missing, or broken, or of another size;
    ArgumentError where Pillow is not installed.
    """

    def __init__(
        self, root: str | Path, transform: Transform | None = None, *, size: int | tuple[int, int] | None = None
    ) -> None:
        if isinstance(size, int):
            size = (size, size)
        if size is not None and min(size) < 1:
            raise ArgumentError(f"ImageFolder: size {size} must be at least 1")
        root = Path(root)
        classes = sorted(entry.name for entry in _listed(root) if entry.is_dir())
        paths = [(path, label) for label, name in enumerate(classes) for path in _pictures(root / name)]
        if not paths:
            raise DataError(
                f"no pictures in {root.resolve()}: they stand in a folder for each class, as root/cat/1.png"
            )
        empty = [name for i, name in enumerate(classes) if all(label != i for _, label in paths)]
        if empty:
            raise DataError(f"{root} has no picture in {', '.join(empty)}")
        images = _load([path for path, _ in paths], size)
        labels = np.array([label for _, label in paths])
        super().__init__(images, labels, classes, transform, name=f"pictures in {root.resolve().name}")


def _listed(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from error


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and below it: folder by folder, and by name in each, as torchvision has them."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [(place, name) for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")]
    return [Path(place, name) for place, name in sorted(found)]


def _load(paths: list[Path], size: tuple[int, int] | None) -> np.ndarray:
    """All pictures as RGB in one array (N, H, W, 3)."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ArgumentError("pictures need Pillow: pip install 'minires[examples]'") from None

    def picture(path: Path, *, decode: bool) -> Any:
        """The picture, or with `decode` False what its header says."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                if not path.is_file():
                    raise DataError(f"{path} is no file")  # but a pipe, say, which would be waited for without end
                with Image.open(path, formats=FORMATS) as image:
                    if image.mode not in MODES:
                        raise DataError(f"{path} has values of the kind {image.mode}, not of eight bits")
                    return image.convert("RGB") if decode else image
        except DataError:
            raise
        except Exception as error:  # a damaged picture can raise anything
            raise DataError(f"{path} is broken or no picture: {error}") from error

    if size is None:
        first = picture(paths[0], decode=False).size
        for path in paths:
            if (other := picture(path, decode=False).size) != first:
                raise DataError(
                    f"{paths[0]} has {first[0]}x{first[1]} pixels, but {path} has {other[0]}x{other[1]}"
                    ": name one `size` to scale all pictures to"
                )
        images = np.empty((len(paths), first[1], first[0], 3), np.uint8)
    else:
        images = np.empty((len(paths), *size, 3), np.uint8)
    for place, path in zip(images, paths, strict=True):
        image = picture(path, decode=True)
        if size is not None:
            image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
        place[:] = np.asarray(image)
    return images
