"""Weights go from torchvision to minires and back bit for bit, through every format, and under others' names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from minires import Tensor, checkpoint, cli, data, models, nn, no_grad, optim, weights
from minires.errors import ArgumentError, CheckpointError, DTypeError
from tests.oracle import nchw, torch, torchvision

SUFFIXES = (".pth", ".safetensors", ".npz")


def net(seed: int = 0) -> nn.Module:
    """A small one with what there is to confuse: square weights, 3x3x3x3 ones, a flattened map."""
    generator = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1, generator=generator),
        nn.BatchNorm2d(3),
        nn.ConvTranspose2d(3, 4, 3, generator=generator),
        nn.Flatten(),
        nn.Linear(4 * 6 * 5, 6, image_size=(6, 5), generator=generator),
        nn.Linear(6, 6, generator=generator),
    )


def torch_net() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 3, padding=1),
        torch.nn.BatchNorm2d(3),
        torch.nn.ConvTranspose2d(3, 4, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 6 * 5, 6),
        torch.nn.Linear(6, 6),
    )


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Random statistics and affine parameters for batch norm, whose first values would hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.fill_(7)
            elif value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return model.eval()


def bits(arrays) -> dict:
    found = {name: np.asarray(a.data if isinstance(a, Tensor) else a) for name, a in arrays.items()}
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in found.items()}


def logits(ours: nn.Module, theirs: torch.nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with no_grad(), torch.no_grad():
        return ours.eval()(Tensor(images)).data, theirs(nchw(images)).numpy()


def test_torchvisions_resnet50_and_back(tmp_path, rng):
    theirs = randomise(torchvision().models.resnet50(weights=None))
    expected = bits(theirs.state_dict())
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = models.build("resnet50")
    assert weights.load(tmp_path / "theirs.pth", ours) == ([], [])
    for suffix in SUFFIXES:
        weights.save(tmp_path / f"ours{suffix}", ours)
        assert bits(weights.read(tmp_path / f"ours{suffix}").tensors) == expected
    back = torch.load(tmp_path / "ours.pth", weights_only=True)
    with torch.no_grad():
        for value in theirs.state_dict().values():
            value.zero_()
    theirs.load_state_dict(back)
    assert bits(theirs.state_dict()) == expected
    got, logits_of_theirs = logits(ours, theirs, rng.standard_normal((1, 64, 64, 3), np.float32))
    assert abs(got - logits_of_theirs).max() <= 5e-6 * abs(logits_of_theirs).max()


@pytest.mark.parametrize("suffix", [*SUFFIXES, "checkpoint"])
def test_square_weights_and_flattened_maps_keep_their_order(tmp_path, rng, suffix):
    theirs = randomise(torch_net())
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    ours = net()
    weights.load(tmp_path / "theirs.pt", ours)
    images = rng.standard_normal((2, 4, 3, 3), np.float32)
    np.testing.assert_allclose(*logits(ours, theirs, images), rtol=0, atol=1e-5)
    path = tmp_path / f"ours{suffix}"
    checkpoint.save(path, ours) if suffix == "checkpoint" else weights.save(path, ours)
    other = net(seed=1)
    weights.load(path, other)
    assert bits(other.state_dict()) == bits(ours.state_dict())
    weights.convert(path, tmp_path / "back.pth")
    assert bits(torch.load(tmp_path / "back.pth", weights_only=True)) == bits(theirs.state_dict())


def test_a_checkpoint_gives_its_model_alone(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(np.ones((1, 2), np.float32)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "last", model, optimizer, info={"epoch": 3})
    found = weights.read(tmp_path / "last")
    assert found.tensors.keys() == {"0.weight", "0.bias"}
    assert (found.format, found.left) == ("checkpoint of minires", ["optimizer", "info", "param_groups"])


ODD = {
    "conv": np.arange(24.0, dtype=np.float32).reshape(2, 3, 2, 2).transpose(1, 0, 3, 2),
    "square": np.asfortranarray(np.arange(9.0).reshape(3, 3)),
    "stepped": np.arange(9)[::-2],
    "broadcast": np.broadcast_to(np.float16(2), (2, 3)),
    "0-d": np.array(7),
    "empty": np.zeros((0, 4), np.float32),
    "bool": np.array([[True], [False]]),
}


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_odd_arrays_through_two_formats(tmp_path, first, second):
    weights.write(tmp_path / f"a{first}", ODD)
    weights.convert(tmp_path / f"a{first}", tmp_path / f"b{second}")
    assert bits(weights.read(tmp_path / f"b{second}").tensors) == bits(ODD)


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_equal_tensors_make_equal_files(tmp_path, suffix):
    for name in "ab":
        weights.save(tmp_path / f"{name}{suffix}", net())
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert len(os.listdir(tmp_path)) == 2


def test_other_tools_read_what_is_written(tmp_path):
    weights.save(tmp_path / "x.safetensors", net())
    weights.save(tmp_path / "x.npz", net())
    expected = bits(net().state_dict("OIHW"))
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"
        assert bits({name: file.get_tensor(name) for name in file.keys()}) == expected  # noqa: SIM118
    with np.load(tmp_path / "x.npz") as file:
        assert bits(file) == expected


def weiaicunzais(name: str) -> str:
    """conv2_x.0.residual_function.3.weight for layer1.0.conv2.weight, say."""
    names = {"conv1": "conv1.0", "bn1": "conv1.1"} | {f"layer{i}": f"conv{i + 1}_x" for i in range(1, 5)}
    inner = {f"conv{i}": f"residual_function.{3 * i - 3}" for i in (1, 2, 3)}
    inner |= {f"bn{i}": f"residual_function.{3 * i - 2}" for i in (1, 2, 3)} | {"downsample": "shortcut"}
    first, *rest = name.split(".")
    return ".".join([names.get(first, first), *(inner.get(part, part) for part in rest)])


# What others call the tensors of a net, by a function of torchvision's name.
NAMINGS = {
    "kuangliu": lambda name: name.replace("downsample", "shortcut").replace("fc.", "linear."),
    "DataParallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.module.{name.replace('fc.', 'linear.')}",
    "weiaicunzai": weiaicunzais,
}


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS)
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "model_state_dict", None])
def test_names_and_wrappers_of_others(tmp_path, naming, wrapper):
    ours = models.ResNet((1, 1), 10, widths=(4, 8), generator=np.random.default_rng(0))
    theirs = {naming(name): torch.tensor(v.numpy()) for name, v in ours.state_dict("OIHW").items()}
    best = torch.tensor(0.5)  # a tensor beside the state dict, as many scripts save it
    torch.save({wrapper: theirs, "best": best, "epoch": 3} if wrapper else theirs, tmp_path / "theirs.tar")
    other = models.ResNet((1, 1), 10, widths=(4, 8), generator=np.random.default_rng(1))
    assert weights.load(tmp_path / "theirs.tar", other) == ([], [])
    assert bits(other.state_dict()) == bits(ours.state_dict())
    found = weights.convert(tmp_path / "theirs.tar", tmp_path / "new.npz", torchvision_names=True)
    assert bits(weights.read(tmp_path / "new.npz").tensors) == bits(ours.state_dict("OIHW"))
    assert found.left == (["best", "epoch"] if wrapper else [])


def test_every_name_of_bottlenecks_and_stages():
    model = models.ResNet(
        (1,) * 4, 10, block=models.Bottleneck, widths=(2, 4, 8, 8), generator=np.random.default_rng(0)
    )
    for name in model.state_dict():
        assert weights.torchvision_name(f"_orig_mod.module.{weiaicunzais(name)}") == name


def test_a_models_own_names_come_first(tmp_path):
    """A model that has both `linear` and `fc` gets each under its name; one that says `linear` takes a file's `fc`."""

    class Own(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(1, 1))

    both = Own("linear", "fc")
    weights.save(tmp_path / "both.pth", both)
    other = Own("fc", "linear")
    weights.load(tmp_path / "both.pth", other)
    assert bits(other.state_dict()) == {name: bits(both.state_dict())[name] for name in other.state_dict()}
    weights.save(tmp_path / "fc.npz", Own("fc"))
    assert weights.load(tmp_path / "fc.npz", Own("linear")) == ([], [])
    with pytest.raises(CheckpointError, match=r"both\.pth: load_state_dict: .* unexpected 'fc\.weight'"):
        weights.load(tmp_path / "both.pth", Own("linear"))
    with pytest.raises(CheckpointError, match="has two tensors that torchvision would call the same"):
        weights.convert(tmp_path / "both.pth", tmp_path / "new.pth", torchvision_names=True)
    weights.convert(tmp_path / "both.pth", tmp_path / "new.pth")
    assert weights.read(tmp_path / "new.pth").tensors.keys() == both.state_dict().keys()


