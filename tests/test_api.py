"""Names, argument order and defaults are PyTorch's; README's table of them is true."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

import minires
from minires import data, models, nn, ops, optim
from tests.oracle import torch, torchvision

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TABLE = README.partition("## What is there")[2].partition("\n## ")[0]
INTERNAL = {"Parameter", "Buffer"}  # made from an array, which PyTorch has not
# PyTorch guesses the dimension of a softmax, and warns that one must not rely on it.
OTHER_DEFAULTS = {("softmax", "dim"), ("log_softmax", "dim"), ("Softmax", "dim"), ("LogSoftmax", "dim")}
OTHER_DEFAULTS |= {("ModuleList", "modules")}

PLACES = {
    "torch": (minires, "torch"),
    "F": (nn.functional, "torch.nn.functional"),
    "nn": (nn, "torch.nn"),
    "init": (nn.init, "torch.nn.init"),
    "optim": (optim, "torch.optim"),
    "lr_scheduler": (optim.lr_scheduler, "torch.optim.lr_scheduler"),
    "utils": (optim, "torch.nn.utils"),
    "models": (models, "torchvision.models"),
    "datasets": (data, "torchvision.datasets"),
    "transforms": (data, "torchvision.transforms"),
}


def theirs(place: str) -> Any:
    if place.startswith("torchvision"):
        torchvision()
    return importlib.import_module(place)


def in_table() -> list[tuple[str, str]]:
    """(place, name) for each name of the table's second column."""
    rows = [line.split("|")[2] for line in TABLE.splitlines() if line.startswith("| ") and "---" not in line][1:]
    groups = [re.findall(r"`(\w+)`: ((?:`\w+` ?)+)", row) for row in rows]
    return [(place, name) for row in groups for place, names in row for name in re.findall(r"\w+", names)]


@pytest.mark.parametrize(("place", "name"), in_table())
def test_readmes_table_is_true(place: str, name: str) -> None:
    ours, path = PLACES[place]
    assert hasattr(ours, name)
    assert hasattr(theirs(path), name)


def test_the_table_is_whole() -> None:
    shown = {name for _, name in in_table()} | set(re.findall(r"`(\w+)`", TABLE))
    functions = {n for n, v in vars(ops).items() if isinstance(v, types.FunctionType)}
    classes = {n for place in ("nn", "optim", "lr_scheduler", "datasets") for n in public(PLACES[place][0])}
    bases = {"Optimizer", "LRScheduler", "ImageDataset"}
    assert functions - {"cast", "index", "expand", "expand_as"} | classes - bases <= shown


def test_torchs_own_functions_are_at_the_top() -> None:
    functions = {n for n, v in vars(ops).items() if isinstance(v, types.FunctionType) and hasattr(torch, n)}
    assert functions - set(vars(nn.functional)) <= set(vars(minires))
    assert {n for n in functions if hasattr(torch.Tensor, n)} <= set(dir(minires.Tensor))


def public(module: Any) -> dict[str, Any]:
    return {n: v for n, v in vars(module).items() if not n.startswith("_") and isinstance(v, type)}


def signatures() -> list[Any]:
    """Calls that both have, where Python can see PyTorch's arguments."""
    found = []
    for place in ("F", "nn", "init", "optim", "lr_scheduler"):
        ours, path = PLACES[place]
        for name, value in vars(ours).items():
            other = getattr(theirs(path), name, None)
            if name.startswith("_") or not callable(value) or other is None or name in INTERNAL:
                continue
            try:
                their_parameters = inspect.signature(other).parameters
            except ValueError:  # written in C++
                continue
            if not all(p.kind is p.VAR_POSITIONAL or p.kind is p.VAR_KEYWORD for p in their_parameters.values()):
                found.append(pytest.param(name, inspect.signature(value).parameters, their_parameters, id=name))
    return found


@pytest.mark.parametrize(("name", "ours", "others"), signatures())
def test_arguments_have_pytorchs_order_and_defaults(name: str, ours: Any, others: Any) -> None:
    positional = [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [p.name for p in others.values() if p.kind is not p.VAR_POSITIONAL][: len(positional)]
    for p in ours.values():
        if p.name in others and (name, p.name) not in OTHER_DEFAULTS:
            assert p.default == others[p.name].default, p.name
