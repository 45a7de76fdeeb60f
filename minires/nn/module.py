"""Module: a tree of layers with parameters, buffers, state dicts and hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from ..autograd import no_grad, zero_grad
from ..convert import parse_to
from ..device import to_device
from ..errors import ArgumentError, CheckpointError, DTypeError
from ..hooks import RemovableHandle
from ..tensor import Tensor
from .layout import HWIO_FROM_OIHW as HWIO_FROM_OIHW
from .layout import OIHW_FROM_HWIO as OIHW_FROM_HWIO
from .layout import Layout, ambiguous, from_oihw, to_oihw

MOST_LISTED = 20  # of a state dict's mismatches


class Parameter(Tensor):
    """A tensor that an optimizer trains. `layout` is "HWIO" for a convolution's weight; nn/layout.py has the others."""

    __slots__ = ("layout",)

    def __init__(self, data: Any, requires_grad: bool = True, layout: Layout = None) -> None:
        super().__init__(data, requires_grad=requires_grad)
        self.layout = layout


class Buffer(Tensor):
    """A tensor that belongs to a module's state and is not trained: batch norm's running statistics."""

    __slots__ = ()


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not load."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of layers and models: subclasses assign Parameters, Buffers and Modules as attributes, and give forward."""

    training: bool

    def __init__(self) -> None:
        stores: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
        self.__dict__.update(stores, _forward_hooks=[], _forward_pre_hooks=[], training=True)

    # Attributes

    def __setattr__(self, name: str, value: Any) -> None:
        kinds = {"_parameters": Parameter, "_buffers": Buffer, "_modules": Module}
        if "_modules" not in self.__dict__:
            if isinstance(value, tuple(kinds.values())):
                raise ArgumentError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
            return object.__setattr__(self, name, value)
        for store, kind in kinds.items():
            registered = self.__dict__[store]
            if isinstance(value, kind) or (name in registered and value is None):
                self.__dict__.pop(name, None)
                for other in kinds:
                    if other != store:
                        self.__dict__[other].pop(name, None)
                self._put(store, name, value)
                return None
            if name in registered:
                raise DTypeError(
                    f"{type(self).__name__}.{name} is a {kind.__name__}: assign a {kind.__name__} or None, "
                    f"not a {type(value).__name__}; to change its values, write {name}[...] = ... under no_grad()"
                )
        return object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        for store in ("_modules", "_parameters", "_buffers"):
            if name in own.get(store, ()):
                return own[store][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for store in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[store]:
                del self.__dict__[store][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Same as assigning it; None reserves the name."""
        self._register("_parameters", Parameter, name, value)

    def register_buffer(self, name: str, value: Tensor | None) -> None:
        """Add a tensor to the module's state, which need not be a Buffer; None reserves the name."""
        self._register("_buffers", Buffer, name, Buffer(value) if type(value) is Tensor else value)

    def add_module(self, name: str, module: Module | None) -> None:
        """Same as assigning it, under a name that need not be a Python name."""
        self._register("_modules", Module, name, module)

    def _register(self, store: str, kind: type, name: str, value: Any) -> None:
        if not name or "." in name or (name not in self.__dict__[store] and hasattr(self, name)):
            raise ArgumentError(
                f"{type(self).__name__}: {name!r} is no name for a {kind.__name__}: empty, dotted or taken"
            )
        if value is not None and not isinstance(value, kind):
            raise DTypeError(f"{type(self).__name__}.{name} must be a {kind.__name__}, not a {type(value).__name__}")
        self._put(store, name, value)

    def _put(self, store: str, name: str, value: Any) -> None:
        """Register a value; a Parameter without a layout that replaces another has that one's."""
        old = self.__dict__[store].get(name)
        if isinstance(value, Parameter) and value.layout is None and old is not None and old.ndim == value.ndim:
            value.layout = old.layout
        self.__dict__[store][name] = value

    # Walking the tree, in order of assignment

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Every module under its dotted name, this one first; one that stands at two places once, or under both."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            stack += [(f"{name}.{n}" if name else n, m) for n, m in reversed(list(module.named_children()))]

    def _named(self, store: str) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in module.__dict__[store].items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return self._named("_parameters")  # type: ignore[return-value]

    def parameters(self) -> Iterator[Parameter]:
        return (value for _, value in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return self._named("_buffers")

    def buffers(self) -> Iterator[Tensor]:
        return (value for _, value in self.named_buffers())

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call `fn` on every module, children before parents."""
        for module in reversed(list(self.modules())):
            fn(module)
        return self

    # Modes, places, gradients

    def train(self, mode: bool = True) -> Self:
        """Training mode, here and in all children: batch norm uses the batch's statistics."""
        if self.training is not mode:
            self.training = mode
        for child in self._modules.values():
            if child is not None:
                child.train(mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode, here and in all children: batch norm uses its running statistics."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set requires_grad of every parameter."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or set them to zero."""
        zero_grad(self.parameters(), set_to_none)

    def to(self, *args: Any, device: str | None = None, dtype: Any = None) -> Self:
        """Move to a device, or turn all floating parameters and buffers into another dtype, in place."""
        device, dtype = parse_to(args, device, dtype)
        if dtype is not None and dtype.kind != "f":
            raise DTypeError(f"Module.to: parameters are floats, {dtype} is not")
        for value in [*self.parameters(), *self.buffers()]:
            for tensor in (*([value.grad] if value.grad is not None else []), value):
                array = (
                    tensor.data if dtype is None or tensor.dtype.kind != "f" else tensor.data.astype(dtype, copy=False)
                )
                array = array if device is None else to_device(array, device)
                if array is not tensor.data:  # assigning counts as a write
                    tensor.data = array
        return self

    # State

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self.named_modules(remove_duplicate=False):
            for name, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None:
                    yield f"{prefix}.{name}" if prefix else name, value

    def state_dict(self, layout: str = "HWIO") -> dict[str, Tensor]:
        """Every parameter and buffer under its dotted name, detached and not copied.

        `layout` is the order of convolution weights' axes: "HWIO" is minires' own, "OIHW" (a view) PyTorch's. A Linear
        layer over a flattened map has its columns reordered, too; CheckpointError if it does not know the map's size.
        """
        _check_layout(layout)
        if layout == "HWIO":
            return {name: value.detach() for name, value in self._state()}
        if problems := ambiguous(self.named_modules(remove_duplicate=False)).values():
            raise CheckpointError(f"state_dict: no PyTorch order for {type(self).__name__}: " + "; ".join(problems))
        return {name: to_oihw(value.detach(), _layout(value)) for name, value in self._state()}

    def load_state_dict(self, state_dict: Any, strict: bool = True, layout: str = "HWIO") -> IncompatibleKeys:
        """Copy values, of any array type, into the parameters and buffers of the same names.

        `layout` is that of the given weights: "OIHW" for a PyTorch state dict, see `state_dict`. All is checked before
        the first value is copied. Raises CheckpointError that lists every missing, unexpected and mis-shaped entry;
        `strict=False` skips missing and unexpected ones.
        """
        _check_layout(layout)
        if not isinstance(state_dict, Mapping):
            raise CheckpointError(
                f"load_state_dict: takes a dict, not a {type(state_dict).__name__}; of a checkpoint, .model"
            )
        own, given = dict(self._state()), dict(state_dict)
        arrays: dict[str, np.ndarray] = {}
        unknown = ambiguous(self.named_modules(remove_duplicate=False)) if layout == "OIHW" else {}
        problems = [problem for name, problem in unknown.items() if name in given]
        missing, unexpected = [k for k in own if k not in given], [k for k in given if k not in own]
        if strict:
            problems += [f"missing {k!r}{_nearest(k, unexpected)}" for k in missing]
            problems += [f"unexpected {k!r}{_nearest(k, missing)}" for k in unexpected]
        for name in (k for k in own if k in given):
            target, value = own[name], given[name]
            array = np.asarray(to_device(value.data if isinstance(value, Tensor) else value, "cpu"))
            shape, wanted = array.shape, target.shape
            if layout == "OIHW":
                array, wanted = from_oihw(array, _layout(target)), to_oihw(target, _layout(target)).shape
            if array.shape != target.shape:
                torchs = layout == "HWIO" and from_oihw(array, _layout(target)).shape == target.shape
                hint = "; it looks like PyTorch's: pass layout='OIHW'" if torchs else ""
                problems.append(f"{name!r} has shape {shape}, the model's is {wanted}{hint}")
            elif array.dtype.kind not in ("f" if target.dtype.kind == "f" else "iu"):
                problems.append(f"{name!r} is {array.dtype}, the model's is {target.dtype}")
            arrays[name] = array
        if problems:
            raise CheckpointError(
                f"load_state_dict: {len(problems)} mismatch(es) with {type(self).__name__}, nothing was loaded: "
                + "; ".join(problems[:MOST_LISTED])
                + (f"; and {len(problems) - MOST_LISTED} more" if len(problems) > MOST_LISTED else "")
            )
        with no_grad():
            for name, array in arrays.items():
                own[name][...] = to_device(array.astype(own[name].dtype, copy=False), own[name].device)
        return IncompatibleKeys(missing, unexpected)

    # Calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for pre_hook in tuple(self._forward_pre_hooks):
            replaced = pre_hook(self, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        output = self.forward(*args, **kwargs)
        for hook in tuple(self._forward_hooks):
            replaced = hook(self, args, output)
            output = output if replaced is None else replaced
        return output

    def register_forward_hook(self, hook: Callable[[Module, tuple[Any, ...], Any], Any]) -> RemovableHandle:
        """Call hook(module, inputs, output) after each forward; what it returns, if not None, replaces the output."""
        return RemovableHandle(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[[Module, tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call hook(module, inputs) before each forward; what it returns, if not None, replaces the inputs."""
        return RemovableHandle(self._forward_pre_hooks, hook)

    def extra_repr(self) -> str:
        """A layer's settings, for its repr."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self.named_children()]
        inner = "".join(f"\n  {line}" for line in lines)
        return f"{type(self).__name__}({self.extra_repr()}{inner}{chr(10) if inner else ''})"


def _layout(value: Tensor) -> Layout:
    return value.layout if isinstance(value, Parameter) else None


def _check_layout(layout: str) -> None:
    if layout not in ("HWIO", "OIHW"):
        raise ArgumentError(f"layout must be 'HWIO' (minires) or 'OIHW' (PyTorch), not {layout!r}")


def _nearest(name: str, candidates: list[str]) -> str:
    import difflib

    nearest = difflib.get_close_matches(name, candidates, n=1)
    return f" (nearest: {nearest[0]!r})" if nearest else ""
