"""What optimizers share: parameter groups, the walk of a step over them, and state dicts in PyTorch's form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..autograd import enable_grad, is_tensor, zero_grad
from ..convert import to_array
from ..device import Array, array_module, device_of, to_device
from ..errors import ArgumentError, CheckpointError, DTypeError
from ..kernels import quiet


class Optimizer:
    """Base of the optimizers: `param_groups` holds parameters with their settings, `state` what a step keeps of each.

    `params` is an iterable of parameters, or of dicts {"params": ..., setting: value} that override the defaults. A
    subclass gives `update`, or `update_group` where it can do all parameters at once. What it keeps in a parameter's
    state are arrays of the parameter's shape, made by `zeros_like`, and numbers.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Any, dict[str, Any]] = {}
        if callable(params):
            raise DTypeError(f"{type(self).__name__}: takes parameters: pass model.parameters(), with its parentheses")
        groups = _in_order(type(self).__name__, params)
        if not groups:
            raise ArgumentError(f"{type(self).__name__}: no parameters given; an exhausted generator?")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with settings of their own. Raises ArgumentError for one that is there already."""
        name = type(self).__name__
        if not isinstance(group, dict) or "params" not in group:
            raise ArgumentError(f"{name}: a parameter group must be a dict that holds 'params'")
        params = _in_order(name, group["params"])
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
        self.check(settings)
        self.param_groups.append({**settings, "params": params})

    def check(self, settings: dict[str, Any]) -> None:
        """Raises ArgumentError for a group's settings that make no sense. A subclass may know some."""

    def update(self, p: Any, state: dict[str, Any], settings: dict[str, Any]) -> None:
        """One step of a parameter that has a gradient, written into its array and its state."""
        raise NotImplementedError

    def update_group(self, params: list[Any], settings: dict[str, Any]) -> None:
        """One step of a group's parameters, all of which have gradients."""
        for p in params:
            self.update(p, self.state.setdefault(p, {}), settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero."""
        zero_grad(self._parameters(), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in place.

        A closure is called first, with recording on, to make the gradients; what it returns, its loss, is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            settings = {name: python_number(group[name]) for name in self.defaults}
            params = [p for p in group["params"] if p.grad is not None]
            try:
                with quiet():
                    self.update_group(params, settings)
            finally:  # also where it failed on its way: some were written
                for p in params:
                    p.version.count += 1
        return loss

    def _parameters(self) -> list[Any]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """{"state": {i: {name: array or number}}, "param_groups": [...]}, parameters numbered in their order."""
        number = {id(p): i for i, p in enumerate(self._parameters())}
        return {
            "state": {number[id(p)]: dict(values) for p, values in self.state.items()},
            "param_groups": [
                {**_settings(group), "params": [number[id(p)] for p in group["params"]]} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over settings and state; of convolutions in minires' layout.

        Raises CheckpointError, and changes nothing, where groups or shapes differ.
        """
        optimizer = type(self).__name__
        groups = state_dict.get("param_groups") if isinstance(state_dict, dict) else None
        if (
            not isinstance(groups, list)
            or not all(isinstance(group, dict) and "params" in group for group in groups)
            or not isinstance(state_dict.get("state"), dict)
        ):
            raise CheckpointError(
                f"{optimizer}: an optimizer's state dict is {{'state': {{...}}, 'param_groups': [{{'params': ...}}, "
                f"...]}}, not this {type(state_dict).__name__}"
            )
        ours, theirs = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in groups]
        if ours != theirs:
            raise CheckpointError(f"{optimizer}: parameter groups of {theirs} in the state dict, but of {ours} here")
        params = self._parameters()
        state: dict[Any, dict[str, Any]] = {}
        for key, values in state_dict["state"].items():
            if not (str(key).isdecimal() and int(key) < len(params)):
                raise CheckpointError(f"{optimizer}: state of parameter {key}, but there are {len(params)}")
            p = params[int(key)]
            state[p] = {}
            for name, value in values.items():
                if value is None:
                    continue
                state[p][name] = loaded = _loaded(name, value, p)
                if not isinstance(loaded, (int, float)) and loaded.shape != p.shape:
                    raise CheckpointError(
                        f"{optimizer}: {name} of parameter {key} is {loaded.shape}, the parameter {p.shape}"
                    )
        settings = [_settings(group) for group in groups]
        for saved in settings:
            missing = set(self.defaults) - set(saved)
            if missing:
                raise CheckpointError(
                    f"{optimizer}: the state dict of another optimizer: no {', '.join(sorted(missing))}"
                )
        self.state = state
        for group, saved in zip(self.param_groups, settings, strict=True):
            group.update(saved)


def _in_order(optimizer: str, params: Any) -> list[Any]:
    """One parameter, or what an iterable gives, as a list. Raises DTypeError for a set, whose order may be any."""
    if is_tensor(params):
        return [params]
    if isinstance(params, (set, frozenset)) or not isinstance(params, Iterable):
        raise DTypeError(f"{optimizer}: takes a list of parameters, or model.parameters(), no {type(params).__name__}")
    return list(params)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """A copy of a group's settings, as JSON can hold them."""
    return {name: python_number(copy.deepcopy(value)) for name, value in group.items() if name != "params"}


def zeros_like(parameter: Any) -> Array:
    """State of a parameter's shape, before the first step. In float32 for float16, where small moments are 0."""
    return array_module(parameter.data).zeros_like(parameter.data, dtype=_state_dtype(parameter))


def _state_dtype(parameter: Any) -> np.dtype[Any]:
    return np.promote_types(parameter.dtype, np.float32)


def _loaded(name: str, value: Any, parameter: Any) -> Any:
    """A saved number as a number, which needs no device; an array as the parameter's state is.

    PyTorch counts steps in a float: of a parameter without dimensions only the name tells it from an array.
    """
    array = to_array(value.data if is_tensor(value) else value)
    if array.ndim == 0 and (parameter.ndim > 0 or array.dtype.kind != "f" or name == "step"):
        return array.item()
    return to_device(array.astype(_state_dtype(parameter)), device_of(parameter.data))


def python_number(value: Any) -> Any:
    """NumPy's number as a Python number, beside which float32 stays float32, and which JSON can hold; in tuples too."""
    if isinstance(value, (tuple, list)):
        return tuple(map(python_number, value))
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value


def check_not_negative(optimizer: str, **settings: float) -> None:
    """Raises ArgumentError for a setting that is no number, below 0, or NaN."""
    for name, value in settings.items():
        if not isinstance(value, (int, float)) or not value >= 0:
            raise ArgumentError(f"{optimizer}: {name} must be a number of at least 0, not {value!r}")
