"""CIFAR-10 from its files: read right, and what is wrong with them is a DataError, soon and in little memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minires.data import CIFAR10, CIFAR100
from minires.data.cifar import CLASSES, CLASSES_100, COARSE_CLASSES
from minires.errors import DataError
from tests.data import cifar_files

PIXELS = bytes(2 * 3072)
GOOD = cifar_files.array((2, 3072), PIXELS)


@pytest.fixture
def root(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A miniature data set: two images in each training file, two in the test file."""
    cifar_files.write(tmp_path, rng, train=10, test=2)
    return tmp_path


def replace(root: Path, content: bytes) -> Path:
    path = root / cifar_files.FOLDER / "test_batch"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("inside", [False, True], ids=["parent", "folder"])
def test_reads_images_and_labels(tmp_path, rng, inside):
    images, labels = cifar_files.write(tmp_path, rng)
    root = tmp_path / cifar_files.FOLDER if inside else tmp_path
    for data_set, part in ((CIFAR10(root), slice(40)), (CIFAR10(str(root), train=False), slice(40, None))):
        assert data_set.images.dtype == np.uint8
        assert data_set.images.flags.c_contiguous
        assert data_set.labels.dtype == np.int64
        np.testing.assert_array_equal(data_set.images, images[part])
        np.testing.assert_array_equal(data_set.labels, labels[part])


@pytest.mark.parametrize("where", ["folder", "in folder", "archive", "in archive"])
@pytest.mark.parametrize("form", cifar_files.FORMS)
def test_reads_every_form(tmp_path, rng, form, where):
    images, labels = cifar_files.drawn(form, rng, 60)
    packed = "archive" in where
    place = cifar_files.put(form, tmp_path, cifar_files.contents(form, images, labels, 40), packed)
    assert sorted(tmp_path.iterdir()) == [place]
    root = place if where in ("folder", "archive") else tmp_path
    for train, part in ((True, slice(40)), (False, slice(40, None))):
        if "labels" in labels:
            found = {"labels": CIFAR10(root, train)}
        else:
            found = {"fine_labels": CIFAR100(root, train), "coarse_labels": CIFAR100(root, train, coarse=True)}
        for kind, data_set in found.items():
            assert (data_set.images.dtype, data_set.labels.dtype) == (np.uint8, np.int64)
            assert data_set.images.flags.c_contiguous
            np.testing.assert_array_equal(data_set.images, images[part])
            np.testing.assert_array_equal(data_set.labels, labels[kind][part])
            assert len(data_set.classes) == {"labels": 10, "fine_labels": 100, "coarse_labels": 20}[kind]
    assert sorted(tmp_path.iterdir()) == [place]  # nothing was unpacked


def test_binary_is_preferred_where_it_is_complete(tmp_path, rng):
    every = {}
    for form in ("CIFAR-10 python", "CIFAR-10 binary"):
        images, labels = cifar_files.drawn(form, rng, 6)
        every[form] = images
        cifar_files.put(form, tmp_path, cifar_files.contents(form, images, labels, 5))
    binary = tmp_path / "cifar-10-batches-bin"
    np.testing.assert_array_equal(CIFAR10(tmp_path).images, every["CIFAR-10 binary"][:5])
    (binary / "data_batch_5.bin").unlink()
    np.testing.assert_array_equal(CIFAR10(tmp_path).images, every["CIFAR-10 python"][:5])
    with pytest.raises(DataError, match=r"incomplete: data_batch_5\.bin missing"):
        CIFAR10(binary)


def test_an_archive_of_another_name_is_refused(tmp_path, rng):
    form = "CIFAR-10 binary"
    files = cifar_files.contents(form, *cifar_files.drawn(form, rng, 6), 5)
    path = cifar_files.put(form, tmp_path, files, packed=True)
    with pytest.raises(DataError, match=r"not named cifar-100-binary\.tar\.gz or cifar-100-python\.tar\.gz"):
        CIFAR100(path)
    with pytest.raises(DataError, match=r"no CIFAR-100 in .*put cifar-100-python\.tar\.gz or cifar-100-binary"):
        CIFAR100(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 3072, 3073 * 2 - 1])
def test_binary_files_hold_whole_records(tmp_path, rng, length):
    form = "CIFAR-10 binary"
    files = cifar_files.contents(form, *cifar_files.drawn(form, rng, 7), 5)
    files["test_batch.bin"] = files["test_batch.bin"][:length]
    cifar_files.put(form, tmp_path, files)
    with pytest.raises(DataError, match=rf"test_batch\.bin is damaged.*: {length:,} bytes are no whole number .* 3073"):
        CIFAR10(tmp_path, train=False)


