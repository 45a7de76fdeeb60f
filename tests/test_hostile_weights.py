"""Hostile and damaged weight files: each gives one clear error, runs nothing and takes little memory.

The files are made by hand, without PyTorch: pickles of codes, zip archives, safetensors and npz.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minires import checkpoint, nn, torch_writer, weights
from minires.errors import CheckpointError
from minires.torch_reader import MAGIC

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
SMALL = {name: value.numpy() for name, value in MODEL.state_dict("OIHW").items()}


class Call:
    """Pickles as a call of `function`, which would leave a trace in the working directory."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def archive(pickled: bytes, records: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A PyTorch file of a pickle and storages."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in {"data.pkl": pickled, **(records or {"data/0": bytes(16)})}.items():
            target.writestr(f"x/{name}", content)
    return file.getvalue()


def legacy(pickled: bytes, keys: list[str] | None = None, storages: bytes = b"") -> bytes:
    head = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})]
    return b"".join([*head, pickled, pickle.dumps(keys or [], 2), storages])


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    digits = pickle.encode_long(value)
    return b"\x8a" + bytes([len(digits)]) + digits


def storage(kind="FloatStorage", key="0", size=4) -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(size) + b"tQ"


def tensor(shape=(4,), strides=(1,), offset=0, source=None) -> bytes:
    """A pickled dict of one tensor, x."""
    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    arguments = b"(" + (source or storage()) + number(offset) + numbers[0] + numbers[1] + b"\x89}t"
    return b"\x80\x02}" + text("x") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def zipped(edit) -> bytes:
    """A small file of ours, with its archive rebuilt by edit(target, entries, contents)."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_writer.to_bytes(SMALL))) as source, zipfile.ZipFile(file, "w") as target:
        edit(target, {name: source.read(name) for name in source.namelist()})
    return file.getvalue()


def twice(target: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        target.writestr(name, content)
    with pytest.warns(UserWarning, match="Duplicate name"):
        target.writestr("archive/data/0", contents["archive/data/0"])


def two_pickles(target: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        target.writestr(name, content)
    target.writestr("other/data.pkl", contents["archive/data.pkl"])


def overlapping(target: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    """Fifty entries of the directory that share one megabyte."""
    target.writestr("x/data.pkl", tensor())
    target.writestr("x/data/0", bytes(1 << 20))
    first = target.infolist()[1]
    for number in range(1, 50):
        entry = zipfile.ZipInfo(f"x/data/{number}")
        entry.header_offset, entry.CRC = first.header_offset, first.CRC
        entry.file_size = entry.compress_size = first.file_size
        target.filelist.append(entry)


def program(target: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
        target.writestr(f"net/{name}", contents["archive/data.pkl"])


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(f"{name}.npy", content)
    return file.getvalue()


def objects() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.array([Call(os.system, "touch executed")]))
    return file.getvalue()


def safetensors(header: object, content: bytes = bytes(16), size: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if size is None else size) + encoded + content


def laughs() -> bytes:
    """A tensor whose sizes are tuples of tuples of tuples ..., which take little memory, but whose text takes any."""
    levels = b"".join(text(str(i)) + b"(" + b"h\x01" * 9 + b"tq\x01s" for i in range(40))
    shape_and_strides = b"h\x01h\x01"
    arguments = b"(" + storage() + b"K\0" + shape_and_strides + b"\x89}t"
    first = b"\x80\x02}" + text("first") + b"(K\x01tq\x01s"
    return first + levels + text("x") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def called(function: str, arguments: bytes) -> bytes:
    """A list of what 300 calls make of the same arguments."""
    module, _, name = function.rpartition(".")
    first = f"c{module}\n{name}\n".encode() + b"q\x02(" + arguments + b"tq\x01R"
    return archive(b"\x80\x02](" + first + b"h\x02h\x01R" * 300 + b"e.", {"data/0": bytes(300_000)})


def array_of(count: int) -> bytes:
    """The start of an npy file that promises so many float32 numbers."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},)}}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header


