""".npz files of images: what NumPy writes is read, and hostile ones are refused before they cost anything."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minires.data import NpzDataset, identity
from minires.data.npz import load_npz
from minires.errors import ArgumentError, DataError


@pytest.fixture
def images(rng) -> np.ndarray:
    return rng.integers(0, 256, (6, 5, 4, 3), np.uint8)


LABELS = np.array([0, 2, 1, 1, 0, 2])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_labels_and_classes(tmp_path, images, save):
    save(tmp_path / "mine.npz", images=images, labels=LABELS, classes=["a", "bb", "고양이"])
    data_set = NpzDataset(tmp_path / "mine.npz")
    np.testing.assert_array_equal(data_set.images, images)
    assert data_set.images.flags.c_contiguous
    assert (data_set.labels.dtype, data_set.labels.tolist()) == (np.int64, LABELS.tolist())
    assert data_set.classes == ["a", "bb", "고양이"]
    assert data_set.name == "images in mine.npz"
    (tmp_path / "mine.npz").rename(tmp_path / "CIFAR-10")
    assert NpzDataset(tmp_path / "CIFAR-10").name == "images in CIFAR-10"  # a file's name proves nothing


def test_splits_and_numbers_for_names(tmp_path, images):
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=LABELS, test_images=images[:2], test_labels=[1, 0])
    train, test = (NpzDataset(str(tmp_path / "x.npz"), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 2)
    assert (train.classes, test.classes) == (["0", "1", "2"], ["0", "1"])
    assert NpzDataset(tmp_path / "x.npz", "test", classes="abc").classes == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"x\.npz has no array images and no labels; it has train_images, train_labels"):
        NpzDataset(tmp_path / "x.npz")


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_element_types_and_orders(tmp_path, images, dtype, order):
    values = np.asarray(images.astype(dtype), order=order)
    np.savez(tmp_path / "x.npz", images=values, labels=LABELS.astype(">i2"))
    data_set = NpzDataset(tmp_path / "x.npz")
    np.testing.assert_array_equal(data_set.images, images.astype(dtype))
    assert data_set.images.dtype.isnative
    assert data_set.labels.tolist() == LABELS.tolist()


def test_grey_images_and_channels_first(tmp_path, images):
    np.savez(tmp_path / "grey.npz", images=images[..., 0], labels=LABELS)
    np.testing.assert_array_equal(NpzDataset(tmp_path / "grey.npz").images, images[..., :1])
    np.savez(tmp_path / "first.npz", images=images.transpose(0, 3, 1, 2), labels=LABELS)
    data_set = NpzDataset(tmp_path / "first.npz", layout="NCHW")
    np.testing.assert_array_equal(data_set.images, images)
    assert data_set.images.flags.c_contiguous
    with pytest.raises(ArgumentError, match="layout 'CHWN'"):
        NpzDataset(tmp_path / "first.npz", layout="CHWN")


WRONG = {
    "signed pixels": ({"images": np.zeros((2, 3, 3, 1), np.int8)}, "images are int8, not uint8 or float"),
    "wide pixels": ({"images": np.zeros((2, 3, 3, 1), np.uint16)}, "images are uint16"),
    "channels first": ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, r"\(2, 3, 32, 32\) .* say layout='NCHW'"),
    "two axes": ({"images": np.zeros((2, 3), np.uint8)}, r"\(2, 3\) are not \(N, H, W, C\)"),
    "labels of floats": ({"labels": np.zeros(2)}, "labels are float64"),
    "labels in rows": ({"labels": np.zeros((2, 1), int)}, r"labels are int64 \(2, 1\), not N class numbers"),
    "other number": ({"labels": np.zeros(3, int)}, "N labels"),
    "label below 0": ({"labels": np.array([0, -1])}, "labels run from -1"),
    "label of 2^62": ({"labels": np.array([0, 2**62])}, "there are 100000 classes"),
    "too few names": ({"labels": np.array([0, 1]), "classes": np.array(["one"])}, "there are 1 classes"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG)
def test_arrays_that_are_no_data_set(tmp_path, arrays, message):
    good = {"images": np.zeros((2, 3, 3, 1), np.uint8), "labels": np.zeros(2, int)}
    np.savez(tmp_path / "x.npz", **{**good, **arrays})
    with pytest.raises(DataError, match=message):
        NpzDataset(tmp_path / "x.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*absent\.npz"):
        NpzDataset(tmp_path / "absent.npz")


def npy(shape: str, descr: str = "'|u1'", content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + content


def zipped(path: Path, images: bytes, kind: int = zipfile.ZIP_STORED, twice: bool = False) -> Path:
    """A .npz with this in place of its images."""
    labels = io.BytesIO()
    np.save(labels, np.zeros(2, int))
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("images.npy", images)
        file.writestr("labels.npy", labels.getvalue())
        if twice:
            file.filelist.append(file.filelist[0])
            file.writestr("other.npy", b"")
    return path


GOOD = npy("(2, 3, 3, 1)", content=bytes(18))


class Dangerous:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def hostile(folder: Path) -> None:
    """Files that want to run code, or memory, or that lie."""
    folder.mkdir()
    dangerous = np.array([Dangerous(folder.parent / "mark")], object)
    np.savez(folder / "objects.npz", images=dangerous, labels=[0], allow_pickle=True)
    zipped(folder / "4 TiB", npy("(4398046511104, 1, 1, 1)"))
    zipped(folder / "2^64 bytes, which is 0", npy("(4294967296, 4294967296, 1, 1)"))
    zipped(folder / "negative twice", npy("(-2, -9, 1, 1)", content=bytes(18)))
    zeros = npy("(4096, 256, 256, 1)", content=bytes(1 << 28))
    packed = zipped(folder / "256 MiB of zeros", zeros, zipfile.ZIP_DEFLATED).read_bytes()
    at = packed.index(b"PK\1\2") + 20  # in the list at the end: how many bytes are packed, and into how many
    claimed = packed[:at] + struct.pack("<I", 1 << 28) + packed[at + 4 :]
    (folder / "256 MiB that claim to be packed into as many").write_bytes(claimed)
    few = npy("(2, 64, 64, 1)", content=bytes(8192))  # more than Python's zipfile reads at least
    packed = zipped(folder / "256 MiB too many", few + bytes(1 << 28), zipfile.ZIP_DEFLATED).read_bytes()
    at = packed.index(b"PK\1\2") + 24
    claimed = packed[:at] + struct.pack("<I", len(few)) + packed[at + 4 :]
    (folder / "256 MiB that claim to be few").write_bytes(claimed)
    text = np.zeros(2, "<U3")
    text.view("<u4")[4] = 0x110000
    np.savez(folder / "text that is none.npz", images=np.zeros((2, 3, 3, 1), np.uint8), labels=[0, 1], classes=text)
    zipped(folder / "not an array", b"raw bytes of any kind")
    zipped(folder / "header of 4 GiB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{")
    zipped(folder / "deep header", b"\x93NUMPY\x01\x00\x70\x17" + b"(" * 6000)
    zipped(folder / "format 9", npy("(2, 3, 3, 1)", content=bytes(18), version=b"\x09\x00"))
    zipped(folder / "structured", npy("(2, 3, 3, 1)", "[('a', '|u1')]", bytes(18)))
    zipped(folder / "objects by header", npy("(2,)", "'|O'", bytes(16)))
    zipped(folder / "text of no length", npy("(1099511627776,)", "'<U0'"))
    zipped(folder / "bzip2", GOOD, zipfile.ZIP_BZIP2)
    zipped(folder / "lzma", GOOD, zipfile.ZIP_LZMA)
    zipped(folder / "one name twice", GOOD, twice=True)
    content = bytearray(zipped(folder / "flipped pixel", GOOD).read_bytes())
    content[content.index(GOOD) + len(GOOD) - 3] ^= 1
    (folder / "flipped pixel").write_bytes(content)
    (folder / "short").write_bytes(bytes(content[:-30]))
    (folder / "empty").write_bytes(b"")


MEASURE = """
import resource, sys, time
from pathlib import Path
from minires.data import NpzDataset
from minires.errors import DataError
from minires.memory import peak_rss
NpzDataset(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    before, start = peak_rss(), time.perf_counter()
    try:
        NpzDataset(path)
        print("read", path)
    except DataError as error:
        seconds = time.perf_counter() - start
        if path.name not in str(error) or seconds > 0.2 or peak_rss() - before > 20 * 2**20:
            print(path, error, seconds, peak_rss() - before)
"""


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_files_are_refused_at_no_cost(tmp_path):
    hostile(tmp_path / "hostile")
    assert len(list((tmp_path / "hostile").iterdir())) == 22
    good = zipped(tmp_path / "good.npz", GOOD)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "hostile"), str(good)], capture_output=True, text=True,
        timeout=60, env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flips_and_truncations(tmp_path, images, rng, save):
    """Zip checks a CRC of every array: an error, or the same arrays where the bit had no meaning."""
    path = tmp_path / "x.npz"
    save(path, images=images, labels=LABELS)
    good, refused = path.read_bytes(), 0
    damages = [good[:length] for length in rng.integers(0, len(good), 100)]
    for place in rng.integers(0, len(good), 400):
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.integers(8)
        damages.append(bytes(damaged))
    for content in damages:
        path.write_bytes(content)
        try:
            data_set = NpzDataset(path)
        except DataError:
            refused += 1
            continue
        assert len(content) == len(good)
        np.testing.assert_array_equal(data_set.images, images)
        np.testing.assert_array_equal(data_set.labels, LABELS)
    assert refused > 350


def test_only_what_is_asked_for_is_read(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3), b=np.array([None]))
    assert load_npz(tmp_path / "x.npz", ["a"], ["c"]).keys() == {"a"}
    with pytest.raises(DataError, match="not numbers or text"):
        load_npz(tmp_path / "x.npz", ["a"], ["b"])


def test_known_pictures_are_named(tmp_path, images, monkeypatch):
    digest = hashlib.sha256(LABELS.astype(np.uint8).tobytes()).hexdigest()
    known = identity.Fingerprint("some pictures", digest, tuple(images.sum((0, 1, 2)).tolist()))
    monkeypatch.setattr(identity, "FINGERPRINTS", [known])
    np.savez(tmp_path / "x.npz", images=images.transpose(0, 3, 1, 2), labels=LABELS)
    assert NpzDataset(tmp_path / "x.npz", layout="NCHW").name == "some pictures"


@pytest.mark.parametrize(("split", "count"), [("train", 5170), ("test", 1017)])
def test_the_real_lossless_pictures(split, count):
    path = Path(os.environ.get("MINIRES_DATA", "/nowhere")) / "lossless.npz"
    if not path.is_file():
        pytest.skip("lossless.npz needed in the folder MINIRES_DATA")
    data_set = NpzDataset(path, split, layout="NCHW")
    assert data_set.images.shape == (count, 32, 32, 3)
    assert data_set.name == "CIFAR-10 (lossless subset)"