@pytest.mark.parametrize(("place", "kind", "limit"), [(0, "coarse_labels", 20), (1, "fine_labels", 100)])
def test_binary_labels_out_of_range(tmp_path, rng, place, kind, limit):
    form = "CIFAR-100 binary"
    files = cifar_files.contents(form, *cifar_files.drawn(form, rng, 7), 5)
    content = bytearray(files["test.bin"])
    content[place] = limit
    cifar_files.put(form, tmp_path, {**files, "test.bin": bytes(content)})
    for coarse in (False, True):
        with pytest.raises(DataError, match=rf"test\.bin is damaged: it has {kind} from .* not 0 to {limit - 1}"):
            CIFAR100(tmp_path, train=False, coarse=coarse)


def test_class_names():
    assert " ".join(CLASSES) == "airplane automobile bird cat deer dog frog horse ship truck"
    for names, count in ((CLASSES_100, 100), (COARSE_CLASSES, 20)):
        assert len(names) == count
        assert names == sorted(set(names))


def test_one_image_is_red_green_blue(root):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 2, 5] = 10, 20, 30  # row 2, column 5
    content = cifar_files.batch(image, [7])
    plane = content.index(b"T\x00\x0c\x00\x00") + 5  # in the file: all reds, then all greens, then all blues
    assert [content[plane + 1024 * c + 2 * 32 + 5] for c in range(3)] == [10, 20, 30]
    replace(root, content)
    images, label = CIFAR10(root, train=False)[0]
    assert images[2, 5].tolist() == [10, 20, 30]
    assert images.sum() == 60
    assert label == 7


@pytest.mark.parametrize("protocol", [3, 4])
def test_files_that_python_3_wrote(root, rng, protocol):
    rows = rng.integers(0, 256, (2, 3072), np.uint8)
    replace(root, pickle.dumps({"data": rows, "labels": [3, 9], "batch_label": "x"}, protocol))
    data_set = CIFAR10(root, train=False)
    np.testing.assert_array_equal(data_set.images, rows.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))
    assert data_set.labels.tolist() == [3, 9]


def test_array_saved_by_columns(root, rng):
    rows = np.asfortranarray(rng.integers(0, 256, (2, 3072), np.uint8))
    replace(root, pickle.dumps({"data": rows, "labels": [3, 9]}, 3))
    np.testing.assert_array_equal(CIFAR10(root, train=False).images, rows.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))


def test_missing_files_are_named(root, tmp_path):
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*nowhere.*cifar-10-python.tar.gz"):
        CIFAR10(tmp_path / "nowhere")
    (root / cifar_files.FOLDER / "data_batch_3").unlink()
    for train in (True, False):
        with pytest.raises(DataError, match="incomplete: data_batch_3 missing"):
            CIFAR10(root, train)


def test_every_truncation_is_refused(root):
    path = root / cifar_files.FOLDER / "test_batch"
    content = path.read_bytes()
    lengths = [n for n in range(len(content)) if n < 400 or n > len(content) - 100 or n % 97 == 0]
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="test_batch is damaged"):
            CIFAR10(root, train=False)


def attempt(root: Path) -> tuple[CIFAR10 | None, str]:
    """The test set, or None and why it was refused."""
    try:
        return CIFAR10(root, train=False), ""
    except DataError as error:
        return None, str(error)


def test_flipped_bits_give_an_error_or_an_array(root, rng):
    path = root / cifar_files.FOLDER / "test_batch"
    content = path.read_bytes()
    pixels = range(content.index(b"T\x00\x18\x00\x00") + 5, content.index(b"T\x00\x18\x00\x00") + 5 + len(PIXELS))
    frame = [i for i in range(len(content)) if i not in pixels]
    flips = [(i, bit) for i in frame for bit in range(8)]
    flips += [(int(i), int(rng.integers(8))) for i in rng.choice(pixels, 200, replace=False)]
    refused = 0
    for place, bit in flips:
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        data_set, message = attempt(root)
        if data_set is None:
            assert "test_batch" in message
            assert place not in pixels
            refused += 1
        else:
            assert data_set.images.shape == (2, 32, 32, 3)
            assert data_set.images.dtype == np.uint8
            assert len(data_set.labels) == 2
    assert refused > len(frame) * 4


