"""Which data these are: published files by their digests, other known copies by their labels and colours.

Results are worth as much as the name of the data they were got on. So a data set is called by the name of a published
one only if that is proved, and "unrecognised" otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import DataError

# MD5 of the files as their authors published them, unpacked. MD5 proves nothing against malice, but finds damage.
_BINARY = [
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
]
_PYTHON = [
    "c99cafc152244af753f735de768cd75f",
    "d4bba439e000b95fd0a9bffe97cbabec",
    "54ebc095f3ab1f0389bbae665268c751",
    "634d18415352ddfa80567beed471001a",
    "482c414d41f54cd18b22e5b47cb7c3cb",
]
PUBLISHED = {
    "CIFAR-10": {
        **{f"cifar-10-batches-bin/data_batch_{i}.bin": digest for i, digest in enumerate(_BINARY, 1)},
        "cifar-10-batches-bin/test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        **{f"cifar-10-batches-py/data_batch_{i}": digest for i, digest in enumerate(_PYTHON, 1)},
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "CIFAR-100": {
        "cifar-100-binary/train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
        "cifar-100-binary/test.bin": "4499cfba6c016c1be1438163640a0898",
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
    "Fashion-MNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
}
# Images of each class to train on and to test with; MNIST's classes differ in size.
PER_CLASS = {"CIFAR-10": (5000, 1000), "CIFAR-100": (500, 100), "Fashion-MNIST": (6000, 1000)}


class Fingerprint(NamedTuple):
    """What a copy of a data set is known by, whatever file it comes from.

    `labels` is the SHA-256 of the labels in their order, a byte each; `sums` are those of each channel over all pixels,
    and `within` is by how many grey levels their means may be off. JPEG decoders differ in the last bits of pixels, so
    that no digest of the pixels would hold on every machine; two of them differ in a mean by less than a tenth.
    """

    name: str
    labels: str
    sums: tuple[int, ...]
    within: float = 0.0


JPEG, SUBSET = "CIFAR-10 (JPEG q75)", "CIFAR-10 (lossless subset)"
FINGERPRINTS = [
    Fingerprint(
        JPEG,
        "88d48db89c37136f9b68009e1ee7557d2cc49435fe30da4a3b37e5c21523f257",
        (6413765015, 6294170581, 5829777341),
        within=0.25,
    ),
    Fingerprint(
        JPEG,
        "adb9c3371ef24ca357d7215e3c140a7e2c72d2962957df17d3b309ab397e02f0",
        (1290104439, 1266598065, 1176037503),
        within=0.25,
    ),
    Fingerprint(
        SUBSET,
        "37b1ad37ca53d1fbbfca3fd2f7c82ae2885036b56e63baa2f6cf35b15f14cdc8",
        (666573744, 654544747, 605391235),
    ),
    Fingerprint(
        SUBSET,
        "c5cc3963df7952a390249eaf62a93a87c0fd0f0f2c0a4172c3f19c0a634b6e68",
        (131743679, 129200201, 119732728),
    ),
    Fingerprint(
        "Fashion-MNIST",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        (3431114169,),
    ),
    Fingerprint(
        "Fashion-MNIST",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        (573469082,),
    ),
]


class File(NamedTuple):
    """A file of a data set: the name under which it was published, where it was read, and its content, unpacked."""

    name: str
    place: str
    content: bytes

    def digest(self) -> str:
        """The MD5 of the content."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


def are_published(
    data_set: str, files: Sequence[File], others: Callable[[], Iterable[File]], verify: bool | None
) -> bool:
    """Whether all `files` have the digests that were published for `data_set`.

    Where one has not, DataError names it: always if `verify` is True; if it is None, when another of the files, or of
    the `others` that lie beside them, has its digest, for then this one had it, too, once.
    """
    known = PUBLISHED[data_set]
    wrong = [(file, digest) for file in files if (digest := file.digest()) != known[file.name]]
    if not wrong:
        return True
    file, digest = wrong[0]
    message = f"{file.place} is damaged or another file: its MD5 is {digest}, and {data_set}'s is {known[file.name]}"
    if verify:
        raise DataError(message)
    if verify is None and (len(wrong) < len(files) or any(f.digest() == known[f.name] for f in others())):
        raise DataError(f"{message}, as other files beside it show; verify=False reads it all the same")
    return False


def name_of(images: np.ndarray, labels: np.ndarray) -> str | None:
    """The name of the known copy of a data set that images (N, H, W, C) and labels (N,) are, or None."""
    if images.dtype != np.uint8 or labels.size == 0 or not 0 <= labels.min() <= labels.max() < 256:
        return None
    digest = hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest()
    channels = images.shape[-1]
    for known in FINGERPRINTS:
        if known.labels == digest and len(known.sums) == channels:
            over_images = images.reshape(len(images), -1).sum(axis=0, dtype=np.int64)
            off = np.abs(over_images.reshape(-1, channels).sum(axis=0) - known.sums)
            if (off <= known.within * images[..., 0].size).all():
                return known.name
    return None


def unrecognised(data_set: str, labels: np.ndarray, classes: int, train: bool) -> str:
    """What to call files in a data set's format that are no known copy; how many images, if they are not as many."""
    per_class = PER_CLASS.get(data_set, (0, 0))[0 if train else 1]
    as_many = (np.bincount(labels, minlength=classes) == per_class).all()
    return f"unrecognised {data_set} files" + ("" if as_many else f" ({len(labels):,} images)")


def fingerprint(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 over element type, shape and values of images, then the labels as little-endian int64: exact pixels."""
    digest = hashlib.sha256(f"{images.dtype.str} {images.shape}\n".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()
