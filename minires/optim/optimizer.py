"""What optimizers share: parameter groups and state dicts in PyTorch's form."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..autograd import is_tensor, zero_grad
from ..convert import to_array
from ..device import device_of, to_device
from ..errors import ArgumentError, CheckpointError, DTypeError


class Optimizer:
    """Base of the optimizers: `param_groups` holds parameters with their settings, `state` what a step keeps of each.

    `params` is an iterable of parameters, or of dicts {"params": ..., setting: value} that override the defaults.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Any, dict[str, Any]] = {}
        if callable(params):
            raise DTypeError(f"{type(self).__name__}: takes parameters: pass model.parameters(), with its parentheses")
        groups: list[Any] = [params] if is_tensor(params) else list(params)
        if not groups:
            raise ArgumentError(f"{type(self).__name__}: no parameters given; an exhausted generator?")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with settings of their own. Raises ArgumentError for one that is there already."""
        name = type(self).__name__
        params = [group["params"]] if is_tensor(group["params"]) else list(group["params"])
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise ArgumentError(
                f"{name}: unknown setting {', '.join(sorted(unknown))}; there are {', '.join(self.defaults)}"
            )
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not is_tensor(p):
                raise DTypeError(f"{name}: parameters must be Tensors, not {type(p).__name__}")
            if not p.is_leaf:
                raise ArgumentError(f"{name}: a parameter is the result of an op; only leaves can be optimised")
            if id(p) in known:
                raise ArgumentError(f"{name}: a parameter of shape {p.shape} was given twice")
            known.add(id(p))
        settings = {name: python_number(value) for name, value in {**self.defaults, **group}.items()}
        self.param_groups.append({**settings, "params": params})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero."""
        zero_grad(self._parameters(), set_to_none)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        raise NotImplementedError

    def _parameters(self) -> list[Any]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """{"state": {i: {name: array}}, "param_groups": [...]}, parameters numbered in their order."""
        number = {id(p): i for i, p in enumerate(self._parameters())}
        return {
            "state": {number[id(p)]: dict(values) for p, values in self.state.items()},
            "param_groups": [{**g, "params": [number[id(p)] for p in g["params"]]} for g in self.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over settings and state; of convolutions in minires' layout.

        Raises CheckpointError, and changes nothing, where groups or shapes differ.
        """
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= set(state_dict):
            raise CheckpointError(f"{type(self).__name__}: no optimizer's state dict, but {type(state_dict).__name__}")
        groups = state_dict["param_groups"]
        ours, theirs = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in groups]
        if ours != theirs:
            raise CheckpointError(
                f"{type(self).__name__}: parameter groups of {theirs} in the state dict, but of {ours} here"
            )
        params, state = self._parameters(), {}
        for key, values in state_dict["state"].items():
            if not 0 <= int(key) < len(params):
                raise CheckpointError(f"{type(self).__name__}: state of parameter {key}, but there are {len(params)}")
            p = params[int(key)]
            for name, value in values.items():
                if value is not None and value.shape != p.shape:
                    raise CheckpointError(
                        f"{type(self).__name__}: {name} of parameter {key} is {value.shape}, the parameter {p.shape}"
                    )
            state[p] = {n: None if v is None else _copy_like(v, p) for n, v in values.items()}
        self.state = state
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({k: copy.deepcopy(v) for k, v in saved.items() if k != "params"})


def _copy_like(value: Any, parameter: Any) -> Any:
    array = to_array(value.data if is_tensor(value) else value, parameter.dtype)
    return to_device(array.copy(), device_of(parameter.data))


def python_number(value: Any) -> Any:
    """A NumPy scalar as a Python number, beside which float32 stays float32, and which JSON can hold."""
    return value.item() if isinstance(value, np.generic) else value
