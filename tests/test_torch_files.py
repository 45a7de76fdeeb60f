"""PyTorch's formats without PyTorch: what torch.save writes is read, and torch.load reads what is written."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from minires import torch_reader, torch_writer
from minires.errors import DTypeError
from tests.oracle import torch

FORMATS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy, protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}
each_format = pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)


def saved(obj, **options) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file, **options)
    return file.getvalue()


def same(ours: np.ndarray, theirs) -> bool:
    """Equal bit for bit; of bfloat16, equal to its float32."""
    expected = (theirs.float() if theirs.dtype == torch.bfloat16 else theirs).detach().numpy()
    return (ours.dtype, ours.shape, ours.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def odd_tensors() -> dict:
    base = torch.arange(120.0).reshape(4, 5, 6) / 7
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return {
        **{kind: (base * 3).to(getattr(torch, kind)) for kind in kinds},
        "transposed": base.permute(2, 0, 1),
        "part": base[1:3, ::2, 2:],
        "expanded": base[0, 0, :3, None].expand(3, 4),
        "0-d": torch.tensor(7),
        "0-d bfloat16": torch.tensor(0.1).bfloat16(),
        "empty": torch.zeros(0, 3),
        "empty part": base[4:],
        "parameter": torch.nn.Parameter(base[0]),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "named 고": base[3, 4],
    }


@each_format
def test_what_torch_saves_is_read(options):
    tensors = odd_tensors()
    content = saved({"state_dict": tensors, "epoch": 3, "acc": 91.5, "args": [1, (None, True)]}, **options)
    found = torch_reader.read(content)
    assert (found["epoch"], found["acc"], found["args"]) == (3, 91.5, [1, (None, True)])
    assert found["state_dict"].keys() == tensors.keys()
    for name, theirs in tensors.items():
        ours = found["state_dict"][name].array()
        assert same(ours, theirs), name


@each_format
def test_a_training_checkpoint_is_read(options):
    """With what optimizers and schedules put there: numbers as keys, a Counter, an OrderedDict with attributes."""
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 4])
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    found = torch_reader.read(saved(parts, **options))
    assert list(found["model"]) == list(parts["model"])
    assert all(same(t.array(), parts["model"][name]) for name, t in found["model"].items())
    assert same(found["optimizer"]["state"][1]["exp_avg"].array(), parts["optimizer"]["state"][1]["exp_avg"])
    assert found["schedule"]["milestones"] == {3: 2, 4: 1}


@each_format
def test_many_small_tensors_are_within_the_limits(options):
    tensors = {str(i): torch.tensor(i % 100, dtype=torch.int8) for i in range(1500)}
    found = torch_reader.read(saved(tensors, **options))
    assert [found[str(i)].array().item() for i in range(1500)] == [t.item() for t in tensors.values()]


@each_format
def test_shared_storages(options):
    base = torch.arange(6.0)
    found = torch_reader.read(saved({"a": base, "b": base, "c": base[2:5]}, **options))
    assert [found[name].array().tolist() for name in "abc"] == [base.tolist(), base.tolist(), [2, 3, 4]]


@each_format
def test_tensors_that_take_no_memory(options):
    """Tied weights, views, expanded numbers of a small file, and nothing at all, of any width."""
    tied = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    tensors = {f"{i}": tied for i in range(30)} | {f"half {i}": tied.bfloat16() for i in range(2)}
    tensors |= {"half again": tensors["half 0"].t(), "nothing": torch.zeros(0, 4096)}
    found = torch_reader.read(saved(tensors, **options))
    assert all(same(found[name].array(), theirs) for name, theirs in tensors.items())
    assert np.shares_memory(found["half 0"].array(), found["half again"].array())
    few = torch_reader.read(saved({"x": torch.ones(1).expand(1000)}, **options))
    assert few["x"].array().tolist() == [1] * 1000


def test_many_views_of_one_storage():
    found = torch_reader.read(saved(list(torch.arange(30_000)), **FORMATS["legacy"]))
    assert [tensor.array().item() for tensor in found] == list(range(30_000))


ODD_KINDS = {
    **{kind: lambda base, kind=kind: base.to(getattr(torch, kind)) for kind in ("complex64", "uint16", "float8_e5m2")},
    "sparse": lambda base: base.to_sparse(),
    "quantised": lambda base: torch.quantize_per_tensor(base, 0.1, 0, torch.qint8),
    "meta": lambda base: base.to("meta"),
}


@each_format
@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.filterwarnings("ignore")
def test_kinds_of_tensors_that_are_not_read(kind, options):
    content = saved({"x": ODD_KINDS[kind](torch.ones(2, 3))}, **options)
    with pytest.raises(pickle.UnpicklingError, match=r"asks for torch.*only dense ones of float, int, bool are read"):
        torch_reader.read(content)


@each_format
def test_signs_that_are_put_off_are_refused(options):
    """The file has the numbers as they were, and a mark that all signs are to be changed."""
    imaginary = torch.complex(torch.ones(3), torch.ones(3)).conj().imag
    with pytest.raises(pickle.UnpicklingError, match=r"marked neg, whose numbers are not its values; .*resolve_neg"):
        torch_reader.read(saved({"x": imaginary}, **options))


@each_format
def test_plain_things_beside_the_tensors(options):
    kept = {"dtype": torch.float32, "device": torch.device("cuda:0"), "keys": {-1: 1, None: 2}}
    found = torch_reader.read(saved({"x": torch.ones(1), **kept}, **options))
    assert {name: found[name] for name in kept} == {**kept, "dtype": "torch.float32", "device": "torch.device"}


def test_views_of_a_legacy_storage():
    """Files of before PyTorch 0.4 name a part of a storage, (key, start, size), as the sixth of the storage's names."""
    content = saved({"x": torch.arange(6.0)[2:5]}, **FORMATS["legacy"])
    whole = b"K\x06Nt"  # of 6 elements; no view
    assert content.count(whole) == 1
    viewed = content.replace(whole, b"K\x06(X\x01\x00\x00\x00vK\x01K\x05tt")  # ("v", 1, 5)
    assert torch_reader.read(viewed)["x"].array().tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match=r"a view of storage .* reaches beyond it"):
        torch_reader.read(content.replace(whole, b"K\x06(X\x01\x00\x00\x00vK\x02K\x05tt"))


