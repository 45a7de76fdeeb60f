"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


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
