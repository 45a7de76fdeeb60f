"""PyTorch's files of tensors, zip and legacy, read without PyTorch and without trust.

Such a file is a pickle that names storages (runs of numbers of one type) and says how tensors lie in them, with the
storages' bytes beside it. The pickle is a program; so only what tensors need is admitted, and all that it claims is
checked against the bytes that are there (torch/serialization.py; Python, pickletools).
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .convert import from_bfloat16
from .pickles import METHODS, Methods, RestrictedUnpickler

if TYPE_CHECKING:
    import zipfile

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how a legacy file begins
LARGEST_RATIO = 4  # of the tensors' bytes to the file's: bfloat16 doubles, and tensors may share a storage
MOST_DIMENSIONS = 64  # NumPy's
STORAGES = {  # the element types of PyTorch's storages; of bfloat16, which NumPy lacks, the bits
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
CODES = b"".join(
    [
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL),
        *(pickle.REDUCE, pickle.BUILD, pickle.BINPERSID, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
        *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
        *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
        *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
    ]
)


@dataclass(frozen=True)
class StorageType:
    """What a name such as torch.FloatStorage stands for."""

    dtype: str

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass(eq=False)
class Storage:
    """`size` elements of one type: of its bytes, which a legacy file has further on, or of its root from `start` on."""

    kind: StorageType
    size: int
    root: Storage | None = None
    start: int = 0
    content: memoryview | None = None


@dataclass(eq=False)
class Tensor:
    """A tensor as the file describes it; its array is made when it is asked for. Strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    byteorder: Literal["<", ">"]

    def array(self) -> np.ndarray:
        """A read-only view of the file's bytes, of native byte order; bfloat16 is widened to float32."""
        source, kind = self.storage.root or self.storage, self.storage.kind
        if source.content is None:
            raise ValueError("a tensor's storage is missing")
        dtype = np.dtype("u2" if kind.dtype == "bfloat16" else kind.dtype).newbyteorder(self.byteorder)
        if 0 in self.shape:
            array = np.empty(self.shape, dtype)
        else:
            start = (self.storage.start + self.offset) * kind.itemsize
            strides = tuple(step * kind.itemsize for step in self.strides)
            array = np.ndarray(self.shape, dtype, source.content, start, strides)
        array = array.astype(dtype.newbyteorder("="), copy=False)
        return from_bfloat16(array) if kind.dtype == "bfloat16" else array


def read(content: bytes) -> Any:
    """The object that a file holds, with a Tensor for each tensor; what is wrong with the file can raise any exception.

    pickle.UnpicklingError says what it asks for that is refused.
    """
    if content[:2] == b"PK":
        return _read_zip(content)
    return _read_legacy(content)


class _Unpickler(RestrictedUnpickler):
    """Makes Storages, Tensors, lists, tuples, text, numbers, and dicts whose keys are text or small numbers."""

    def __init__(
        self,
        file: io.BytesIO,
        size: int,
        byteorder: Literal["<", ">"],
        records: Mapping[str, memoryview] | None,
    ) -> None:
        self.functions = {
            ("collections", "OrderedDict"): _dict,
            ("collections", "Counter"): _dict,  # which MultiStepLR counts its milestones with
            ("torch", "Size"): _sizes,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        kinds = {("torch", name): StorageType(dtype) for name, dtype in STORAGES.items()}
        reader = "no tensor needs, and nothing else is read; in PyTorch, save the model's state_dict() alone"
        # A tensor of one number takes some 33 steps and 80 bytes of a file; large files have larger tensors.
        steps = 1000 + min(size, 1 << 20) // 2 + size // 32
        super().__init__(file, _METHODS, self.functions | kinds, steps, "utf-8", reader)
        self.left, self.byteorder, self.records = LARGEST_RATIO * size + 1024, byteorder, records
        self.storages: dict[str, Storage] = {}

    def load(self) -> Any:
        """The next pickle's object. A legacy file has five, which share nothing but the steps that are left."""
        self.memo = {}
        return super().load()

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that ("storage", type, key, device, size) names; a legacy file may go on with a view of it."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something other than a tensor's storage")
        _, kind, key, _, size, *views = pid
        if type(kind) is not StorageType or type(key) is not str or not _is_size(size):
            raise ValueError("it describes a storage that cannot be")
        storage = self.storages.get(key)
        if storage is None:
            storage = self.storages[key] = Storage(kind, size)
            if self.records is not None:
                storage.content = self.records[f"data/{key}"]
                there = len(storage.content)
                if there != size * kind.itemsize:
                    raise ValueError(f"storage {key!r:.40} has {there:,} bytes, where it says {size} of {kind.dtype}")
        if (storage.kind, storage.size) != (kind, size):
            raise ValueError(f"it describes storage {key!r:.40} in two ways")
        if not views or views[0] is None:
            return storage
        _, start, size = views[0]
        if not _is_size(start) or not _is_size(size) or start + size > storage.size:
            raise ValueError(f"a view of storage {key!r:.40} reaches beyond it")
        return Storage(kind, size, storage, start)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks), of which the last two are left."""
        if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
            raise ValueError("it describes a tensor that cannot be")
        if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"it describes a tensor of {len(shape)} dimensions and {len(strides)} strides")
        if not all(map(_is_size, (offset, *shape, *strides))):
            raise ValueError("it describes a tensor whose offset, sizes or strides are none")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if 0 not in shape else -1
        if last >= storage.size:
            raise ValueError(f"a tensor of shape {shape!s:.80} reaches beyond its storage of {storage.size} elements")
        self.left -= math.prod(max(n, 1) for n in shape) * (storage.kind.itemsize << (storage.kind.dtype == "bfloat16"))
        if self.left < 0:
            raise ValueError("its tensors would take several times the memory of the file")
        return Tensor(storage, offset, shape, strides, self.byteorder)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not any(function is admitted for admitted in self.functions.values()) or type(arguments) is not tuple:
            raise pickle.UnpicklingError("it calls something that is no function")
        self.stack[-1] = function(*arguments)

    def load_build(self) -> None:
        """An OrderedDict's attributes, the `_metadata` of a state dict, which are left."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("it sets attributes")

    def load_setitem(self) -> None:
        items = [self.stack.pop(), self.stack.pop()]
        self._set(items[::-1])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        keys = items[::2]
        # of other keys a file could choose many that share one hash
        if type(self.stack[-1]) is not dict or not all(type(k) is str or _is_size(k, 1 << 31) for k in keys):
            raise pickle.UnpicklingError("it has a dict with keys that are neither text nor small numbers")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))