def test_old_files_count_no_batches(tmp_path):
    model = nn.Sequential(nn.BatchNorm2d(2))
    state = {n: torch.tensor(v.numpy()) + 1 for n, v in model.state_dict().items() if n != "0.num_batches_tracked"}
    torch.save(state, tmp_path / "old.pth")
    assert weights.load(tmp_path / "old.pth", model) == ([], [])
    assert (model[0].weight.data[0], model[0].num_batches_tracked.item()) == (2, 0)


def test_safetensors_of_any_header(tmp_path):
    """It begins with its header's length, which of 128 bytes looks like a pickle and of 19,280 like a zip archive."""
    lengths = set()
    for size in (1, 60, 70, 19_240, 19_220):
        save_file({"x" * size: np.ones(2)}, tmp_path / "x.safetensors")
        lengths.add((tmp_path / "x.safetensors").read_bytes()[:2])
        assert len(weights.read(tmp_path / "x.safetensors").tensors) == 1
    assert lengths >= {b"\x80\0", b"PK"}


def test_bfloat16_is_widened_exactly(tmp_path):
    from safetensors.torch import save_file as save_torch

    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_torch({"x": values, "n": values[0, 0].clone()}, tmp_path / "x.safetensors", {"format": "pt"})
    torch.save({"x": values, "n": values[0, 0]}, tmp_path / "x.pth")
    for name in ("x.safetensors", "x.pth"):
        assert bits(weights.read(tmp_path / name).tensors) == bits({"x": values.float(), "n": values[0, 0].float()})