BAD = {
    "labels out of range": (cifar_files.pickled(GOOD, [0, 10]), "labels from 0 to 10"),
    "negative label": (cifar_files.pickled(GOOD, [-1, 3]), "labels from -1 to 3"),
    "a label too few": (cifar_files.pickled(GOOD, [1]), "2 images, but 1 labels"),
    "no labels": (cifar_files.pickled(cifar_files.array((0, 3072), b""), []), "no list of numbers"),
    "rows of 3071": (cifar_files.pickled(cifar_files.array((2, 3071), PIXELS[:-2]), [1, 2]), "rows of 3072"),
    "signed bytes": (cifar_files.pickled(cifar_files.array((2, 3072), PIXELS, b"i1"), [1, 2]), "not uint8"),
    "short data": (cifar_files.pickled(cifar_files.array((2, 3072), PIXELS[:-1]), [1, 2]), "reshape"),
    "no array": (cifar_files.pickled(cifar_files.string(b"data"), [1, 2]), "damaged"),
    "a list": (b"\x80\x02].", "damaged"),
    "text": (b"<html>not found</html>", "damaged"),
    "empty": (b"", "damaged"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_wrong_content_is_refused(root, content, message):
    replace(root, content)
    with pytest.raises(DataError, match=rf"test_batch.*{message}"):
        CIFAR10(root, train=False)


def test_too_large_a_file_is_not_read(root):
    with (root / cifar_files.FOLDER / "test_batch").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes"):
        CIFAR10(root, train=False)


@pytest.mark.parametrize(
    "name", ["os.system", "posix.system", "builtins.eval", "subprocess.Popen", "numpy.load", "numpy._core.multiarray.x"]
)
def test_code_in_a_pickle_is_refused_by_name(root, name):
    module, _, function = name.rpartition(".")
    mark = root / "executed"
    call = f"c{module}\n{function}\n".encode() + cifar_files.string(f"touch {mark}".encode()) + b"\x85R"
    for content in (b"\x80\x02" + call + b".", cifar_files.pickled(call, [1, 2])):
        replace(root, content)
        with pytest.raises(DataError, match=f"asks for {name}, which no CIFAR file needs"):
            CIFAR10(root, train=False)
    assert not mark.exists()


def nested_lists() -> bytes:
    """Ten lists, each ten times the one before: 1e10 numbers when spread out."""
    lists = b"](" + 10 * b"K\x01" + b"eq\x20"
    for memo in range(0x20, 0x29):
        lists = b"](" + lists + 9 * (b"h" + bytes([memo])) + b"eq" + bytes([memo + 1])
    return b"\x80\x02}(" + cifar_files.string(b"labels") + lists + cifar_files.string(b"data") + GOOD + b"u."


NESTED = b"K\1q\1" + b"h\1h\1\x86q\1" * 25  # a pair of pairs of pairs ...

BOMBS = {
    "memo index": b"\x80\x02]r\xff\xff\xff\x7f.",
    # of 1 GiB: more would be refused by the limit under which they are tried
    "bytearray": b"\x80\x05\x96\x00\x00\x00\x40\x00\x00\x00\x00.",
    "bytes": b"\x80\x04\x8e\x00\x00\x00\x40\x00\x00\x00\x00.",
    "frame": b"\x80\x04\x95\x00\x00\x00\x40\x00\x00\x00\x00.",
    "text": b"\x80\x04\x8d\x00\x00\x00\x40\x00\x00\x00\x00.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "nested lists": nested_lists(),
    "many lists": b"\x80\x02" + b"]" * (4 << 20) + b".",
    "many sets": b"\x80\x04" + b"\x8f" * (1 << 18) + b".",
    "many marks": b"\x80\x02" + b"(" * (4 << 20) + b".",
    "many objects of one long tuple": b"\x80\x02cnumpy\ndtype\nq\1("
    + 9_000 * b"N"
    + b"tq\2"
    + 3_000 * b"h\1h\2R"
    + cifar_files.string(bytes(10 << 20))
    + b".",
    "a key whose hash takes for ever": b"\x80\x02}" + NESTED + b"Ns.",
    "a key whose hash takes for ever, made at once": b"\x80\x02(" + NESTED + b"Nd.",
    "a set of such": b"\x80\x04\x8f(" + NESTED + b"\x90.",
    "many memos": b"\x80\x04N" + b"\x94" * (4 << 20) + b".",
    "array shape": cifar_files.pickled(cifar_files.array((2**31 - 1, 3072), PIXELS), [1, 2]),
    "new array": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
}

MEASURE = """
import json, resource, sys, time
from minires.data.pickles import read_batch
from pathlib import Path
from minires.memory import peak_rss
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    before, start = peak_rss(), time.perf_counter()
    try:
        read_batch(path.read_bytes(), ["labels"])
        error = None
    except Exception as raised:
        error = str(raised)
    print(json.dumps([path.name, error, (peak_rss() - before) / 2**20, time.perf_counter() - start]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_bombs_take_neither_memory_nor_time(tmp_path):
    for name, content in BOMBS.items():
        (tmp_path / name).write_bytes(content)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    reports = [json.loads(line) for line in run.stdout.splitlines()]
    assert sorted(name for name, *_ in reports) == sorted(BOMBS)
    for name, error, megabytes, seconds in reports:
        assert error is not None, name
        assert megabytes < 50, (name, megabytes)
        assert seconds < 0.5, (name, seconds)


@pytest.mark.parametrize("train", [True, False], ids=["train", "test"])
def test_the_real_files_as_torchvision_reads_them(cifar10_root, train, monkeypatch):
    from tests.oracle import torchvision

    cifar = torchvision().datasets.cifar
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)  # it admits one copy of the files only
    expected = cifar.CIFAR10(cifar10_root, train)
    data_set = CIFAR10(cifar10_root, train)
    count = 50_000 if train else 10_000
    assert data_set.images.shape == (count, 32, 32, 3)
    assert np.bincount(data_set.labels).tolist() == [count // 10] * 10
    assert data_set.classes == expected.classes
    assert data_set.labels.tolist() == expected.targets
    assert (data_set.images == expected.data).all()
