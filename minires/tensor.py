"""Tensor: an array that knows which Function made it. Its operators and methods call the ops, one line each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partialmethod
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import numpy as np

from . import ops
from .autograd import Version, accumulate, is_grad_enabled, register_tensor
from .autograd import backward as run_backward
from .convert import parse_to, to_array
from .device import Array, array_module, check_one_device, device_of, to_device
from .errors import DTypeError, GraphError, ShapeError
from .hooks import RemovableHandle
from .inplace import assign, update
from .ops.checks import dimension


@register_tensor
class Tensor:
    """An n-dimensional array with automatic differentiation.

    `data` may be an array (shared, not copied), a Tensor, numbers or nested lists of them. Python floats become
    float32, Python integers int64; arrays keep their type. Images are channels-last: (N, H, W, C).
    """

    __slots__ = (
        "__weakref__", "_array", "_grad", "_requires_grad", "hooks", "node", "retains_grad", "slot", "version",
    )  # fmt: skip
    __array_ufunc__ = None  # `array + tensor` is the tensor's business

    def __init__(self, data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> None:
        plain = type(data) is np.ndarray and dtype is None and data.dtype.kind in "fiub"  # as every op makes it
        self._array = data if plain else _to_array(data, dtype)
        if device is not None:
            self._array = to_device(self._array, device)
        self._grad: Tensor | None = None
        self._requires_grad = False
        self.node: Any = None  # the Function that made it; None for a leaf
        self.slot = 0  # which of the Function's outputs it is
        shared = not plain and isinstance(data, Tensor) and data._array is self._array
        self.version: Version = data.version if shared else Version()
        self.hooks: list[Callable[[Tensor], Tensor | None]] | None = None  # a leaf's; others live at the node
        self.retains_grad = False
        if requires_grad:
            self.requires_grad = True

    # What it is

    @property
    def data(self) -> Array:
        """The raw NumPy or CuPy array. Assigning to it counts as a write; writing into it goes unseen by the engine."""
        return self._array

    @data.setter
    def data(self, array: Any) -> None:
        self._array = _to_array(array)
        self.version.count += 1
        grad = self._grad
        if grad is not None and (grad.shape, grad.dtype, grad.device) != (self.shape, self.dtype, self.device):
            self._grad = None  # it belongs to the old array

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` left here: a Tensor without graph, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise DTypeError(f"grad must be a Tensor or None, not {type(value).__name__}")
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ShapeError(
                    f"grad of shape {value.shape}, {value.dtype} for a tensor of {self.shape}, {self.dtype}"
                )
            check_one_device("grad", [self._array, value.data])
        self._grad = value

    @property
    def requires_grad(self) -> bool:
        """Whether ops on this tensor are recorded."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.dtype.kind != "f":
            raise DTypeError(f"only floating tensors can require a gradient, not {self.dtype}; pass dtype='float32'")
        if not value and self.node is not None:
            raise GraphError("requires_grad=False on the result of an op; use detach()")
        self._requires_grad = value

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set requires_grad, and return self."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it: leaves are where `backward` leaves gradients."""
        return self.node is None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> Any:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its entry `dim`. Raises RangeError."""
        return self.shape if dim is None else self.shape[dimension("size", dim, self.ndim)]

    def numel(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def device(self) -> str:
        """The device's name, such as "cuda:0"."""
        return device_of(self._array)

    @property
    def T(self) -> Tensor:
        """The dimensions in reverse."""
        return ops.permute(self, *range(self.ndim)[::-1])

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __repr__(self) -> str:
        body = np.array2string(
            to_device(self._array, "cpu"), precision=4, threshold=50, edgeitems=2, separator=", ", prefix="Tensor("
        )
        parts = [body, f"shape={self.shape}", f"dtype={self.dtype}"]
        parts += [f"device={self.device!r}"] if self.device != "cpu" else []
        parts += (
            [f"from {self.node!r}"] if self.node is not None else ["requires_grad=True"] if self.requires_grad else []
        )
        return f"Tensor({', '.join(parts)})"

    # Differentiation

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add to every leaf's `.grad` the gradient of this scalar, or of sum(self * gradient).

        Raises GraphError for a tensor without graph, without `gradient` if it is no scalar, or backward run twice;
        DeviceError for a `gradient` that is elsewhere.
        """
        if not self.requires_grad:
            raise GraphError(
                "backward on a tensor that does not require grad and has no graph; was it made under no_grad()?"
            )
        if gradient is None:
            if self.numel() != 1:
                raise GraphError(
                    f"grad can be implicitly created only for scalar outputs: this tensor has shape {self.shape}; "
                    "reduce it with .mean() or .sum(), or pass gradient="
                )
            seed = array_module(self._array).ones(self.shape, dtype=self.dtype)
        else:
            seed = gradient.data if isinstance(gradient, Tensor) else _to_array(gradient, self.dtype)
            if seed.shape != self.shape or seed.dtype != self.dtype:
                raise ShapeError(
                    f"backward: gradient is {seed.shape}, {seed.dtype}; the tensor is {self.shape}, {self.dtype}"
                )
            check_one_device("backward", [self._array, seed])
        run_backward(self, seed, retain_graph)

    def retain_grad(self) -> None:
        """Keep the gradient of a result of an op in `.grad`, as if it were a leaf."""
        if not self.requires_grad:
            raise GraphError("retain_grad on a tensor that does not require grad")
        if self.node is None or self.retains_grad:
            return
        reference = weakref.ref(self)  # the graph must not keep its tensors alive

        def keep(gradient: Tensor) -> None:
            tensor = reference()
            if tensor is not None:
                accumulate(tensor, gradient.data, owned=False)

        self._node_hooks().append(keep)
        self.retains_grad = True

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook` with this tensor's gradient once it is final; what it returns, if not None, replaces it."""
        if not self.requires_grad:
            raise GraphError("register_hook on a tensor that does not require grad")
        if self.node is None:
            self.hooks = hooks = self.hooks if self.hooks is not None else []
        else:
            hooks = self._node_hooks()
        return RemovableHandle(
            hooks, hook, len(hooks) - self.retains_grad
        )  # retain_grad keeps what the hooks made of it

    def _node_hooks(self) -> list[Any]:
        if self.node.hooks is None:
            self.node.hooks = {}
        return self.node.hooks.setdefault(self.slot, [])

    def detach(self) -> Tensor:
        """The same array, cut off from the graph."""
        tensor = Tensor(self._array)
        tensor.version = self.version
        return tensor

    # Leaving and moving

    def item(self) -> Any:
        """The single element as a Python number."""
        if self.numel() != 1:
            raise ShapeError(f"item() of a tensor with {self.numel()} elements; only one element becomes a number")
        return self._array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self._array.tolist()

    def numpy(self) -> np.ndarray:
        """The NumPy array itself, or a copy of a GPU's array. Raises GraphError if the tensor requires grad."""
        if self.requires_grad:
            raise GraphError("numpy() of a tensor that requires grad; use tensor.detach().numpy()")
        return to_device(self._array, "cpu")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise GraphError("a tensor that requires grad cannot be exported; use tensor.detach()")
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    def to(self, *args: Any, device: str | None = None, dtype: Any = None) -> Tensor:
        """This tensor on another device or in another dtype: `to("cuda")`, `to("float64")`, `to(dtype=...)`.

        Itself if nothing changes. A change of dtype is differentiable; one of device cuts the graph.
        """
        device, dtype = parse_to(args, device, dtype)
        tensor = self if dtype is None else ops.cast(self, dtype)
        moved = tensor.data if device is None else to_device(tensor.data, device)
        return tensor if moved is tensor.data else Tensor(moved, requires_grad=self.requires_grad)

    def clone(self) -> Tensor:
        """A copy, through which gradients flow."""
        return ops.mul(self, 1) if self.requires_grad and is_grad_enabled() else Tensor(self._array.copy())

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.node is not None:
            raise GraphError("only leaves can be deep-copied; use detach() or clone()")
        copy = memo[id(self)] = type(self).__new__(type(self))
        for slot in (s for cls in type(self).__mro__ for s in getattr(cls, "__slots__", ()) if s != "__weakref__"):
            if hasattr(self, slot):
                setattr(copy, slot, getattr(self, slot))
        copy._array, copy.version, copy.hooks = self._array.copy(), Version(), list(self.hooks) if self.hooks else None
        copy._grad = None if self._grad is None else Tensor(self._grad._array.copy())
        return copy

    def __getstate__(self) -> Any:
        if self.node is not None:
            raise GraphError("only leaves can be pickled; use detach()")
        return super().__getstate__()

    # Operators and methods: a function in a class body is a method

    __iadd__, __isub__ = partialmethod(update, "+=", "add"), partialmethod(update, "-=", "subtract")
    __imul__, __itruediv__ = partialmethod(update, "*=", "multiply"), partialmethod(update, "/=", "divide")
    __setitem__ = assign
    __add__, __sub__, __mul__, __truediv__ = ops.add, ops.sub, ops.mul, ops.div
    __pow__, __matmul__, __neg__, __getitem__ = ops.pow, ops.matmul, ops.neg, ops.index
    add, sub, mul, div, pow, neg = ops.add, ops.sub, ops.mul, ops.div, ops.pow, ops.neg
    exp, log, sqrt, relu, sigmoid, tanh = ops.exp, ops.log, ops.sqrt, ops.relu, ops.sigmoid, ops.tanh
    abs, clip, clamp, maximum, minimum, matmul = ops.abs, ops.clip, ops.clamp, ops.maximum, ops.minimum, ops.matmul
    __abs__ = ops.abs
    sum, mean, var, std, logsumexp = ops.sum, ops.mean, ops.var, ops.std, ops.logsumexp
    max, min, amax, amin, argmax, argmin = ops.max, ops.min, ops.amax, ops.amin, ops.argmax, ops.argmin
    softmax, log_softmax = ops.softmax, ops.log_softmax
    reshape, permute, transpose, flatten = ops.reshape, ops.permute, ops.transpose, ops.flatten
    squeeze, unsqueeze, unflatten = ops.squeeze, ops.unsqueeze, ops.unflatten
    expand, expand_as, split, chunk = ops.expand, ops.expand_as, ops.split, ops.chunk

    def where(self, condition: Any, other: Any) -> Tensor:
        return ops.where(condition, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Comparisons, without gradient

    def _compare(self, other: Any, relation: Callable[[Any, Any], Any]) -> Any:
        if other is None:
            return NotImplemented
        other = other.item() if isinstance(other, np.generic) else other._array if isinstance(other, Tensor) else other
        try:
            other = np.asarray(other) if isinstance(other, (list, tuple)) else other
            if hasattr(other, "dtype"):
                check_one_device(relation.__name__, [self._array, other])
            return Tensor(relation(self._array, other))
        except ValueError as error:
            raise ShapeError(f"{relation.__name__}: {error}") from None

    __eq__, __ne__ = partialmethod(_compare, relation=eq), partialmethod(_compare, relation=ne)
    __lt__, __le__ = partialmethod(_compare, relation=lt), partialmethod(_compare, relation=le)
    __gt__, __ge__ = partialmethod(_compare, relation=gt), partialmethod(_compare, relation=ge)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ShapeError(f"a tensor with {self.numel()} elements has no truth value")
        return bool(self._array.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"only an integer tensor is an index, not {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.numel() == 1 else repr(self)


def _to_array(data: Any, dtype: Any = None) -> Array:
    return to_array(data._array if isinstance(data, Tensor) else data, dtype)


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with a copy of `data`: numbers, nested lists, an array or a Tensor."""
    return Tensor(_to_array(data, dtype).copy(), device=device, requires_grad=requires_grad)