EVIL = "touch executed"
F4 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
BUILT = (
    b"\x80\x02ctorch._utils\n_rebuild_parameter\n(N}" + text("__defaults__") + b")stb."
)  # sets a function's defaults
HOSTILE = {
    # code that would run
    "os.system": (archive(pickle.dumps(Call(os.system, EVIL), 2)), r"is refused: it asks for \w+\.system, which"),
    "os.system, legacy": (legacy(pickle.dumps(Call(os.system, EVIL), 2)), r"is refused: it asks for \w+\.system"),
    "os.system, first of all": (pickle.dumps(Call(os.system, EVIL), 2), r"is refused: it asks for \w+\.system"),
    "os.system in a state dict": (archive(pickle.dumps({"x": Call(os.system, EVIL)}, 4)), r"asks for \w+\.system"),
    "eval": (archive(pickle.dumps(Call(eval, "open('executed', 'w')"), 2)), r"asks for __builtin__\.eval"),
    "pickle in a storage": (archive(b"\x80\x02ctorch.storage\n_load_from_bytes\n."), r"storage\._load_from_bytes"),
    "getattr": (archive(b"\x80\x02c__builtin__\ngetattr\n."), r"asks for __builtin__\.getattr"),
    "a dotted name": (archive(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93."), "OrderedDict.fromkeys"),
    "a module": (archive(b"\x80\x02ctorch.nn.modules.linear\nLinear\n."), r"no tensor needs.*state_dict\(\)"),
    "a call of a number": (archive(b"\x80\x02K\x01)R."), "is refused: it calls something that is no function"),
    "a call of a storage": (archive(b"\x80\x02ctorch\nFloatStorage\n)R."), "calls something that is no function"),
    "a function's attributes": (archive(BUILT), "is refused: it sets attributes"),
    "an instance": (archive(b"\x80\x02(ios\nsystem\n."), "is refused: it has the pickle code 0x69"),
    "an extension": (archive(b"\x80\x02\x82\x01."), "is refused: it has the pickle code 0x82"),
    "another reference": (archive(b"\x80\x02" + text("module") + b"Q."), "refers to something other than"),
    "another tuple": (
        archive(tensor(source=storage().replace(text("storage"), text("module")))), "refers to something other than",
    ),
    "objects in npz": (objects(), "holds object, not numbers"),
    # memory that would be taken
    "steps": (archive(b"\x80\x02" + b"}" * 300_000 + b"."), "more steps to read than a file of its size"),
    "marks": (archive(b"\x80\x02" + b"(" * 300_000 + b"."), "more steps to read than a file of its size"),
    "a long text as sizes, often": (called("torch.Size", text("a" * 60_000)), "sizes that cannot be"),
    "one large dict, often": (
        called("collections.OrderedDict", b"](" + b"".join(b"](" + text(str(i)) + b"Ne" for i in range(3000)) + b"e"),
        "more steps to read",
    ),
    "many arguments, often": (called("torch._utils._rebuild_parameter", b"N" * 30_000), "more than 8 arguments"),
    "marks that explode": (archive(tensor().replace(b"\x89}t", b"\x89}}" + text("neg") + b"Nst")), "tensor marked neg"),
    "memo": (archive(b"\x80\x02}r\xff\xff\xff\xff."), "holds no tensors"),
    "text of 4 GB": (archive(b"\x80\x02X\xff\xff\xff\xffx."), "is damaged"),
    "a frame of 2^62 bytes": (archive(b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"."), "is damaged"),
    "an expanded number": (archive(tensor((1 << 20, 1 << 20), (0, 0))), "several times the memory of the file"),
    "many expanded numbers": (archive(tensor((4,) * 12, (0,) * 12)), "several times the memory of the file"),
    "nothing, of 2^60 rows": (archive(tensor((1 << 60, 0), (1, 1))), "several times the memory of the file"),
    "a huge storage": (archive(tensor(source=storage(size=1 << 40))), "has 16 bytes, where it says 1099511627776"),
    "a huge storage, legacy": (
        legacy(tensor(source=storage(size=1 << 40)), ["0"], struct.pack("<q", 1 << 40)), "ends within storage '0'",
    ),
    "packed zeros": (archive(tensor(), {"data/0": bytes(60 << 20)}, zipfile.ZIP_DEFLATED), "is packed"),
    "entries that overlap": (zipped(overlapping), "overlaps or repeats another"),
    "packed zeros in npz": (npz(x=array_of(16 << 20) + bytes(64 << 20)), "would unpack to"),
    "4 TiB in npz": (npz(x=array_of(1 << 40) + bytes(16)), "which are no"),
    "a header of 2^40 bytes": (safetensors({"x": F4}, size=1 << 40), "is damaged or no safetensors"),
    "sizes whose text explodes": (archive(laughs()), "whose offset, sizes or strides are none"),
    "a state dict in itself": (archive(b"\x80\x02}q\x00" + text("model") + b"h\x00s."), "holds a 'model', and so on"),
    "100,000 tuples in each other": (
        archive(b"\x80\x02K\x01" + b"\x85" * 100_000 + b".", {"x": bytes(200_000)}), "holds a tuple",
    ),
    "keys of one hash": (archive(b"\x80\x02}" + number((1 << 61) - 1) + b"Ns."), "keys that are neither text"),
    # geometry that cannot be
    "beyond the storage": (archive(tensor((5,))), r"shape \(5,\) reaches beyond its storage of 4"),
    "beyond, by its offset": (archive(tensor(offset=1)), "reaches beyond its storage"),
    "beyond, by its strides": (archive(tensor((2,), (4,))), "reaches beyond its storage"),
    "a negative offset": (archive(tensor((1,), offset=-1)), "whose offset, sizes or strides are none"),
    "a negative stride": (archive(tensor((2,), (-1,), 1)), "whose offset, sizes or strides are none"),
    "a negative size": (archive(tensor((-4,))), "whose offset, sizes or strides are none"),
    "a stride too few": (archive(tensor((2, 2), (1,))), "2 dimensions and 1 strides"),
    "100 dimensions": (archive(tensor((1,) * 100, (1,) * 100)), "100 dimensions"),
    "no such storage": (archive(tensor(source=storage(key="7"))), "data/7"),
    "a storage in two types": (archive(b"\x80\x02(" + storage() + storage("IntStorage") + b"t."), "'0' in two ways"),
    # what is something else
    "nothing": (b"", "is no PyTorch, safetensors or npz file"),
    "text": (b"hello, world" * 99, "is no PyTorch, safetensors or npz file"),
    "a tar archive": (bytes(257) + b"ustar" + bytes(250), "of before 2017: save it again"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(600), "is no PyTorch"),
    "wrong magic": (legacy(tensor()).replace(pickle.dumps(MAGIC, 2), pickle.dumps(MAGIC + 1, 2)), "none of torch.save"),
    "wrong protocol": (legacy(tensor()).replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)), "header is none of"),
    "a storage of another size": (
        legacy(tensor(), ["0"], struct.pack("<q", 3) + bytes(16)), "'0' is not where it should be, or of another size",
    ),
    "keys that nobody named": (legacy(tensor(), ["0", "1"], bytes(48)), "are not those that its tensors name"),
    "a pickled array": (pickle.dumps({"x": np.ones(2)}, 4), r"asks for numpy\..*_reconstruct"),
    "a list": (archive(pickle.dumps([1, 2], 2)), "holds a list, no state dict"),
    "a dict without tensors": (archive(pickle.dumps({"epoch": 3}, 2)), "holds no tensors, .*; it has 'epoch'"),
    "an odd byte order": (archive(tensor(), {"data/0": bytes(16), "byteorder": b"middle"}), "byte order is 'middle'"),
    "a name that is no text": (archive(tensor().replace(b"X\x01\0\0\0x", b"X\x03\0\0\0\xed\xa0\x80")), "is damaged"),
    "a name twice": (zipped(twice), "overlaps or repeats another"),
    "an entry of two names": (archive(tensor()).replace(b"x/data/0", b"x/data/1", 1), "not where its directory says"),
    "two pickles": (zipped(two_pickles), "it has 2 files data.pkl"),
    "a program": (zipped(program), r"TorchScript program; .*state_dict\(\)"),
    "an empty zip archive": (npz(), "is damaged"),
    "what is no array in npz": (npz(x=array_of(4) + bytes(16)).replace(b"x.npy", b"x.txt"), "is damaged|no array"),
    "an array beyond the file": (safetensors({"x": F4 | {"shape": [5], "data_offsets": [0, 20]}}), "is damaged or no"),
    "a header that is none": (safetensors(b"{" * 100_000), "is damaged or no"),
    "a type that NumPy lacks": (
        safetensors({"x": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}), "array of F8_E4M3, which",
    ),
    "no arrays": (safetensors({}, b""), "holds no tensors"),
}  # fmt: skip


