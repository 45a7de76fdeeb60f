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
from .pickles import RestrictedUnpickler

if TYPE_CHECKING:
    import zipfile

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how a legacy file begins
LARGEST_RATIO, ALWAYS = 4, 1 << 20  # of the bytes of expanded tensors to the file's, and bytes that any may have
MOST_DIMENSIONS = 64  # NumPy's
DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
TENSORS = ("torch", "torch._utils", "torch._tensor", "torch.storage", "torch.serialization")  # what makes tensors
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
    made: np.ndarray | None = None

    def numbers(self, byteorder: Literal["<", ">"]) -> np.ndarray:
        """All of them, in native byte order, bfloat16 widened to float32: read-only, and made once for all tensors."""
        if self.root is not None:
            return self.root.numbers(byteorder)[self.start :]
        if self.content is None:
            raise ValueError("a tensor's storage is missing")
        if self.made is None:
            is_bfloat16 = self.kind.dtype == "bfloat16"
            dtype = np.dtype("u2" if is_bfloat16 else self.kind.dtype).newbyteorder(byteorder)
            array = np.frombuffer(self.content, dtype)
            native = array.astype(array.dtype.newbyteorder("="), copy=False)
            self.made = from_bfloat16(native) if is_bfloat16 else native
            self.made.flags.writeable = False
        return self.made


@dataclass(eq=False)
class Tensor:
    """A tensor as the file describes it; its array is made when it is asked for. Strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    byteorder: Literal["<", ">"]

    def array(self) -> np.ndarray:
        """A read-only view of the storage's numbers, which takes no memory."""
        numbers = self.storage.numbers(self.byteorder)
        strides = tuple(step * numbers.itemsize for step in self.strides)
        if 0 in self.shape:
            return np.empty(self.shape, numbers.dtype)
        return np.ndarray(self.shape, numbers.dtype, numbers, self.offset * numbers.itemsize, strides)


def read(content: bytes) -> Any:
    """The object that a file holds, with a Tensor for each tensor; what is wrong with the file can raise any exception.

    pickle.UnpicklingError says what it asks for that is refused.
    """
    if content[:2] == b"PK":
        return _read_zip(content)
    return _read_legacy(content)


class _Unpickler(RestrictedUnpickler):
    """Makes Storages, Tensors, lists, tuples, text, numbers, and dicts whose keys are text, small numbers or None."""

    def __init__(
        self,
        file: io.BytesIO,
        size: int,
        byteorder: Literal["<", ">"],
        records: Mapping[str, memoryview] | None,
    ) -> None:
        functions = {
            ("collections", "OrderedDict"): self._dict,
            ("collections", "Counter"): self._dict,  # which MultiStepLR counts its milestones with
            ("torch", "Size"): _sizes,
            ("torch", "device"): _device,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        kinds = {("torch", name): StorageType(dtype) for name, dtype in STORAGES.items()}
        names = {("torch", name): f"torch.{name}" for name in DTYPES}
        reader = "no tensor needs, and nothing else is read; in PyTorch, save the model's state_dict() alone"
        # A tensor of one number takes some 33 steps and 80 bytes of a file; large files have larger tensors.
        steps = 1000 + min(size, 1 << 22) // 2 + size // 32
        super().__init__(file, functions | kinds | names, steps, "utf-8", reader)
        self.left, self.byteorder, self.records = LARGEST_RATIO * size + ALWAYS, byteorder, records
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

    def find_class(self, module: str, name: str) -> Any:
        if module in TENSORS and (module, name) not in self.admitted:
            raise pickle.UnpicklingError(
                f"it asks for {f'{module}.{name}'[:99]}, and of tensors only dense ones of float, int, bool are read; "
                "in PyTorch, convert the others, and save the state_dict() alone"
            )
        return super().find_class(module, name)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *others: Any) -> Tensor:
        """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata).

        The metadata may say that signs are yet to be changed, {"neg": True}, which is refused.
        """
        if any(others[2:]):
            marks = ", ".join(mark for mark in others[2] if type(mark) is str) if type(others[2]) is dict else "oddly"
            raise pickle.UnpicklingError(
                f"it has a tensor marked {marks:.60}, whose numbers are not its values; in PyTorch, save its "
                "resolve_conj().resolve_neg()"
            )
        if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
            raise ValueError("it describes a tensor that cannot be")
        if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            raise ValueError(f"it describes a tensor of {len(shape)} dimensions and {len(strides)} strides")
        if not all(map(_is_size, (offset, *shape, *strides))):
            raise ValueError("it describes a tensor whose offset, sizes or strides are none")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if 0 not in shape else -1
        if last >= storage.size:
            raise ValueError(f"a tensor of shape {shape!s:.80} reaches beyond its storage of {storage.size} elements")
        count = math.prod(shape)
        if count > storage.size:  # others take no memory: they are views of what is in the file
            self.left -= count * storage.kind.itemsize
        if self.left < 0 or math.prod(max(n, 1) for n in shape) >= 1 << 56:
            raise ValueError("its expanded tensors would take several times the memory of the file")
        return Tensor(storage, offset, shape, strides, self.byteorder)

    def _dict(self, items: Any = ()) -> dict[Any, Any]:
        """An OrderedDict or a Counter: of nothing, of a dict, or, as Python 2 wrote it, of a list of pairs."""
        if type(items) is dict:
            return items
        self.steps.take(len(items))
        if any(type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str for pair in items):
            raise pickle.UnpicklingError("it has a dict with keys that are no text")
        return dict(items)

    def load_build(self) -> None:
        """An OrderedDict's attributes, the `_metadata` of a state dict, which are left."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("it sets attributes")


def _sizes(sizes: Any = ()) -> tuple[Any, ...]:
    if type(sizes) not in (tuple, list) or len(sizes) > MOST_DIMENSIONS:
        raise ValueError("it describes sizes that cannot be")
    return tuple(sizes)


def _device(*_: Any) -> str:
    return "torch.device"


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
