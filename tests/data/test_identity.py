"""Which data these are: published files are proved by digest, damage is found, and copies get their own names."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data import CIFAR10, CIFAR100, Digits, FashionMNIST, ImageDataset, identity
from minires.errors import DataError
from tests.data import cifar_files, idx_files

TRAIN, TEST = 10, 4


@dataclass
class Kind:
    """One form of one data set: how to write it, how to load its test images, and the file to damage."""

    title: str
    write: Callable[[Path, np.random.Generator], dict[str, bytes]]  # returns the contents by their published names
    load: Callable[..., ImageDataset]
    damaged: str


def cifar(form: str, packed: bool, load: Callable[..., ImageDataset]) -> Kind:
    folder, archive, _, (test_file, *_), _ = cifar_files.FORMS[form]

    def write(root: Path, rng: np.random.Generator) -> dict[str, bytes]:
        files = cifar_files.contents(form, *cifar_files.drawn(form, rng, TRAIN + TEST), TRAIN)
        cifar_files.put(form, root, files, packed)
        return {f"{folder}/{name}": content for name, content in files.items()}

    damaged = archive if packed else f"{folder}/{test_file}"
    return Kind(form.split()[0], write, load, damaged)


def fashion(packed: bool, damaged: str) -> Kind:
    def write(root: Path, rng: np.random.Generator) -> dict[str, bytes]:
        return idx_files.write(root, rng, TRAIN, TEST, packed)

    return Kind("Fashion-MNIST", write, FashionMNIST, damaged + (".gz" if packed else ""))


KINDS = {
    "CIFAR-10 python": cifar("CIFAR-10 python", False, CIFAR10),
    "CIFAR-10 binary": cifar("CIFAR-10 binary", False, CIFAR10),
    "CIFAR-100 python": cifar("CIFAR-100 python", False, CIFAR100),
    "CIFAR-100 binary": cifar("CIFAR-100 binary", False, CIFAR100),
    "CIFAR-10 python archive": cifar("CIFAR-10 python", True, CIFAR10),
    "CIFAR-10 binary archive": cifar("CIFAR-10 binary", True, CIFAR10),
    "images": fashion(False, "t10k-images-idx3-ubyte"),
    "images packed": fashion(True, "t10k-images-idx3-ubyte"),
    "labels": fashion(False, "t10k-labels-idx1-ubyte"),
    "labels packed": fashion(True, "t10k-labels-idx1-ubyte"),
}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def published(request, tmp_path, rng, monkeypatch) -> tuple[Kind, Path]:
    """Miniature files whose digests stand in the table of published ones, as if they were the real ones."""
    kind: Kind = request.param
    digests = {name: md5(content) for name, content in kind.write(tmp_path, rng).items()}
    assert digests.keys() <= identity.PUBLISHED[kind.title].keys()
    monkeypatch.setitem(identity.PUBLISHED, kind.title, {**identity.PUBLISHED[kind.title], **digests})
    return kind, tmp_path


@pytest.mark.parametrize("verify", [None, True, False])
def test_published_files_get_the_name(published, verify):
    kind, root = published
    for train in (True, False):
        assert kind.load(root, train, verify=verify).name == kind.title


def without_meaning(content: bytes, damaged: bytes) -> bool:
    """Whether both unpack to the same: a .gz has a time stamp, a name and some padding."""
    try:
        return gzip.decompress(content) == gzip.decompress(damaged)
    except Exception:
        return False


def damages(content: bytes, rng: np.random.Generator) -> list[bytes]:
    """A hundred: seventy flipped bits anywhere, and thirty truncations."""
    flips: list[bytes] = []
    while len(flips) < 70:
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        if not without_meaning(content, damaged):
            flips.append(bytes(damaged))
    return flips + [content[:length] for length in rng.integers(0, len(content), 30)]


def attempts(kind: Kind, root: Path, rng: np.random.Generator, **options: Any) -> list[str]:
    """What was wrong after each damage; a load that succeeds fails the test."""
    path = root / kind.damaged
    messages = []
    for content in damages(path.read_bytes(), rng):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            kind.load(root, train=False, **options)
        messages.append(str(caught.value))
    return messages


@pytest.mark.parametrize("verify", [None, True])
def test_every_damage_is_found_and_the_file_named(published, rng, verify):
    """A hundred for each of ten kinds of file: 1,000, twice. The files beside the damaged one give it away, too."""
    kind, root = published
    messages = attempts(kind, root, rng, verify=verify)
    assert len(messages) == 100
    assert all(Path(kind.damaged).name in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("published", [kind for kind in KINDS.values() if kind.damaged.endswith(".gz")], indirect=True)
def test_a_flip_without_meaning_changes_nothing(published):
    """In the header of a .gz, which holds a time stamp and flags."""
    kind, root = published
    path = root / kind.damaged
    good, expected = path.read_bytes(), kind.load(root, train=False)
    read = 0
    for place in range(10):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                data_set = kind.load(root, train=False, verify=True)
            except DataError:
                continue
            read += 1
            assert data_set.fingerprint == expected.fingerprint
    assert read >= 48  # the stamp, and what the packer says of itself


def test_unknown_digests_are_unrecognised(published, rng):
    kind, root = published
    for name, content in kind.write(root, rng).items():  # other pixels: all files of the set are new
        assert md5(content) != identity.PUBLISHED[kind.title][name]
    data_set = kind.load(root, train=False)
    assert data_set.name == f"unrecognised {kind.title} files ({TEST} images)"
    with pytest.raises(DataError, match=rf"its MD5 is [0-9a-f]{{32}}, and {kind.title}'s is [0-9a-f]{{32}}$"):
        kind.load(root, train=False, verify=True)


def test_one_changed_file_can_be_read_on_purpose(tmp_path, rng, monkeypatch):
    kind = KINDS["CIFAR-10 binary"]
    digests = {name: md5(content) for name, content in kind.write(tmp_path, rng).items()}
    monkeypatch.setitem(identity.PUBLISHED, kind.title, {**identity.PUBLISHED[kind.title], **digests})
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1  # a pixel
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3\.bin is damaged .*verify=False"):
        CIFAR10(tmp_path)
    assert CIFAR10(tmp_path, verify=False).name == f"unrecognised CIFAR-10 files ({TRAIN} images)"
    assert CIFAR10(tmp_path, train=False).name == "CIFAR-10"  # whose own file is as published


def test_files_of_an_archive_vouch_for_each_other(tmp_path, rng, monkeypatch):
    """Whose checksums are right: somebody packed them anew."""
    kind, form = KINDS["CIFAR-10 binary archive"], "CIFAR-10 binary"
    files = kind.write(tmp_path, rng)
    monkeypatch.setitem(identity.PUBLISHED, kind.title, {name: md5(content) for name, content in files.items()})
    files = {Path(name).name: content for name, content in files.items()}
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1] + b"x"
    cifar_files.put(form, tmp_path, files, packed=True)
    with pytest.raises(DataError, match=r"data_batch_3\.bin in .*tar\.gz is damaged .*verify=False"):
        CIFAR10(tmp_path)


def test_files_of_the_right_number_are_called_so():
    labels = np.repeat(np.arange(10), 1000)
    assert identity.unrecognised("CIFAR-10", labels, 10, train=False) == "unrecognised CIFAR-10 files"
    assert identity.unrecognised("CIFAR-10", labels, 10, train=True) == "unrecognised CIFAR-10 files (10,000 images)"
    labels[0] = 1
    assert identity.unrecognised("CIFAR-10", labels, 10, train=False) == "unrecognised CIFAR-10 files (10,000 images)"


@pytest.fixture
def known(rng, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels whose fingerprint is a known one, once exactly and once within half a grey level."""
    images, labels = rng.integers(20, 236, (50, 8, 6, 3), np.uint8), rng.integers(0, 10, 50)
    digest = hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest()
    sums = tuple(images.sum((0, 1, 2)).tolist())
    table = [identity.Fingerprint("exact", digest, sums), identity.Fingerprint("near", digest, sums, 0.5)]
    monkeypatch.setattr(identity, "FINGERPRINTS", table)
    return images, labels


