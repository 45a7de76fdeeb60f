"""Module: registration, walking, modes, state dicts, hooks, copies."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn, optim
from minires.errors import ArgumentError, CheckpointError, DTypeError
from tests.oracle import hwio, torch


class Net(nn.Module):
    """A convolution, a batch norm and a linear layer, under names that are not in alphabetical order."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.conv = nn.Conv2d(3, 4, (2, 3), generator=rng)
        self.bn = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False, generator=rng))
        self.none = None

    def forward(self, x: Any) -> Tensor:
        return self.body(self.bn(self.conv(x))) * self.scale


class TorchNet(torch.nn.Module):
    """The same in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.conv = torch.nn.Conv2d(3, 4, (2, 3))
        self.bn = torch.nn.BatchNorm2d(4)
        self.body = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))


KEYS = list(TorchNet().state_dict())


@pytest.fixture
def net() -> Net:
    return Net()


def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((2, 5, 4, 3)).astype(np.float32)


def values(net: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.data.copy() for name, value in net.state_dict().items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, bool]:
    return {name: np.array_equal(a[name], b[name]) for name in a}


# Registration and walking


def test_order_is_that_of_assignment(net: Net) -> None:
    theirs = TorchNet()
    assert list(net.state_dict()) == KEYS
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in net.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert [n for n, _ in net.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in net.named_children()] == ["conv", "bn", "body"]
    assert next(net.modules()) is net
    assert {"conv", "scale", "forward"} <= set(dir(net))


def test_attributes(net: Net) -> None:
    """Replaced, deleted, turned into another kind, reserved by None."""
    net.scale = None
    assert net.scale is None
    assert "scale" not in net.state_dict()
    net.scale = nn.Parameter(np.zeros(2))
    assert next(iter(net.state_dict())) == "scale"
    net.bn = nn.Parameter(np.zeros(3))
    assert list(net.state_dict())[:2] == ["scale", "bn"]
    assert [n for n, _ in net.named_children()] == ["conv", "body"]
    del net.scale
    with pytest.raises(AttributeError, match="Net has no attribute 'scale'"):
        net.scale  # noqa: B018
    net.note = "plain"
    del net.note
    net.register_buffer("table", Tensor([1, 2]))
    net.register_parameter("later", None)
    assert list(net.state_dict())[:2] == ["bn", "table"]
    assert net.later is None


def test_a_parameter_is_not_overwritten_by_a_tensor(net: Net) -> None:
    with pytest.raises(DTypeError, match=r"Net\.scale is a Parameter.*not a Tensor; .* scale\[\.\.\.\] = "):
        net.scale = Tensor([1.0])
    with pytest.raises(DTypeError, match=r"Net\.conv is a Module"):
        net.conv = 3


def test_a_parameter_that_is_replaced_keeps_its_layout() -> None:
    conv, fc = nn.Conv2d(3, 4, (2, 3)), nn.Linear(8, 2, image_size=(2, 2))
    conv.weight = nn.Parameter(conv.weight.data[:, :, :1] * 2)  # grey images
    fc.register_parameter("weight", nn.Parameter(fc.weight.data))
    assert (conv.weight.layout, fc.weight.layout) == ("HWIO", (2, 2))
    assert conv.state_dict("OIHW")["weight"].shape == (4, 1, 2, 3)
    conv.weight = nn.Parameter(np.ones(3))
    assert conv.weight.layout is None
    fc.weight = nn.Parameter(fc.weight.data, layout=(1, 4))
    assert fc.weight.layout == (1, 4)


def test_super_init_must_come_first() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(np.ones(1))

    with pytest.raises(ArgumentError, match=r"Early: call super\(\).__init__\(\) before assigning 'weight'"):
        Early()


def test_what_stands_twice_counts_once() -> None:
    layer = nn.Linear(2, 2)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(list(net.parameters())) == 2
    assert len(list(net.modules())) == 3


def test_a_module_without_forward() -> None:
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


def test_train_and_eval_reach_all(net: Net) -> None:
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())


def test_apply_visits_children_first(net: Net) -> None:
    seen: list[str] = []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert len(seen) == 6
    assert seen[-1] == "Net"
    assert seen.index("Linear") < seen.index("Sequential")


def test_requires_grad_(net: Net, rng: np.random.Generator) -> None:
    assert net.requires_grad_(False) is net
    assert not net(images(rng)).requires_grad


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool, net: Net, rng: np.random.Generator) -> None:
    net(images(rng)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none)
    assert all(p.grad is None if set_to_none else (p.grad.data == 0).all() for p in net.parameters())


@pytest.mark.parametrize("args", [("float64",), (np.float64,), ("cpu", "float64")])
def test_to_float64(args: tuple[Any, ...], net: Net, rng: np.random.Generator) -> None:
    """In place: the parameters stay the same objects, gradients follow, integers stay."""
    net(images(rng)).sum().backward()
    before = list(net.parameters())
    assert net.to(*args) is net
    assert all(a is b for a, b in zip(net.parameters(), before, strict=True))
    assert {p.dtype for p in net.parameters()} | {p.grad.dtype for p in net.parameters()} == {np.dtype("float64")}
    assert [b.dtype.name for b in net.buffers()] == ["float64", "float64", "int64"]
    assert net(images(rng).astype(np.float64)).dtype == np.float64


def test_to_refuses_integers(net: Net) -> None:
    with pytest.raises(DTypeError, match="int64 is not"):
        net.to("int64")


# State dicts


@pytest.mark.parametrize("layout", ["HWIO", "OIHW"])
def test_round_trip(layout: str, net: Net) -> None:
    other = Net(seed=1)
    assert not same(values(net), values(other))["conv.weight"]
    assert other.load_state_dict(net.state_dict(layout), layout=layout) == ([], [])
    assert all(same(values(net), values(other)).values())
    assert all(not v.requires_grad for v in net.state_dict(layout).values())


def test_layout_against_pytorch(net: Net, rng: np.random.Generator) -> None:
    """Both ways: PyTorch loads what minires exports, and the reverse."""
    theirs = TorchNet()
    with torch.no_grad():
        theirs.bn.running_mean += 1
    net.load_state_dict(theirs.state_dict(), layout="OIHW")
    np.testing.assert_array_equal(net.conv.weight.data, hwio(theirs.conv.weight))
    np.testing.assert_array_equal(net.body[1].weight.data, theirs.body[1].weight.detach())
    np.testing.assert_array_equal(net.bn.running_mean.data, 1)
    assert net.conv.weight.data.flags.c_contiguous

    exported = {name: torch.tensor(v.numpy()) for name, v in Net(seed=1).state_dict("OIHW").items()}
    theirs.load_state_dict(exported)
    np.testing.assert_array_equal(Net(seed=1).conv.weight.data, hwio(theirs.conv.weight))


def test_state_dict_shares_and_loading_copies(net: Net) -> None:
    state = net.state_dict()
    assert state["conv.weight"].data is net.conv.weight.data
    other = Net(seed=1)
    other.load_state_dict(state)
    assert not np.shares_memory(other.conv.weight.data, net.conv.weight.data)


def test_wide_values_are_narrowed(net: Net) -> None:
    net.load_state_dict(
        {name: v.astype(np.float64 if v.dtype.kind == "f" else v.dtype) for name, v in values(net).items()}
    )
    assert {p.dtype for p in net.parameters()} == {np.dtype("float32")}


def change(state: dict[str, Any], **entries: Any) -> dict[str, Any]:
    """A state dict whose every value differs from the net's, with some entries replaced, or dropped by None."""
    state = {name: v + 1 for name, v in state.items()} | {k.replace("__", "."): v for k, v in entries.items()}
    return {name: v for name, v in state.items() if v is not None}


