"""Files of a data set, read into memory from a folder or from an archive, which is never unpacked to disk.

No file may make a reader take more memory than its limit, run code or write anything. What is wrong with one is a
DataError that names it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError

MOST_MEMBERS = 100  # in an archive; the real ones have ten at most
BLOCK = 512  # tar's unit


def read_file(path: Path, largest: int) -> bytes:
    """The content of a file, unpacked if its name ends in .gz; DataError if it has more than `largest` bytes."""
    if path.stat().st_size > largest:
        raise DataError(f"{path} is no such file: it has {path.stat().st_size:,} bytes, and {largest:,} are the most")
    if path.suffix != ".gz":
        return path.read_bytes()
    with _unpacked(path) as stream:
        content = stream.read(largest + 1)
        if len(content) > largest:
            raise DataError(f"{path} is damaged: it unpacks to more than {largest:,} bytes")
        return content


def read_members(path: Path, names: Collection[str], largest: int) -> dict[str, bytes]:
    """The contents of the regular files `names` in a .tar.gz, by name, each of at most `largest` bytes.

    Nothing is unpacked to disk: links, devices and other names are passed over. Raises DataError for a file that is
    missing or there twice, and for an archive that is damaged anywhere, up to the checksum at its end, or that unpacks
    to more than ten times `largest` bytes.
    """
    import tarfile  # late, as this would make every import of minires slower

    links, devices = (tarfile.LNKTYPE, tarfile.SYMTYPE), (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    without_content = (*links, *devices, tarfile.DIRTYPE)
    found: dict[str, bytes] = {}
    left = 10 * largest
    with _unpacked(path) as stream:
        for _ in range(MOST_MEMBERS):
            header = stream.read(BLOCK)
            if not any(header):  # a block of zeros ends the archive
                break
            try:
                member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise ValueError(f"no header of a member: {error}") from error
            size = 0 if member.type in without_content else member.size
            if not 0 <= size <= min(largest, left) or member.type == tarfile.GNUTYPE_SPARSE:
                raise DataError(f"{path} is damaged: its member {member.name!r} would have {size:,} bytes")
            left -= size
            content = stream.read(size)
            if len(content) < size or len(stream.read(-size % BLOCK)) < -size % BLOCK:
                raise EOFError(f"it ends within {member.name!r}")
            name = member.name.removeprefix("./")
            if name in names and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                if name in found:
                    raise DataError(f"{path} is damaged: it has {name} twice")
                found[name] = content
        else:
            raise DataError(f"{path} is no such archive: it has more than {MOST_MEMBERS} members")
        if len(stream.read(1 << 20)) == 1 << 20:  # to the end, where the checksum stands
            raise DataError(f"{path} is damaged: much follows its end")
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path} is incomplete: {', '.join(missing)} missing")
    return found


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    """The unpacked content of a .gz, whose errors are DataErrors."""
    try:
        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