def test_the_other_byte_order():
    values = np.array([[1.5, -2], [3, 4]], np.float32)
    content = torch_writer.to_bytes({"x": values.byteswap()})
    assert torch_reader.read(content)["x"].array().tolist() != values.tolist()
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"big" if name.endswith("byteorder") else source.read(name))
    x = torch_reader.read(file.getvalue())["x"].array()
    assert (x.tolist(), x.dtype.isnative) == (values.tolist(), True)


ARRAYS = {
    "square": np.arange(81, dtype=np.float32).reshape(3, 3, 3, 3),
    "0-d": np.array(3),
    "bool": np.array([True, False]),
    "float16": np.array([1, np.nan], np.float16),
    "float64": np.arange(5.0)[::-2],
    "empty": np.zeros((0, 3), np.int16),
    "transposed": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
    "big-endian": np.arange(3, dtype=">i4"),
    "broadcast": np.broadcast_to(np.float32(2), (2, 3)),
    "named 고": np.ones(1, np.int8),
}


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_what_is_written(tmp_path, mapped):
    (tmp_path / "x.pth").write_bytes(torch_writer.to_bytes(ARRAYS))
    found = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mapped)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert same(native, found[name]), name
        assert found[name].data_ptr() % 64 == 0 or not mapped, name


def test_what_is_written_is_read_and_depends_on_the_arrays_alone():
    content = torch_writer.to_bytes(ARRAYS)
    assert content == torch_writer.to_bytes({name: array.copy() for name, array in ARRAYS.items()})
    for name, tensor in torch_reader.read(content).items():
        np.testing.assert_array_equal(tensor.array(), ARRAYS[name], strict=ARRAYS[name].dtype.isnative)


def test_types_that_torch_lacks_are_named():
    with pytest.raises(DTypeError, match=r"'x' is complex64, which a PyTorch file cannot hold"):
        torch_writer.to_bytes({"x": np.ones(2, np.complex64)})


def test_a_published_file():
    """ResNet-20 as trained on CIFAR-10 by Y. Idelbayev, of 2018 and in the legacy format."""
    path = Path(os.environ.get("MINIRES_WEIGHTS", "/nowhere")) / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip("resnet20-12fca82f.th needed in the folder MINIRES_WEIGHTS")
    found, theirs = torch_reader.read(path.read_bytes()), torch.load(path, "cpu", weights_only=True)
    assert found.keys() == theirs.keys() == {"state_dict", "best_prec1"}
    assert found["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(same(found["state_dict"][name].array(), tensor) for name, tensor in theirs["state_dict"].items())