BAD = {
    "missing": ({"conv__bias": None}, ["1 mismatch", "missing 'conv.bias'"]),
    "unexpected": ({"extra": np.ones(1)}, ["1 mismatch", "unexpected 'extra'"]),
    "renamed": (
        {"conv__bias": None, "conv__bios": np.ones(4)},
        ["2 mismatch", "missing 'conv.bias' (nearest: 'conv.bios')", "unexpected 'conv.bios' (nearest: 'conv.bias')"],
    ),
    "shape": ({"scale": np.ones(2)}, ["'scale' has shape (2,), the model's is (1,)"]),
    "conv of the other layout": (
        {"conv__weight": np.ones((4, 3, 2, 3), np.float32)},
        ["'conv.weight' has shape (4, 3, 2, 3), the model's is (2, 3, 3, 4)"],
    ),
    "dtype": ({"bn__num_batches_tracked": np.ones(())}, ["'bn.num_batches_tracked' is float64, the model's is int64"]),
    "text": ({"scale": np.array(["a"])}, ["'scale' is <U1"]),
    "all at once": (
        {"scale": np.ones(2), "bn__bias": np.ones(5), "conv__bias": None, "body__1__weight": None, "x": np.ones(1)},
        [
            "5 mismatch",
            "missing 'conv.bias'",
            "missing 'body.1.weight'",
            "unexpected 'x'",
            "'scale' has",
            "'bn.bias' has",
        ],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_failed_load_lists_everything_and_changes_nothing(case: str, net: Net) -> None:
    entries, messages = BAD[case]
    before = values(net)
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(change(before, **entries))
    for message in (*messages, "Net, nothing was loaded"):
        assert message in str(caught.value)
    assert all(same(before, values(net)).values())


def test_not_strict_skips_names_but_not_shapes(net: Net) -> None:
    before = values(net)
    state = change(before, conv__bias=None, extra=np.ones(1))
    keys = net.load_state_dict(state, strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (["conv.bias"], ["extra"])
    assert [name for name, equal in same(before, values(net)).items() if equal] == ["conv.bias"]
    with pytest.raises(CheckpointError, match="'scale' has shape"):
        net.load_state_dict({"scale": np.ones(2)}, strict=False)


@pytest.mark.parametrize("use", [lambda n: n.state_dict("NCHW"), lambda n: n.load_state_dict({}, layout="oihw")])
def test_unknown_layouts_are_refused(use: Any, net: Net) -> None:
    with pytest.raises(ArgumentError, match="layout must be 'HWIO'"):
        use(net)


# Hooks, copies, repr


def test_hooks(net: Net) -> None:
    """In order of registration; what they return replaces inputs and output; removal twice does no harm."""
    layer, seen = nn.ReLU(), []
    handles = [
        layer.register_forward_pre_hook(lambda m, inputs: seen.append((m, inputs))),
        layer.register_forward_pre_hook(lambda m, inputs: inputs[0] + 1),
        layer.register_forward_pre_hook(lambda m, inputs: (inputs[0] * 2,)),
        layer.register_forward_hook(lambda m, inputs, y: y + 10),
        layer.register_forward_hook(lambda m, inputs, y: seen.append((inputs[0].item(), y.item()))),
    ]
    x = Tensor([1.0])
    assert layer(x).item() == 14
    assert seen[0][0] is layer
    assert seen[0][1][0] is x
    assert seen[1] == (4, 14)
    for handle in handles + handles:
        handle.remove()
    assert layer(x).item() == 1
    assert len(seen) == 2


def test_a_deep_copy_trains_on_its_own(net: Net, rng: np.random.Generator) -> None:
    twin, before, x = copy.deepcopy(net), values(net), images(rng)
    assert all(same(before, values(twin)).values())
    assert twin.conv.weight.layout == "HWIO"
    twin(x).sum().backward()
    optim.SGD(twin.parameters(), lr=0.1).step()
    assert all(p.grad is None for p in net.parameters())
    assert all(same(before, values(net)).values())
    assert not any(same(before, values(twin)).values())
    assert not any(np.shares_memory(a.data, b.data) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_a_deep_copy_keeps_ties() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    twin = copy.deepcopy(net)
    assert twin[0].weight is twin[1].weight
    assert twin[0].weight is not net[0].weight
    assert len(list(twin.parameters())) == 3


def test_repr(net: Net) -> None:
    assert repr(net).splitlines() == [
        "Net(",
        "  (conv): Conv2d(3, 4, kernel_size=(2, 3), stride=(1, 1), padding=(0, 0), bias=True)",
        "  (bn): BatchNorm2d(4, eps=1e-05, momentum=0.1)",
        "  (body): Sequential(",
        "    (0): ReLU()",
        "    (1): Linear(in_features=4, out_features=2, bias=False)",
        "  )",
        ")",
    ]


class Frozen(nn.BatchNorm2d):
    """Batch norm that stays in evaluation mode."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)


def test_a_child_may_have_a_train_of_its_own() -> None:
    net = nn.Sequential(Frozen(2), nn.BatchNorm2d(2)).train()
    assert (net[0].training, net[1].training) == (False, True)


@pytest.mark.parametrize("name", ["", "a.b", "forward"])
def test_names_that_cannot_be_registered(name: str) -> None:
    for register, value in (("add_module", nn.ReLU()), ("register_buffer", Tensor([1.0]))):
        with pytest.raises(ArgumentError, match="no name"):
            getattr(nn.Module(), register)(name, value)
    with pytest.raises(ArgumentError, match="no name"):
        nn.Sequential({name: nn.ReLU()})


def test_only_modules_and_parameters_are_registered() -> None:
    with pytest.raises(DTypeError, match="must be a Module, not a str"):
        nn.Module().add_module("x", "y")
    with pytest.raises(DTypeError, match="must be a Parameter, not a Tensor"):
        nn.Module().register_parameter("x", Tensor([1.0]))


def test_a_module_at_two_places_has_two_names() -> None:
    """In the state dict, as in PyTorch, but once among the parameters."""
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, shared)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert len(list(net.parameters())) == 2
    net.load_state_dict(net.state_dict())


@pytest.mark.parametrize("forget", ["module", "optimizer"])
def test_zeroed_gradients_are_zero_whatever_they_were(forget: str) -> None:
    layer = nn.Linear(1, 1)
    layer.weight.grad = Tensor(np.array([[np.nan]], np.float32))
    grad = layer.weight.grad
    (layer if forget == "module" else optim.SGD(layer.parameters())).zero_grad(set_to_none=False)
    assert layer.weight.grad is grad
    assert grad.tolist() == [[0]]


def test_pytorchs_layout_is_recognised() -> None:
    theirs = torch.nn.Conv2d(1, 8, 3).state_dict()
    with pytest.raises(CheckpointError, match="it looks like PyTorch's: pass layout='OIHW'"):
        nn.Conv2d(1, 8, 3).load_state_dict(theirs)
    with pytest.raises(CheckpointError, match="takes a dict, not a list"):
        nn.Conv2d(1, 8, 3).load_state_dict([])
