"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from . import archive, identity
from .dataset import ImageDataset
from .pickles import read_batch
from .transforms import Transform

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""
_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""
CLASSES_100, COARSE_CLASSES = _FINE.split(), _COARSE.split()

# The class numbers of an image, by their names in the pickles and in the order of the binary records: how many classes.
LABELS = {"CIFAR-10": {"labels": 10}, "CIFAR-100": {"coarse_labels": 20, "fine_labels": 100}}
Labels = dict[str, np.ndarray]


@dataclass(frozen=True)
class Form:
    """One of the forms in which a data set is published: an archive, and the folder that it unpacks to."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    largest: int  # bytes in a file that is read, with room for a form that somebody else wrote
    parse: Callable[[bytes, Iterable[str]], tuple[np.ndarray, Labels]]  # rows (N, 3072) and labels, or any exception


class CIFAR10(ImageDataset):
    """60,000 colour images of 32x32 in 10 classes, 50,000 to train on and 10,000 to test: uint8 (N, 32, 32, 3).

    `root` is the folder that holds cifar-10-batches-bin, cifar-10-batches-py, cifar-10-binary.tar.gz or
    cifar-10-python.tar.gz, or one of these itself; the binary form is taken if there are both. Archives are read as
    they are. `transform(images, index, epoch)` maps whole batches, see data/transforms.py. `download` fetches what is
    not there. `verify` True admits the published files only, False any of their format; None any, unless some of them
    prove that another is damaged. Raises DataError for files that are missing or damaged.
    """

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Transform | None = None,
        *,
        download: bool = False,
        verify: bool | None = None,
    ) -> None:
        images, labels, name = _read("CIFAR-10", root, train, download, verify)
        super().__init__(images, labels["labels"], CLASSES, transform, name=name)


class CIFAR100(ImageDataset):
    """60,000 colour images of 32x32 in 100 classes, or with `coarse` in 20 groups of five: uint8 (N, 32, 32, 3).

    `root` is the folder that holds cifar-100-binary, cifar-100-python or one of their archives; all else is as in
    CIFAR10.
    """

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Transform | None = None,
        *,
        coarse: bool = False,
        download: bool = False,
        verify: bool | None = None,
    ) -> None:
        images, labels, name = _read("CIFAR-100", root, train, download, verify)
        chosen, classes = ("coarse_labels", COARSE_CLASSES) if coarse else ("fine_labels", CLASSES_100)
        super().__init__(images, labels[chosen], classes, transform, name=name)


def find(root: str | Path, data_set: str = "CIFAR-10", download: bool = False) -> tuple[Form, Path]:
    """The form in which `data_set` is at or under `root`, and its folder or archive, downloaded if need be and wanted.

    Raises DataError if there is none.
    """
    root, forms = Path(root), FORMS[data_set]
    if root.is_file():
        for form in forms:
            if root.name == form.archive:
                return form, root
        raise DataError(f"{root} is not named {' or '.join(f.archive for f in forms)}, as an archive of {data_set} is")
    incomplete = ""
    for form in forms:
        names = form.train + form.test
        for place in (root / form.folder, root):
            missing = [name for name in names if not (place / name).is_file()]
            if not missing:
                return form, place
            if len(missing) < len(names) and not incomplete:
                incomplete = f"{data_set} in {place} is incomplete: {', '.join(missing)} missing"
        if (root / form.archive).is_file():
            return form, root / form.archive
    short_name = data_set.lower().replace("-", "")
    if download:
        from .download import fetch  # here, since `python -m` runs that module, too

        fetch(short_name, root)
        return find(root, data_set)
    raise DataError(
        incomplete
        or f"no {data_set} in {root.resolve()}: put {forms[1].archive} or {forms[0].archive} there, or their folders, "
        f"or run python -m minires.data.download {short_name} --root {root}"
    )


def _read(
    data_set: str, root: str | Path, train: bool, download: bool, verify: bool | None
) -> tuple[np.ndarray, Labels, str]:
    """Images, labels by their names, and what the data are to be called."""
    form, place = find(root, data_set, download)
    names = form.train if train else form.test
    files = _files(form, place, names)
    beside = [name for name in form.train + form.test if name not in names] if place.is_dir() else []
    published = identity.are_published(
        data_set, files, lambda: (file for name in beside for file in _files(form, place, [name])), verify
    )
    kinds = LABELS[data_set]
    parts = [_parse(form, file, kinds) for file in files]
    images = np.concatenate([images for images, _ in parts])
    labels = {kind: np.concatenate([labels[kind] for _, labels in parts]) for kind in kinds}
    if published:
        return images, labels, data_set
    finest, classes = list(kinds.items())[-1]
    name = identity.name_of(images, labels[finest])
    return images, labels, name or identity.unrecognised(data_set, labels[finest], classes, train)


def _files(form: Form, place: Path, names: Iterable[str]) -> list[identity.File]:
    """The files `names` of a folder or an archive, with their contents."""
    published = {name: f"{form.folder}/{name}" for name in names}
    if place.is_dir():
        paths = {name: place / name for name in names}
        return [identity.File(published[n], str(p), archive.read_file(p, form.largest)) for n, p in paths.items()]
    contents = archive.read_members(place, published.values(), form.largest)
    return [identity.File(known, f"{name} in {place}", contents[known]) for name, known in published.items()]


def _parse(form: Form, file: identity.File, kinds: Mapping[str, int]) -> tuple[np.ndarray, Labels]:
    """Images (N, 32, 32, 3) and labels of one file."""
    try:
        rows, labels = form.parse(file.content, kinds)
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{file.place} is damaged or another file: {type(error).__name__}: {error}") from error
    for kind, classes in kinds.items():
        numbers = labels[kind]
        if len(numbers) != len(rows):
            raise DataError(f"{file.place} is damaged: it has {len(rows)} images, but {len(numbers)} {kind}")
        least, most = int(numbers.min()), int(numbers.max())
        if not 0 <= least <= most < classes:
            raise DataError(f"{file.place} is damaged: it has {kind} from {least} to {most}, not 0 to {classes - 1}")
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _records(content: bytes, kinds: Iterable[str]) -> tuple[np.ndarray, Labels]:
    """The binary form: for each image a byte for each label, then its red, green and blue values, row by row."""
    kinds = list(kinds)
    width = len(kinds) + 3072
    if not content or len(content) % width:
        raise ValueError(f"{len(content):,} bytes are no whole number of records of {width}")
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    return records[:, len(kinds) :], {kind: records[:, i].astype(np.int64) for i, kind in enumerate(kinds)}


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_BINARY = tuple(f"{name}.bin" for name in _BATCHES)
FORMS = {  # the first is preferred: nothing in it can ask for anything but pixels
    "CIFAR-10": (
        Form("cifar-10-batches-bin", "cifar-10-binary.tar.gz", _BINARY, ("test_batch.bin",), 32 << 20, _records),
        Form("cifar-10-batches-py", "cifar-10-python.tar.gz", _BATCHES, ("test_batch",), 64 << 20, read_batch),
    ),
    "CIFAR-100": (
        Form("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",), 160 << 20, _records),
        Form("cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",), 256 << 20, read_batch),
    ),
}