def test_a_copy_is_recognised_from_any_container(known, rng):
    images, labels = known
    for copy in (images, np.asfortranarray(images), images.copy()[::-1][::-1]):
        assert ImageDataset(copy, labels.astype(np.uint8), "0123456789").name == "exact"
    one = images.copy()
    one[3, 2, 1, 0] += 1
    assert identity.name_of(one, labels) == "near"
    decoded_otherwise = images + rng.integers(-3, 4, images.shape).astype(np.int8)
    assert identity.name_of(decoded_otherwise.astype(np.uint8), labels) == "near"


def test_what_is_not_the_copy_is_not_recognised(known):
    images, labels = known
    brighter = images + np.uint8(1)
    assert identity.name_of(brighter, labels) is None
    assert identity.name_of(np.repeat(images.mean(-1, keepdims=True), 3, -1).astype(np.uint8), labels) is None
    assert identity.name_of(images, labels[::-1]) is None
    assert identity.name_of(images[:-1], labels[:-1]) is None
    assert identity.name_of(images.astype(np.float32), labels) is None
    assert identity.name_of(images[..., :1], labels) is None
    assert identity.name_of(images[:0], labels[:0]) is None
    assert identity.name_of(images, labels + 1000) is None


def test_fingerprints_tell_any_change(rng):
    images, labels = rng.integers(0, 256, (20, 4, 3, 3), np.uint8), np.arange(20) % 3

    def fingerprint(x: np.ndarray, y: np.ndarray) -> str:
        return ImageDataset(x, y, "abc").fingerprint

    good = fingerprint(images, labels)
    assert fingerprint(np.asfortranarray(images), labels.astype(np.uint8)) == good
    changed = images.copy()
    changed[7, 1, 2, 0] ^= 1
    others = [
        fingerprint(changed, labels), fingerprint(images[::-1], labels), fingerprint(images, np.roll(labels, 1)),
        fingerprint(images.reshape(20, 3, 4, 3), labels), fingerprint(images.astype(np.float32), labels),
        fingerprint(images[:19], labels[:19]), fingerprint(images[:0], labels[:0]),
    ]  # fmt: skip
    assert len({good, *others}) == 8


