"""The engine: a Function records itself as it runs; `backward` walks what was recorded, last to first.

Reverse-mode differentiation in three facts:
1. Each Function knows its own derivative: `backward` turns the gradient of its output into those of its inputs.
2. A Function only remembers where its inputs came from (`inputs`); there is no global tape. A tensor points to the
   Function that made it (`node`), never back, so that a graph is freed when its last tensor is.
3. The gradient of a value is final once every Function that used it has sent its share. Functions are numbered as
   they run, users after makers, so taking the highest number first visits each exactly once, all its users done.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .anomaly import checksum, is_finite, users_line
from .device import Array, array_module
from .errors import GraphError
from .kernels.dispatch import quiet

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)
_anomaly: ContextVar[bool] = ContextVar("anomaly", default=False)
_sequence = itertools.count()
_accumulate_lock = threading.Lock()
_tensor: Any = None  # the Tensor class, once tensor.py has registered it


def register_tensor(cls: type) -> type:
    """Make `cls` the class that wraps every Function's outputs. `tensor.py` calls it once."""
    global _tensor
    _tensor = cls
    return cls


def wrap(array: Array) -> Any:
    """A Tensor around an array, without graph."""
    return _tensor(array)


def is_tensor(value: object) -> bool:
    return isinstance(value, _tensor)


class _Mode(ContextDecorator):
    """Set a context variable within a `with` block or a decorated function. Threads do not see each other's."""

    variable: ClassVar[ContextVar[bool]]
    value: ClassVar[bool]

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def _recreate_cm(self) -> _Mode:  # a decorated function may run in several threads: one manager for each call
        return type(self)()

    def __enter__(self) -> None:
        self._tokens.append(self.variable.set(self.value))

    def __exit__(self, *exception: object) -> None:
        self.variable.reset(self._tokens.pop())


class no_grad(_Mode):
    """Record nothing: for evaluation, and for writing into parameters."""

    variable, value = _grad_enabled, False


class enable_grad(_Mode):
    """Record again, inside `no_grad`."""

    variable, value = _grad_enabled, True


class detect_anomaly(_Mode):
    """Find the op and the line that made the first NaN or infinity, and writes behind the engine's back. Slow.

    Every result and every gradient is checked. Saved arrays get a checksum, compared before they are used: the only
    way to notice a write through a raw array (`x.data[0] = 1`), which version counters cannot see.
    """

    variable, value = _anomaly, True


def is_grad_enabled() -> bool:
    """Whether Functions called now are recorded."""
    return _grad_enabled.get()


class Version:
    """How often an array was written through minires. Views of one array share it."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Edge(NamedTuple):
    """Where a Function's input came from, and so where its gradient goes: a Function's output, or a leaf tensor."""

    source: Any
    slot: int
    shape: tuple[int, ...]
    dtype: Any


class Function:
    """One differentiable op. A subclass gives `forward` and `backward`; its dataclass fields are the op's settings.

    `forward(*arrays)` returns an array or a tuple of them, of which the first `differentiable_outputs` can carry a
    gradient. `backward(*gradients)`, one for each of those, returns the gradient of each input of `forward`, or None
    where there is none (`needs[i]` tells which are wanted). Inputs that are not Tensors are passed on as they are.
    Neither may write into the arrays it gets.
    """

    differentiable_outputs: ClassVar[int] = 1
    is_view: ClassVar[bool] = False  # the output may share its first input's memory

    saved: tuple[Any, ...] = ()  # what `save` kept
    needs: tuple[bool, ...] = ()  # for each input of forward: whether a gradient is wanted
    inputs: tuple[Edge | None, ...] = ()  # for each input of forward: where it came from, if a gradient is wanted
    outputs: tuple[tuple[Any, Any], ...] = ()  # shape and dtype of each differentiable output
    sequence: int = -1
    versions: list[tuple[Version, int]]
    checksums: list[int | None] | None = None
    hooks: dict[int, list[Any]] | None = None
    used: bool = False
    where: str = "unknown (run the forward pass under detect_anomaly)"

    def forward(self, *arrays: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *gradients: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def save(self, *arrays: Any) -> None:
        """Keep arrays for `backward`, which finds them in `self.saved`. They are freed once it has run."""
        self.saved = arrays

    def __call__(self, *inputs: Any) -> Any:
        """Run on Tensors, and record if any of them requires a gradient. A Function object runs once."""
        if self.sequence >= 0:
            raise GraphError(f"{self!r} has run already: make a new one for each call")
        tensors = [t for t in inputs if is_tensor(t)]
        track = is_grad_enabled() and any(t.requires_grad for t in tensors)
        self.needs = tuple(track and is_tensor(t) and t.requires_grad for t in inputs)
        with quiet():
            result = self.forward(*(t.data if is_tensor(t) else t for t in inputs))
        outputs = [wrap(array) for array in (result if isinstance(result, tuple) else (result,))]
        if self.is_view and array_module(outputs[0].data).may_share_memory(outputs[0].data, tensors[0].data):
            outputs[0].version = tensors[0].version
        if _anomaly.get():
            self.where = users_line()
            self._check_finite(outputs, tensors)
        if not track:
            self.saved = ()
        else:
            self.inputs = tuple(edge_to(t) if need else None for t, need in zip(inputs, self.needs, strict=True))
            self.sequence = next(_sequence)
            differentiable = outputs[: self.differentiable_outputs]
            self.outputs = tuple((t.shape, t.dtype) for t in differentiable)
            for slot, t in enumerate(differentiable):
                t.node, t.slot, t.requires_grad = self, slot, True
            self.versions = [
                (t.version, t.version.count) for t in (*tensors, *outputs) if any(t.data is a for a in self.saved)
            ]
            self.checksums = [checksum(a) for a in self.saved] if _anomaly.get() else None
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]

    def _check_finite(self, outputs: list[Any], inputs: list[Any]) -> None:
        if all(is_finite(t.data) for t in outputs):
            return
        verb = "made" if all(is_finite(t.data) for t in inputs) else "was given"
        raise GraphError(f"{self!r} {verb} a NaN or an infinity, called from {self.where}")

    def _check_usable(self) -> None:
        if self.used:
            raise GraphError(
                f"backward through {self!r} a second time: its saved arrays were freed by the first; "
                "pass retain_graph=True to the first backward, or run the forward pass again"
            )
        for version, count in self.versions:
            if version.count != count:
                raise GraphError(
                    f"an array that {self!r} saved was written in place after the forward pass "
                    f"(version {version.count}, saved at {count}): write `x = x + y`, not `x += y`, or clone() first"
                )
        if self.checksums and self.checksums != [checksum(a) for a in self.saved]:
            raise GraphError(
                f"an array that {self!r} saved was written behind the engine's back, called from {self.where}"
            )


def edge_to(tensor: Any) -> Edge:
    """The place that `tensor`'s gradient goes to."""
    return Edge(tensor if tensor.node is None else tensor.node, tensor.slot, tensor.shape, tensor.dtype)