def test_what_does_not_fit_is_listed_and_nothing_loaded(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    arrays = {name: value.numpy() + 1 for name, value in model.state_dict("OIHW").items()}
    arrays["0.weight"] = arrays["0.weight"][:, :2]
    arrays["1.wieght"] = arrays.pop("1.weight")
    weights.write(tmp_path / "x.pth", arrays)
    before = bits(model.state_dict())
    listed = (
        r"x\.pth: load_state_dict: 3 mismatch.*missing '1\.weight' \(nearest: '1\.wieght'\).*unexpected '1\.wieght'"
        r".*'0\.weight' has shape \(4, 2, 3, 3\), the model's is \(4, 3, 3, 3\)$"
    )
    with pytest.raises(CheckpointError, match=listed):
        weights.load(tmp_path / "x.pth", model)
    assert bits(model.state_dict()) == before


def test_many_mismatches_are_cut_short():
    with pytest.raises(CheckpointError, match=r"45 mismatch.*; and 25 more$"):
        nn.Linear(1, 1).load_state_dict({f"x{i}": np.ones(1) for i in range(43)})


UNWRITABLE = {
    "complex": ({"x": np.ones(2, np.complex64)}, DTypeError, "'x' is complex64"),
    "dates": ({"x": np.zeros(2, "M8[s]")}, DTypeError, "'x' is datetime64"),
    "text": ({"x": np.array(["a"])}, DTypeError, "'x' is <U1"),
    "objects": ({"x": np.array([None])}, DTypeError, "'x' is object"),
    "long floats": ({"x": np.ones(2, np.longdouble)}, DTypeError, "'x' is float128"),
    "nothing": ({}, ArgumentError, "there are no tensors"),
    "a number": ({1: np.ones(2)}, ArgumentError, "1 is no name for a tensor"),
    "half a letter": ({"\ud800": np.ones(2)}, ArgumentError, r"'\\ud800' is no name for a tensor"),
    "the header's own": ({"__metadata__": np.ones(2)}, ArgumentError, "'__metadata__' is no name"),
    "an end of text": ({"a\0b": np.ones(2)}, ArgumentError, "is no name"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("arrays", "error", "told"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_could_not_be_read_is_not_written(tmp_path, suffix, arrays, error, told):
    with pytest.raises(error, match=rf"x\{suffix} is not written: .*{told}"):
        weights.write(tmp_path / f"x{suffix}", arrays)
    assert not os.listdir(tmp_path)


def test_a_file_is_not_converted_into_itself(tmp_path, monkeypatch):
    """A checkpoint would lose its optimizer."""
    checkpoint.save(tmp_path / "last.safetensors", net())
    before = (tmp_path / "last.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="is the file itself"):
        weights.convert(tmp_path / "last.safetensors", "last.safetensors")
    assert (tmp_path / "last.safetensors").read_bytes() == before
    with pytest.raises(ArgumentError, match=r"new\.h5: its suffix"):  # before anything is read
        weights.convert(tmp_path / "absent.pth", tmp_path / "new.h5")


def test_a_small_file_does_not_fill_the_disk(tmp_path):
    tied = torch.zeros(10_000)
    for count in (20, 2000):
        torch.save({str(i): tied for i in range(count)}, tmp_path / f"{count}.pth")
    weights.convert(tmp_path / "20.pth", tmp_path / "x.npz")
    with pytest.raises(CheckpointError, match=r"2000\.pth would become 80,000,000 bytes, more than 100 times"):
        weights.convert(tmp_path / "2000.pth", tmp_path / "x.npz")


def test_other_nets_of_torchvision_keep_their_classifier():
    assert weights.torchvision_name("classifier.0.weight") == "classifier.0.weight"


def test_all_parts_are_served_by_the_package():
    code = "import minires as m; m.weights, m.checkpoint, m.summary, m.training, m.data, m.onnx"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})


def test_suffixes_in_capitals_and_files_that_pack_much(tmp_path):
    weights.save(tmp_path / "X.PTH", net())
    assert len(weights.read(tmp_path / "X.PTH").tensors) == 13
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(4000, np.float32))
    with pytest.raises(CheckpointError, match=r"is refused: .* more than 16 times as many; write it by np\.savez"):
        weights.read(tmp_path / "x.npz")


@pytest.mark.parametrize("layouts", [["0.weight"], {"0.weight": "CHWN"}, {"0.weight": [2]}, {"0.weight": [0, 2]}])
def test_forged_layouts(tmp_path, layouts):
    state = {"info": {}, "layout": "HWIO", "layouts": layouts}
    checkpoint.save_tensors(tmp_path / "x", {"model/0.weight": np.ones((2, 2))}, state)
    with pytest.raises(CheckpointError, match="x is damaged: its layouts are none"):
        weights.read(tmp_path / "x")


def test_slips_that_are_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"x\.h5: its suffix must be \.pth, \.pt, \.th, \.tar, \.safetensors or"):
        weights.save(tmp_path / "x.h5", net())
    with pytest.raises(ArgumentError, match=r"weights\.save: takes a path, then the model itself, not a dict"):
        weights.save(tmp_path / "x.pth", net().state_dict())
    with pytest.raises(ArgumentError, match=r"weights\.load: takes a path, then the model itself, not a type"):
        weights.load(tmp_path / "x.pth", nn.Module)
    with pytest.raises(CheckpointError, match=r"no weights at .*; it is a folder"):
        weights.read(tmp_path)
    assert not os.listdir(tmp_path)


def test_the_command(tmp_path, capsys, monkeypatch):
    torch.save({"net": {f"module.{k}": v for k, v in torch_net().state_dict().items()}, "acc": 9}, tmp_path / "a.pth")
    parser = cli.ArgumentParser("convert")
    weights.add_arguments(parser)
    monkeypatch.chdir(tmp_path)
    weights.run(parser.parse_args(["a.pth", "b.npz"]))
    shown = (
        "a.pth (PyTorch) -> b.npz: 13 tensors, 970 parameters, 3,912 bytes; out of net, module.; left behind: 'acc'\n"
    )
    assert capsys.readouterr().out == shown
    weights.run(parser.parse_args(["b.npz", "c.safetensors", "--torchvision-names"]))
    assert bits(weights.read("c.safetensors").tensors) == bits(weights.read("a.pth").tensors)


def test_published_weights_recognise_pictures(tmp_path):
    """ResNet-20 of Y. Idelbayev, 91.73 % on the test set, on lossless copies of some of its images."""
    path = Path(os.environ.get("MINIRES_WEIGHTS", "/nowhere")) / "resnet20-12fca82f.th"
    pictures = Path(os.environ.get("MINIRES_DATA", "/nowhere")) / "lossless.npz"
    if not path.is_file() or not pictures.is_file():
        pytest.skip("resnet20-12fca82f.th needed in the folder MINIRES_WEIGHTS, lossless.npz in MINIRES_DATA")
    test = data.NpzDataset(pictures, "test", layout="NCHW")
    model = models.build("resnet20").eval()
    weights.load(path, model)
    images = (test.images / np.float32(255) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with no_grad():
        found = model(Tensor(images.astype(np.float32))).data.argmax(1)
    assert ((found == test.labels).sum(), len(found)) == (932, 1017)


def test_tensors_keep_their_order_in_every_format(tmp_path: Path) -> None:
    names = [f"{letter}{number}" for number in range(9) for letter in "qbzmc"]
    for suffix in ("pth", "safetensors", "npz"):
        weights.write(tmp_path / f"a.{suffix}", {name: np.ones(2, np.float32) for name in names})
        assert list(weights.read(tmp_path / f"a.{suffix}").tensors) == names