_METHODS: Methods = {code: METHODS[code] for code in CODES} | {
    pickle.REDUCE[0]: _Unpickler.load_reduce,
    pickle.BUILD[0]: _Unpickler.load_build,
    pickle.SETITEM[0]: _Unpickler.load_setitem,
    pickle.SETITEMS[0]: _Unpickler.load_setitems,
}


def _dict(items: Any = ()) -> dict[Any, Any]:
    """An OrderedDict or a Counter: of nothing, of a dict, or, as Python 2 wrote it, of a list of pairs."""
    if type(items) is dict:
        return items
    if any(type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str for pair in items):
        raise pickle.UnpicklingError("it has a dict with keys that are no text")
    return dict(items)


def _sizes(sizes: Any = ()) -> tuple[Any, ...]:
    return tuple(sizes)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise ValueError("it has a parameter that is no tensor")
    return tensor


def _is_size(value: Any, limit: int = 1 << 62) -> bool:
    return type(value) is int and 0 <= value < limit


def _read_zip(content: bytes) -> Any:
    """The format since PyTorch 1.6: an uncompressed zip archive with <name>/data.pkl and <name>/data/<storage key>."""
    import zipfile  # late, as this would make every import of minires slower

    records: dict[str, memoryview] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = sorted(file.infolist(), key=lambda entry: entry.header_offset)
    pickles = [entry.filename for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"it has {len(pickles)} files data.pkl")
    folder, end = pickles[0].removesuffix("data.pkl"), 0
    if any(entry.filename in (f"{folder}constants.pkl", f"{folder}code/") for entry in entries):
        raise pickle.UnpicklingError(
            "it is a TorchScript program; in PyTorch, save torch.jit.load(...).state_dict() by torch.save"
        )
    for entry in entries:
        name = entry.filename.removeprefix(folder)
        if entry.header_offset < end or name in records:
            raise ValueError(f"its entry {name!r:.60} overlaps or repeats another")
        start = _start(content, entry)
        end = start + entry.file_size
        records[name] = memoryview(content)[start:end]
        if zlib.crc32(records[name]) != entry.CRC:
            raise ValueError(f"its entry {name!r:.60} has changed since it was written")
    byteorder = bytes(records.get("byteorder", b"little")).decode()
    if byteorder not in ("little", "big"):
        raise ValueError(f"its byte order is {byteorder!r:.20}")
    data = io.BytesIO(records["data.pkl"])
    return _Unpickler(data, len(content), "<" if byteorder == "little" else ">", records).load()


def _start(content: bytes, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin, after a header of its own, which has to fit what the directory says."""
    if entry.compress_type != 0 or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
        raise ValueError(f"its entry {entry.filename!r:.60} is packed, as PyTorch never writes it")
    names = entry.header_offset + 30
    signature, name_size, extra_size = struct.unpack("<4s22xHH", content[names - 30 : names])
    if signature != b"PK\x03\x04" or content[names : names + name_size] != entry.orig_filename.encode():
        raise ValueError(f"its entry {entry.filename!r:.60} is not where its directory says")
    return names + name_size + extra_size


def _read_legacy(content: bytes) -> Any:
    """The format before PyTorch 1.6: pickles of a magic number, the protocol, the machine, the object and the storages'
    keys; then each storage, its size before its bytes.
    """
    file = io.BytesIO(content)
    unpickler = _Unpickler(file, len(content), "<", None)  # storages are little-endian, whoever wrote them
    load = unpickler.load
    if load() != MAGIC:
        raise pickle.UnpicklingError("it is a pickle, but none of torch.save")
    if load() != PROTOCOL or type(load()) is not dict:
        raise ValueError("its header is none of torch.save")
    result, keys = load(), load()
    if type(keys) is not list or any(type(k) is not str for k in keys) or sorted(keys) != sorted(unpickler.storages):
        raise ValueError("its storages are not those that its tensors name")
    for key in keys:
        storage, start = unpickler.storages[key], file.tell() + 8
        if file.read(8) != struct.pack("<q", storage.size):
            raise ValueError(f"storage {key!r:.40} is not where it should be, or of another size")
        storage.content = memoryview(content)[start : start + storage.size * storage.kind.itemsize]
        if len(storage.content) != storage.size * storage.kind.itemsize:
            raise ValueError(f"it ends within storage {key!r:.40}")
        file.seek(start + len(storage.content))
    return result