def error_of(path: Path, content: bytes) -> str:
    """What reading tells: one line that names the file, and nothing else happens."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            weights.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    told = str(caught.value)
    assert str(path) in told
    assert "\n" not in told
    assert len(told) < 400 + len(str(path))
    assert peak < 50e6
    assert not Path("executed").exists()
    return told.replace(str(path), "x")


@pytest.mark.parametrize(("content", "told"), HOSTILE.values(), ids=HOSTILE)
def test_hostile(tmp_path, monkeypatch, content, told):
    monkeypatch.chdir(tmp_path)
    assert re.search(told, error_of(tmp_path / "x.pth", content))


def test_the_same_parts_make_good_files(tmp_path):
    """Else the hostile ones might be refused for a slip in how they are made."""
    for content in (archive(tensor()), legacy(tensor(), ["0"], struct.pack("<q", 4) + bytes(16))):
        (tmp_path / "x").write_bytes(content)
        assert weights.read(tmp_path / "x").tensors["x"].tolist() == [0] * 4
    (tmp_path / "x").write_bytes(safetensors({"x": F4}))
    assert weights.read(tmp_path / "x").tensors["x"].tolist() == [0] * 4
    (tmp_path / "x").write_bytes(npz(x=array_of(4) + bytes(16)))
    assert weights.read(tmp_path / "x").tensors["x"].tolist() == [0] * 4
    for values in (b"(N}t", b"(NNt"):  # of a dict, BUILD is admitted, and goes nowhere
        content = tensor().replace(b"\x80\x02}", b"\x80\x02}" + values + b"b")
        (tmp_path / "x").write_bytes(archive(content))
        assert list(weights.read(tmp_path / "x").tensors) == ["x"]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, bytes]:
    """A small file of each format."""
    folder = tmp_path_factory.mktemp("good")
    for suffix in (".pth", ".safetensors", ".npz"):
        weights.write(folder / f"small{suffix}", SMALL)
    checkpoint.save(folder / "small.checkpoint", MODEL)
    content = legacy(tensor((2, 2), (2, 1)), ["0"], struct.pack("<q", 4) + np.arange(4, dtype="<f4").tobytes())
    return {path.suffix: path.read_bytes() for path in folder.iterdir()} | {".legacy": content}


FORMATS = (".pth", ".legacy", ".safetensors", ".npz", ".checkpoint")


@pytest.mark.parametrize("suffix", FORMATS)
def test_truncated(tmp_path, good, suffix):
    content = good[suffix]
    for length in {*range(0, len(content), len(content) // 10 + 1), 1, 8, 9, 300, len(content) - 1}:
        if length < len(content):
            error_of(tmp_path / "x", content[:length])


def read_bits(path: Path, content: bytes) -> dict | None:
    """The tensors' bits, or None where a CheckpointError says what is wrong; any other error is the test's."""
    path.write_bytes(content)
    try:
        found = weights.read(path, None)
    except CheckpointError as error:
        return None if str(path) in str(error) else {"not named": error}
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in found.tensors.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".checkpoint"])
def test_no_flipped_bit_goes_unnoticed(tmp_path, good, rng, suffix):
    content = good[suffix]
    whole, noticed = read_bits(tmp_path / "x", content), 0
    assert whole
    for flip in rng.choice(8 * len(content), 400, replace=False).tolist():
        damaged = bytearray(content)
        damaged[flip // 8] ^= 1 << flip % 8
        found = read_bits(tmp_path / "x", damaged)
        assert found in (None, whole), flip
        noticed += found is None
    assert noticed > 200


def mutants(content: bytes, count: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Copies with bits flipped, and bytes cut out, doubled or moved."""
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 3)):
            a, b, c = sorted(rng.integers(0, len(damaged), 3).tolist())
            match rng.integers(6):
                case 1:
                    damaged[a:a] = damaged[b : b + 20]
                case 2:
                    del damaged[a : a + int(rng.integers(1, 20))]
                case 3:
                    damaged[a:b], damaged[b:c] = damaged[b:c], damaged[a:b]
                case _:
                    damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        yield bytes(damaged)


