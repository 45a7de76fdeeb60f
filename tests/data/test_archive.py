"""Hostile and damaged archives: an error that names the archive, or the right data; nothing is ever written."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data import CIFAR10, archive
from minires.errors import DataError
from tests.data import cifar_files

FORM = "CIFAR-10 binary"
FOLDER, ARCHIVE = cifar_files.FORMS[FORM][:2]


@pytest.fixture(scope="module")
def members() -> list[tuple[str, bytes]]:
    """A good archive's members: two images in each file."""
    images, labels = cifar_files.drawn(FORM, np.random.default_rng(0), 12)
    files = cifar_files.contents(FORM, images, labels, 10)
    return [(f"{FOLDER}/{name}", content) for name, content in files.items()]


def special(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT)


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1))
    return path


TEST = f"{FOLDER}/test_batch.bin"
EXTRA = {  # members before the good ones, which change nothing
    "name that climbs": [("../../climbed", b"x")],
    "name from the root": [("/tmp/from_the_root", b"x")],
    "expected name that climbs": [(f"../{TEST}", b"x")],
    "expected name from the root": [(f"/{TEST}", b"x")],
    "name through a link": [(special("out", tarfile.SYMTYPE, "/tmp"), b""), ("out/through", b"x")],
    "link": [(special("link", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "hard link": [(special("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "hard link with a size, but no content": [(special("hard", tarfile.LNKTYPE, "x", size=700), b"")],
    "character device": [(special("zero", tarfile.CHRTYPE), b"")],
    "block device": [(special("disk", tarfile.BLKTYPE), b"")],
    "pipe": [(special("pipe", tarfile.FIFOTYPE), b"")],
    "folder that cannot be entered": [(special("closed", tarfile.DIRTYPE), b"")],
    "long name": [("a" * 90 + "/" + "b" * 400, b"x")],
}


@pytest.fixture
def inside(tmp_path, monkeypatch) -> Path:
    """An empty folder two levels down, which is the working folder, too."""
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA)
def test_other_members_are_passed_over(tmp_path, inside, members, extra):
    outside = [Path("/tmp/from_the_root"), Path("/tmp/through")]
    cifar_files.tar(inside / ARCHIVE, extra + members)
    before = everything(tmp_path)
    data_set = CIFAR10(inside, train=False)
    assert cifar_files.records(data_set.images, data_set.labels) == members[-1][1]
    assert everything(tmp_path) == before
    assert not any(path.exists() for path in outside)


def instead(kind: bytes, link: str = "") -> Callable[[list[Any]], list[Any]]:
    """Puts a member of this kind where the test file was."""
    return lambda good: [*good[:-1], (special(TEST, kind, link), b"")]


REFUSED: dict[str, tuple[Callable[[list[Any]], list[Any]], str]] = {
    "link of an expected name": (instead(tarfile.SYMTYPE, "/dev/zero"), "missing"),
    "hard link of an expected name": (instead(tarfile.LNKTYPE, f"{FOLDER}/data_batch_1.bin"), "missing"),
    "device of an expected name": (instead(tarfile.CHRTYPE), "missing"),
    "expected member twice": (lambda good: good + good[-1:], "twice"),
    "expected member missing": (lambda good: good[:-1], f"incomplete: {TEST} missing"),
    "many members": (lambda good: [(f"{i}", b"") for i in range(200)] + good, "more than 100 members"),
    "no members": (lambda good: [], "missing"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path, inside, members, change, message):
    cifar_files.tar(inside / ARCHIVE, change(members))
    before = everything(tmp_path)
    with pytest.raises(DataError, match=rf"{ARCHIVE} .*{message}"):
        CIFAR10(inside, train=False)
    assert everything(tmp_path) == before


def test_a_dot_before_the_names(inside, members):
    cifar_files.tar(inside / ARCHIVE, [(f"./{name}", content) for name, content in members])
    assert len(CIFAR10(inside)) == 10


def test_python_writes_extended_headers(inside, members):
    with tarfile.open(inside / ARCHIVE, "w:gz", format=tarfile.PAX_FORMAT) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5  # a fraction needs one
            file.addfile(info, io.BytesIO(content))
    assert len(CIFAR10(inside)) == 10


def bombs(folder: Path) -> None:
    """Small files that ask for much."""
    zeros = 256 << 20
    raw(folder / "size of 8 TiB", header(special(TEST, tarfile.REGTYPE, size=8 << 40)))
    raw(folder / "size of 8 GiB less 1", header(special("x", tarfile.REGTYPE, size=(8 << 30) - 1)))
    raw(folder / "long name of 1 GiB", header(special("x", tarfile.GNUTYPE_LONGNAME, size=1 << 30)))
    raw(folder / "extended header of 1 GiB", header(special("x", tarfile.XHDTYPE, size=1 << 30)))
    raw(folder / "sparse", header(special(TEST, tarfile.GNUTYPE_SPARSE, size=512)))
    packer = zlib.compressobj(9, wbits=31)
    unpacked = header(special("zeros", tarfile.REGTYPE, size=zeros))
    content = b"".join([packer.compress(unpacked)] + [packer.compress(bytes(1 << 20)) for _ in range(256)])
    content += packer.flush()
    (folder / "256 MiB of zeros").write_bytes(content)
    (folder / "256 MiB of zeros.gz").write_bytes(content)
    (folder / "zeros after the end").write_bytes(gzip.compress(bytes(1 << 25), 9))
    negative = bytearray(header(special("x", tarfile.REGTYPE)))
    negative[124:136] = b"\xff" * 12  # -1 in base 256
    negative[148:156] = b"%06o\0 " % (sum(negative) - sum(negative[148:156]) + 8 * 32)
    raw(folder / "size of -1", bytes(negative))


MEASURE = """
import resource, sys, time
from pathlib import Path
from minires.data import archive
from minires.errors import DataError
from minires.memory import peak_rss
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    before, start = peak_rss(), time.perf_counter()
    try:
        if path.suffix == ".gz":
            archive.read_file(path, 1 << 20)
        else:
            archive.read_members(path, [sys.argv[2]], 32 << 20)
        print("read", path)
    except DataError as error:
        seconds = time.perf_counter() - start
        if path.name not in str(error) or seconds > 0.5 or peak_rss() - before > 50 * 2**20:
            print(path, error, seconds, peak_rss() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_bombs_take_neither_memory_nor_time(tmp_path):
    bombs(tmp_path)
    assert all(path.stat().st_size < 300_000 for path in tmp_path.iterdir())
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), TEST], capture_output=True, text=True, timeout=60,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_all_members_together_are_limited(tmp_path):
    """Ten times the largest, whether they are wanted or not."""
    for count, message in ((9, ""), (10, "its member '10' would have 1,000 bytes")):
        path = cifar_files.tar(tmp_path / ARCHIVE, [(f"{number}", bytes(1000)) for number in range(count + 1)])
        if message:
            with pytest.raises(DataError, match=message):
                archive.read_members(path, ["0"], 1000)
        else:
            assert archive.read_members(path, ["0"], 1000) == {"0": bytes(1000)}


def test_the_checksum_at_the_end_is_checked(inside, members):
    path = cifar_files.tar(inside / ARCHIVE, members)
    good = path.read_bytes()
    for place in range(-8, 0):  # CRC-32 and length
        damaged = bytearray(good)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{ARCHIVE} is damaged"):
            CIFAR10(inside, train=False)
    for length in (*range(20), *range(20, len(good), 501), *range(len(good) - 20, len(good))):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match=ARCHIVE):
            CIFAR10(inside, train=False)
    path.write_bytes(good + b"rest")
    with pytest.raises(DataError, match=f"{ARCHIVE} is damaged"):
        CIFAR10(inside, train=False)


def test_files_are_read_up_to_their_limit(tmp_path):
    for name, content in (("plain", bytes(1000)), ("packed.gz", gzip.compress(bytes(1000)))):
        path = tmp_path / name
        path.write_bytes(content)
        assert archive.read_file(path, 1000) == bytes(1000)
        with pytest.raises(DataError, match=rf"{name} .*999"):
            archive.read_file(path, 999)
    start = time.perf_counter()
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(1 << 26), 1))
    with pytest.raises(DataError, match="unpacks to more than 400,000 bytes"):
        archive.read_file(tmp_path / "bomb.gz", 400_000)
    assert time.perf_counter() - start < 2
