"""Modules made of modules: order, names, growth, and the keys of their states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn
from minires.errors import ArgumentError, RangeError
from tests.oracle import torch


def test_sequential() -> None:
    """Order, names, indices, slices, growth."""
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    net = nn.Sequential(*layers)
    assert list(net) == layers
    assert (len(net), net[0], net[-1]) == (3, layers[0], layers[2])
    assert list(net[1:]) == layers[1:]
    x = Tensor([[1.0, 2.0]])
    assert net(x).item() == layers[2](layers[1](layers[0](x))).item()
    assert list(net.append(nn.Flatten()).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(net.extend([nn.ReLU(), nn.Identity()]))[3:] == [net[3], net[4], net[5]]
    named = nn.Sequential({"first": layers[0], "act": layers[1]})
    assert list(named.state_dict()) == ["first.weight", "first.bias"]
    assert list(named[:1].state_dict()) == ["first.weight", "first.bias"]


def test_a_slice_grows_without_losing_a_module() -> None:
    """It keeps its modules' names, for their state dicts: "1" and "2", of which its length is one."""
    layers = [nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)]
    end = nn.Sequential(*layers)[1:]
    new = [nn.Tanh(), nn.Linear(2, 3)]
    assert list(end.extend(new)) == layers[1:] + new
    assert list(end.state_dict()) == ["2.weight", "2.bias", "4.weight", "4.bias"]
    assert list(nn.Sequential({"a": layers[0], "2": layers[1]}).append(new[0]))[1:] == [layers[1], new[0]]


def test_a_layer_is_exchanged() -> None:
    """As a classifier's last one is, for other classes."""
    net = nn.Sequential({"body": nn.ReLU(), "head": nn.Linear(1, 1)})
    net[-1] = nn.Linear(1, 5)
    assert net(Tensor([1.0])).shape == (5,)
    assert list(net.state_dict()) == ["head.weight", "head.bias"]


@pytest.mark.parametrize("index", [0, -1, slice(1, 3), slice(None, None, 2), slice(0, 0)])
@pytest.mark.parametrize("container", ["ModuleList", "Sequential"])
def test_deleting_beside_pytorch(container: str, index: Any) -> None:
    left = []
    for library in (nn, torch.nn):
        layers = [library.Linear(1, n) for n in (1, 2, 3, 4)]
        net = library.ModuleList(layers) if container == "ModuleList" else library.Sequential(*layers)
        del net[index]
        net.append(library.Linear(9, 9))
        left.append([(name, value.shape[0]) for name, value in net.state_dict().items()])
    assert left[0] == left[1]


def test_deleting_keeps_names_and_refuses_places_that_are_not() -> None:
    net = nn.Sequential({"body": nn.ReLU(), "mid": nn.Linear(1, 1), "head": nn.Linear(1, 1)})
    del net[0]
    assert list(net.state_dict()) == ["mid.weight", "mid.bias", "head.weight", "head.bias"]
    with pytest.raises(RangeError, match="index 2 is out of range for 2"):
        del net[2]


def grown(library: Any) -> Any:
    """The same list of either library, after every way of growing and changing it."""
    modules = library.ModuleList([library.Linear(3, 3), library.ReLU()])
    modules.append(library.Linear(3, 4))
    modules.extend(library.Linear(n, n + 1) for n in (4, 5))
    modules.insert(1, library.Linear(3, 3, bias=False))
    modules.insert(5, library.Sequential(library.Linear(5, 5)))
    modules[0] = library.Linear(3, 3, bias=False)
    return modules


def test_module_list_beside_pytorchs(rng: np.random.Generator) -> None:
    """Keys, and with PyTorch's weights its results."""
    ours, theirs = grown(nn).to("float64"), grown(torch.nn).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [type(m).__name__ for m in ours] == [type(m).__name__ for m in theirs]
    ours.load_state_dict(theirs.state_dict())
    x = rng.standard_normal((2, 3))
    y, their_y = Tensor(x), torch.from_numpy(x)
    for module, their_module in zip(ours, theirs, strict=True):
        y, their_y = module(y), their_module(their_y)
    y.sum().backward()
    their_y.sum().backward()
    np.testing.assert_allclose(y.data, their_y.detach().numpy(), rtol=1e-12)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(dict(ours.named_parameters())[name].grad.data, p.grad.numpy(), rtol=1e-12)


def test_a_module_list_is_a_list() -> None:
    """Indices, slices, length and order are a list's; and its modules belong to whoever holds it."""
    modules = [nn.Linear(1, n) for n in (1, 2, 3)]
    held = nn.ModuleList(modules)
    assert (len(held), list(held), held[-1], len(nn.ModuleList())) == (3, modules, modules[2], 0)
    assert isinstance(held[::2], nn.ModuleList)
    assert list(held[::2]) == modules[::2]
    owner = nn.Module()
    owner.layers = held
    assert list(owner.state_dict())[-1] == "layers.2.bias"
    assert not owner.eval().layers[1].training
    for index in (0, 3, 10, -1):
        new = nn.ReLU()
        held.insert(index, new)
        modules.insert(index, new)
        assert list(held) == modules
    assert list(held.append(held[0]))[-1] is held[0]
    assert len(held.extend(held)) == 2 * (len(modules) + 1)
    assert repr(nn.ModuleList([nn.ReLU()])) == "ModuleList(\n  (0): ReLU()\n)"


def test_refused() -> None:
    with pytest.raises(RangeError, match="Sequential: index 1 is out of range for 1 modules"):
        nn.Sequential(nn.ReLU())[1]
    with pytest.raises(RangeError, match="ModuleList: index -2 is out of range for 1 modules"):
        nn.ModuleList([nn.ReLU()])[-2]
    with pytest.raises(RangeError, match="ModuleList: index 1 is out of range"):
        nn.ModuleList([nn.ReLU()])[1] = nn.ReLU()
    for wrong in ("0", 1.0):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            nn.Sequential(nn.ReLU())[wrong]
    with pytest.raises(ArgumentError, match="Sequential: '1' is a function, not a Module"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    for wrong in (lambda m: m.append(3), lambda m: m.insert(0, 3), lambda m: m.extend([3])):
        modules = nn.ModuleList([nn.ReLU()])
        with pytest.raises(ArgumentError, match=r"ModuleList: '[01]' is a int, not a Module"):
            wrong(modules)
        assert len(modules) == 1
    with pytest.raises(NotImplementedError, match="ModuleList has no forward"):
        nn.ModuleList([nn.ReLU()])(1)