def rebuilt(content: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """The archive of .pth with valid checksums around a mutated pickle: what a forger would write."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        records = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    pickled = records.pop("data.pkl")
    for mutant in mutants(pickled, 1_000_000, rng):
        yield archive(mutant, records)


def fuzz(folder: Path, content: bytes, count: int, rng: np.random.Generator) -> None:
    for _, mutant in zip(range(count), mutants(content, count, rng), strict=False):
        read_bits(folder / "x", mutant)


@pytest.mark.parametrize("suffix", FORMATS)
def test_mutants_give_a_result_or_the_error(tmp_path, good, rng, suffix):
    fuzz(tmp_path, good[suffix], 200, rng)


def test_forged_pickles_give_a_result_or_the_error(tmp_path, good, rng):
    found = [read_bits(tmp_path / "x", c) for _, c in zip(range(400), rebuilt(good[".pth"], rng), strict=False)]
    assert 10 < len(found) - found.count(None) < 200


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_many_mutants(tmp_path, good, suffix):
    rng = np.random.default_rng(1)
    fuzz(tmp_path, good[suffix], 20_000, rng)
    if suffix == ".pth":
        for _, content in zip(range(20_000), rebuilt(good[suffix], rng), strict=False):
            read_bits(tmp_path / "x", content)


def test_wrong_shapes_are_refused_before_anything_is_loaded(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    for name, shape in {"0.weight": (3, 4, 3, 3), "0.bias": (5,), "1.running_var": (2, 2)}.items():
        weights.write(tmp_path / "x.pth", SMALL | {name: np.zeros(shape, np.float32)})
        with pytest.raises(CheckpointError, match=f"x.pth: .*1 mismatch.*'{name}' has shape"):
            weights.load(tmp_path / "x.pth", model)
    assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == before