class _Pending:
    """Gradients on their way: summed for each output, popped when final, highest sequence number first."""

    def __init__(self) -> None:
        self.sums: dict[Any, list[Any]] = {}  # Function or leaf -> [array, whether it is ours to write into], by slot
        self.heap: list[tuple[int, Function]] = []

    def add(self, edge: Edge, gradient: Array, owned: bool) -> None:
        slots = self.sums.get(edge.source)
        if slots is None:
            is_function = isinstance(edge.source, Function)
            slots = self.sums[edge.source] = [None] * (edge.source.differentiable_outputs if is_function else 1)
            if is_function:
                heapq.heappush(self.heap, (-edge.source.sequence, edge.source))
        if slots[edge.slot] is None:
            slots[edge.slot] = [gradient, owned]
        elif slots[edge.slot][1]:
            slots[edge.slot][0] += gradient
        else:  # the array may be another input's gradient too (Add hands one to both): sum out of place
            slots[edge.slot] = [slots[edge.slot][0] + gradient, True]


def backward(tensor: Any, gradient: Array, retain_graph: bool = False) -> None:
    """Send `gradient`, of the tensor's shape and dtype, back to every leaf, and add it to the leaf's `.grad`.

    Raises GraphError if a Function was used before, if what it saved was overwritten, or if its gradient is wrong in
    shape or dtype.
    """
    pending = _Pending()
    pending.add(edge_to(tensor), gradient, owned=False)
    while pending.heap:
        node = heapq.heappop(pending.heap)[1]
        node._check_usable()
        gradients = [
            array_module(gradient).zeros(shape, dtype) if entry is None else entry[0]
            for entry, (shape, dtype) in zip(pending.sums.pop(node), node.outputs, strict=True)
        ]
        for slot, hooks in (node.hooks or {}).items():
            gradients[slot] = _run_hooks(hooks, gradients[slot])
        with quiet():
            result = node.backward(*gradients)
        result = result if isinstance(result, tuple) else (result,)
        if len(result) != len(node.inputs):
            raise GraphError(f"{node!r}: backward returned {len(result)} gradients for {len(node.inputs)} inputs")
        for index, (edge, g) in enumerate(zip(node.inputs, result, strict=True)):
            if edge is None:
                continue
            if g is None or g.shape != edge.shape or g.dtype != edge.dtype:
                got = "None" if g is None else f"shape {g.shape}, {g.dtype}"
                raise GraphError(
                    f"{node!r}: the gradient of input {index} is {got}; it must be of shape {edge.shape}, {edge.dtype}"
                )
            if _anomaly.get() and not is_finite(g):
                raise GraphError(
                    f"backward of {node!r} made a NaN or an infinity for input {index}; "
                    f"its forward was called from {node.where}"
                )
            shared = (*gradients, *node.saved, *result[:index], *result[index + 1 :])
            pending.add(
                edge, g, owned=isinstance(g, np.generic) or (g.base is None and all(g is not a for a in shared))
            )
        if not retain_graph:
            node.used, node.saved, node.inputs = True, (), ()
        del gradients, result, node
    for leaf, (entry,) in pending.sums.items():
        _accumulate(leaf, _run_hooks(leaf.hooks, entry[0]), entry[1])


def _run_hooks(hooks: list[Callable[[Any], Any]] | None, gradient: Array) -> Array:
    for hook in hooks or ():
        replaced = hook(wrap(gradient))
        if replaced is None:
            continue
        if replaced.shape != gradient.shape or replaced.dtype != gradient.dtype:
            raise GraphError(
                f"a hook returned {replaced.dtype} {replaced.shape} for a gradient {gradient.dtype} {gradient.shape}"
            )
        gradient = replaced.data
    return gradient


def _accumulate(leaf: Any, gradient: Array, owned: bool) -> None:
    with _accumulate_lock:
        if leaf.grad is not None:
            leaf.grad.data += gradient
        else:
            leaf.grad = wrap(gradient if owned and not leaf.hooks else gradient.copy())
