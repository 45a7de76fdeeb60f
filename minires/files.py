"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
import threading
from pathlib import Path
from typing import BinaryIO

_written = itertools.count()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, with its folder if need be: beside its final name, then renamed. Raises OSError, leaving none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(path)
    numbers = os.getpid(), threading.get_native_id(), next(_written)  # no other's, whoever writes the same file now
    temporary = path.with_name(f".{path.name}.{'.'.join(map(str, numbers))}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            publish(file, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(file: BinaryIO, path: Path) -> None:
    """Give a file that was written beside `path` that name: never in part, and lasting through a loss of power."""
    file.flush()
    os.fsync(file.fileno())
    if os.name != "posix":  # elsewhere an open file cannot be renamed
        file.close()
    os.replace(file.name, path)
    if os.name == "posix":  # the new name itself must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_orphans(path: Path) -> None:
    """Remove unfinished files of this name whose writers are dead."""
    for orphan in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)(\.\d+)*\.tmp", orphan.name)
        if match and not _alive(int(match[1])):
            with contextlib.suppress(OSError):
                orphan.unlink()


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill does not ask, it kills
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
