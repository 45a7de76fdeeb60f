"""MNIST and Fashion-MNIST from IDX files: read as torchvision reads them, and every damage is a DataError."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from minires.data import MNIST, FashionMNIST, identity
from minires.errors import DataError
from tests.data import idx_files
from tests.data.idx_files import idx

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("place", [".", "raw"])
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_reads_images_and_labels(tmp_path, rng, kind, place, packed):
    folder = tmp_path / (f"{kind.__name__}/raw" if place == "raw" else ".")
    files = idx_files.write(folder, rng, 20, 10, packed)
    for part, train, count in (("train", True, 20), ("t10k", False, 10)):
        data_set = kind(str(tmp_path), train)
        pixels = np.frombuffer(files[f"{part}-images-idx3-ubyte"], np.uint8, offset=16)
        assert (data_set.images.dtype, data_set.labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(data_set.images, pixels.reshape(count, 28, 28, 1))
        assert data_set.labels.tolist() == list(files[f"{part}-labels-idx1-ubyte"][8:])
        assert data_set.name == f"unrecognised {kind.title} files ({count} images)"


@pytest.mark.parametrize("train", [True, False])
def test_as_torchvision_reads_them(tmp_path, rng, train):
    from tests.oracle import torchvision

    idx_files.write(tmp_path / "FashionMNIST" / "raw", rng)
    expected = torchvision().datasets.FashionMNIST(tmp_path, train)
    data_set = FashionMNIST(tmp_path, train)
    np.testing.assert_array_equal(data_set.images[..., 0], expected.data.numpy())
    assert data_set.labels.tolist() == expected.targets.tolist()
    assert data_set.classes == expected.classes


def test_the_packed_file_is_preferred(tmp_path, rng):
    idx_files.write(tmp_path, rng, packed=False)
    files = idx_files.write(tmp_path, rng, packed=True)
    assert MNIST(tmp_path).labels.tolist() == list(files["train-labels-idx1-ubyte"][8:])


def test_missing_files_are_named(tmp_path, rng):
    with pytest.raises(DataError, match=r"no Fashion-MNIST in .*nowhere: put train-images-idx3-ubyte, .* plain or .gz"):
        FashionMNIST(tmp_path / "nowhere")
    idx_files.write(tmp_path, rng)
    (tmp_path / LABELS).unlink()
    for train in (True, False):
        with pytest.raises(DataError, match=rf"MNIST in .* is incomplete: {LABELS} missing"):
            MNIST(tmp_path, train)


PIXELS = bytes(28 * 28)
BAD = {
    "empty": (IMAGES, b"", "no IDX header"),
    "half a header": (IMAGES, idx((1, 28, 28), b"")[:15], "no IDX header"),
    "labels for images": (IMAGES, idx((1,), b"\0"), "no IDX header of uint8 in 3 axes"),
    "images for labels": (LABELS, idx((1, 28, 28), PIXELS), "no IDX header of uint8 in 1 axes"),
    "floats": (IMAGES, idx((1, 28, 28), 4 * PIXELS, kind=13), "no IDX header"),
    "a pixel too few": (IMAGES, idx((2, 28, 28), 2 * PIXELS[:-1]), r"1,566 values for an array of \[2, 28, 28\]"),
    "a pixel too many": (IMAGES, idx((2, 28, 28), 2 * PIXELS + b"\0"), "1,569 values"),
    "2^96 pixels": (IMAGES, idx((2**32 - 1, 2**32 - 1, 2**32 - 1), PIXELS), "784 values"),
    "2^64 pixels, which is 0 in 64 bits": (IMAGES, idx((2**31, 2**31, 4), b""), "0 values"),
    "27 rows": (IMAGES, idx((2, 27, 28), 2 * bytes(27 * 28)), r"are \(27, 28\), not \(28, 28\)"),
    "other number": (IMAGES, idx((3, 28, 28), 3 * PIXELS), "2 labels, but there are 3 images"),
    "label 10": (LABELS, idx((2,), b"\x09\x0a"), "not from 0 to 9"),
    "no labels": (LABELS, idx((0,), b""), "0 labels, but there are 2 images"),
    "text": (LABELS, b"<html>not found</html>", "no IDX header"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_wrong_content_is_refused(tmp_path, rng, name, content, message, packed):
    idx_files.write(tmp_path, rng, 2, 2, packed)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=rf"t10k-\w+-idx\d-ubyte.* is damaged.*{message}") as caught:
        MNIST(tmp_path, train=False)
    assert name.split("-")[1] in str(caught.value) or "labels, but" in message


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_every_truncation_is_refused(tmp_path, rng, name, packed):
    idx_files.write(tmp_path, rng, 2, 2, packed)
    path = tmp_path / (f"{name}.gz" if packed else name)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=name):
            MNIST(tmp_path, train=False)


def test_too_large_a_file_is_not_read(tmp_path, rng):
    idx_files.write(tmp_path, rng)
    with (tmp_path / IMAGES).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes, and 47,040,016 are the most"):
        MNIST(tmp_path, train=False)


def test_the_real_pictures():
    """The published ones, also as others packed them, such as Debian's package dataset-fashion-mnist."""
    root = Path(os.environ.get("MINIRES_DATA", "/nowhere"))
    if not (root / "FashionMNIST" / "raw").is_dir():
        pytest.skip("real Fashion-MNIST needed: FashionMNIST/raw in the folder MINIRES_DATA")
    for train, count in ((True, 60_000), (False, 10_000)):
        data_set = FashionMNIST(root, train, verify=True)
        assert data_set.name == identity.name_of(data_set.images, data_set.labels) == "Fashion-MNIST"
        assert np.bincount(data_set.labels).tolist() == [count // 10] * 10
