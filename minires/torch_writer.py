"""PyTorch's zip format, written without PyTorch: what torch.load(weights_only=True) reads.

An uncompressed archive with the pickle of an OrderedDict, `data.pkl`, and the bytes of each tensor's storage,
`data/<number>` (torch/serialization.py). Equal tensors make equal files.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
from collections.abc import Mapping

import numpy as np

from .errors import DTypeError
from .torch_reader import STORAGES

ALIGNMENT = 64  # of each storage within the file, as PyTorch has it, so that it can be mapped into memory
FOLDER = "archive"
NAMES = {np.dtype(dtype): name for name, dtype in STORAGES.items() if dtype != "bfloat16"}


def to_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The file's content. Raises DTypeError for an element type that PyTorch's storages lack."""
    import zipfile

    for name, array in tensors.items():
        if array.dtype.newbyteorder("=") not in NAMES:
            raise DTypeError(f"{name!r} is {array.dtype}, which a PyTorch file cannot hold: convert it first")
    native = [np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape) for a in tensors.values()]
    records = {"data.pkl": _pickled(dict(zip(tensors, native, strict=True))), "byteorder": sys.byteorder.encode()}
    records |= {f"data/{number}": array.tobytes() for number, array in enumerate(native)}
    records["version"] = b"3\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, record in records.items():
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}")  # of 1980, like all that name no time
            header = file.tell() + 30 + len(entry.filename) + 4
            entry.extra = b"FB" + struct.pack("<H", -header % ALIGNMENT) + bytes(-header % ALIGNMENT)
            archive.writestr(entry, record)
    return file.getvalue()


def _pickled(tensors: Mapping[str, np.ndarray]) -> bytes:
    """OrderedDict of name: _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)."""
    ordered_dict = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    parts = [pickle.PROTO, b"\x02", ordered_dict, pickle.MARK]
    for number, (name, array) in enumerate(tensors.items()):
        kind = _global("torch", NAMES[array.dtype])
        storage = _tuple(_text("storage"), kind, _text(str(number)), _text("cpu"), _int(array.size)) + pickle.BINPERSID
        strides = [step // array.itemsize for step in array.strides]
        sizes = [_tuple(*map(_int, numbers)) for numbers in (array.shape, strides)]
        arguments = _tuple(storage, _int(0), *sizes, pickle.NEWFALSE, ordered_dict)
        parts += [_text(name), _global("torch._utils", "_rebuild_tensor_v2"), arguments, pickle.REDUCE]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _int(number: int) -> bytes:
    if number < 1 << 31:
        return pickle.BININT + struct.pack("<i", number)
    digits = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(digits)]) + digits


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE
