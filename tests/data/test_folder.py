"""Pictures in folders: in torchvision's order, of one size, and what is wrong with one names it."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from minires.data import ImageFolder
from minires.errors import ArgumentError, DataError

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two classes, whose pictures of 6 rows and 9 columns lie at different depths."""
    names = ["cat/10.png", "cat/9.PNG", "cat/b.ppm", "cat/z/1.bmp", "cat/a/2.png", "Dog/1.png", "Dog/0.tiff"]
    for name in names:
        save(tmp_path / name, rng.integers(0, 256, (6, 9, 3), np.uint8))
    return tmp_path


def test_as_torchvision_reads_them(root):
    from tests.oracle import torchvision

    (root / "cat" / "notes.txt").write_text("no picture")
    expected = torchvision().datasets.ImageFolder(root)
    data_set = ImageFolder(str(root))
    assert data_set.images.shape == (7, 6, 9, 3)
    assert data_set.images.dtype == np.uint8
    assert data_set.classes == expected.classes == ["Dog", "cat"]
    assert data_set.labels.tolist() == expected.targets == [0, 0, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(data_set.images, np.stack([np.asarray(image) for image, _ in expected]))
    assert data_set.name == f"pictures in {root.name}"


def test_hidden_files_are_passed_over(root):
    before = ImageFolder(root)
    save(root / ".cache" / "1.png", np.zeros((2, 2, 3), np.uint8))
    save(root / "cat" / ".thumbnails" / "1.png", np.zeros((2, 2, 3), np.uint8))
    (root / "cat" / "._9.png").write_bytes(b"what another system leaves behind")
    (root / "stray.png").write_bytes(b"in no class")
    assert ImageFolder(root).fingerprint == before.fingerprint


KINDS = {
    "grey": ("L", (100, 100, 100)),
    "black and white": ("1", (255, 255, 255)),
    "palette": ("P", (100, 100, 100)),
    "transparent": ("RGBA", (100, 100, 100)),
    "grey and transparent": ("LA", (100, 100, 100)),
}


@pytest.mark.parametrize(("mode", "colour"), KINDS.values(), ids=KINDS)
def test_every_kind_becomes_red_green_blue(tmp_path, mode, colour):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 3), 255 if mode == "1" else 100).convert(mode).save(tmp_path / "a" / "1.png")
    assert (ImageFolder(tmp_path).images == colour).all()


def test_pictures_of_two_sizes_are_both_named(root, rng):
    save(root / "cat" / "c.png", rng.integers(0, 256, (6, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"Dog.0\.tiff has 9x6 pixels, but .*cat.c\.png has 8x6: name one `size`"):
        ImageFolder(root)
    assert ImageFolder(root, size=5).images.shape == (8, 5, 5, 3)
    assert ImageFolder(root, size=(4, 7)).images.shape == (8, 4, 7, 3)
    for size in (0, (3, 0)):
        with pytest.raises(ArgumentError, match="must be at least 1"):
            ImageFolder(root, size=size)


def test_scaling_keeps_proportions_and_cuts_the_longer_side(tmp_path):
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:, 6:14] = 200  # the middle square
    save(tmp_path / "a" / "1.png", pixels)
    np.testing.assert_array_equal(ImageFolder(tmp_path, size=8).images, np.full((1, 8, 8, 3), 200))
    half = ImageFolder(tmp_path, size=(4, 10)).images[0, :, :, 0]
    assert half[:, 4:6].min() == 200
    assert half[:, [0, 1, 8, 9]].max() == 0
    np.testing.assert_array_equal(ImageFolder(tmp_path, size=(8, 20)).images[0], pixels)


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and which has next to none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


BROKEN = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "start only": b"\x89PNG\r\n\x1a\n",
    "few pixels": png(9, 6),
    "10^8 pixels": png(10_000, 10_000),
    "10^18 pixels": png(10**9, 10**9),
}


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_picture_is_named(root, content, size):
    (root / "cat" / "0.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cat.0\.png is broken or no picture: "):
        ImageFolder(root, size=size)


@pytest.mark.skipif(os.name != "posix", reason="a program of one line of text")
def test_no_other_program_is_run(root, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    save(root / "cat" / "0.eps", np.zeros((6, 9, 3), np.uint8)).rename(root / "cat" / "0.png")
    (root / "gs").write_text(f"#!/bin/sh\ntouch {root}/executed\necho 10.0\n")
    (root / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # not looked for yet
    with pytest.raises(DataError, match=r"cat.0\.png is broken or no picture: "):
        ImageFolder(root)
    assert not (root / "executed").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for(root):
    os.mkfifo(root / "cat" / "0.png")
    with pytest.raises(DataError, match=r"cat.0\.png is no file"):
        ImageFolder(root)


def test_every_truncation_is_found(root):
    path = root / "cat" / "9.PNG"
    content = path.read_bytes()
    checksums = 4 + 4 + 12  # of the pixels, of the chunk around them, and a chunk that says that this was all
    for length in range(len(content) - checksums):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"9\.PNG"):
            ImageFolder(root)


def test_values_of_sixteen_bits_are_refused(root):
    save(root / "Dog" / "deep.png", np.full((6, 9), 1000, np.uint16))
    with pytest.raises(DataError, match=r"deep\.png has values of the kind I;16, not of eight bits"):
        ImageFolder(root)


def test_folders_without_pictures(tmp_path, root):
    with pytest.raises(DataError, match=r"cannot read .*nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no pictures in .*cat.a: .* as root/cat/1.png"):
        ImageFolder(root / "cat" / "a")
    (root / "bird").mkdir()
    (root / "ant").mkdir()
    with pytest.raises(DataError, match="has no picture in ant, bird"):
        ImageFolder(root)


def test_pillow_is_imported_late_and_its_absence_is_told(root):
    code = (
        "import sys\nfrom minires import data\nassert not any(name.startswith('PIL') for name in sys.modules)\n"
        f"sys.modules['PIL'] = None\ntry:\n    data.ImageFolder({str(root)!r})\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    assert run.stdout == "ArgumentError pictures need Pillow: pip install 'minires[examples]'\n"