def test_names_of_data_sets(rng):
    assert Digits().name == "digits"
    assert Digits().take(5).name == "digits"
    assert ImageDataset(np.zeros((2, 3, 3, 1)), np.zeros(2, int), "a").name == "unnamed images"
    assert ImageDataset(np.zeros((2, 3, 3, 1)), np.zeros(2, int), "a", name="mine").take(1).name == "mine"


@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_the_real_pictures_are_named(cifar10_root, train):
    assert CIFAR10(cifar10_root, train).name in ("CIFAR-10", "CIFAR-10 (JPEG q75)")


def test_the_copy_with_other_pixels(cifar10_root, rng):
    """Pixels some levels off, as from another JPEG decoder, are that copy; red for blue is not."""
    real = CIFAR10(cifar10_root, train=False)
    if real.name == "CIFAR-10":
        pytest.skip("these are the published files")
    with pytest.raises(DataError, match=r"test_batch.* is damaged or another file: its MD5 is"):
        CIFAR10(cifar10_root, train=False, verify=True)
    noise = rng.integers(-3, 4, real.images.shape, np.int8)
    other = np.clip(real.images + noise, 0, 255, dtype=np.int16, casting="unsafe").astype(np.uint8)
    assert ImageDataset(other, real.labels, real.classes).name == real.name
    assert ImageDataset(real.images[..., ::-1], real.labels, real.classes).name == "unnamed images"


def test_another_folder_of_the_same_files_is_the_same_data(tmp_path, rng):
    images, labels = cifar_files.write(tmp_path / "a", rng)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    binary = cifar_files.contents("CIFAR-10 binary", images, {"labels": labels}, 40)
    cifar_files.put("CIFAR-10 binary", tmp_path / "c", binary)
    assert len({CIFAR10(tmp_path / name).fingerprint for name in "abc"}) == 1
