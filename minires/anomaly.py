"""What `detect_anomaly` looks at: values that are not finite, arrays that changed, and the line that led here."""

from __future__ import annotations

import linecache
import os
import sys
import zlib
from typing import Any

from .device import Array, array_module


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite. Integers always are."""
    return array.dtype.kind != "f" or bool(array_module(array).isfinite(array).all())


def checksum(value: Any) -> int | None:
    """CRC-32 of an array's bytes; None for what is not an array."""
    return zlib.crc32(value.tobytes()) if hasattr(value, "tobytes") else None


def users_line() -> str:
    """The innermost line outside of minires that led here: 'train.py:12: y = log(x)'."""
    package = os.path.dirname(os.path.abspath(__file__)) + os.sep
    frame: Any = sys._getframe(1)
    while frame.f_back and os.path.abspath(frame.f_code.co_filename).startswith(package):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}:{line}: {linecache.getline(file, line).strip()}"
