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
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .anomaly import checksum, is_finite, users_line
from .device import Array, array_module, check_one_device, device_of, out_of_memory
from .errors import GraphError, OutOfMemoryError
from .kernels import add, add_
from .kernels.dispatch import quiet
from .memory import copy, is_whole
from .modes import detect_anomaly as detect_anomaly
from .modes import enable_grad as enable_grad
from .modes import is_anomaly_enabled, tracer
from .modes import is_grad_enabled as is_grad_enabled
from .modes import no_grad as no_grad

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
    sequence: int = -1  # its number in the order of running
    versions: list[tuple[Version, int]]  # of saved arrays, to notice later writes
    checksums: list[int | None] | None = None  # of saved arrays, under detect_anomaly
    hooks: dict[int, list[Any]] | None = None  # for each output that has some
    used: bool = False  # backward has run, and freed what was saved
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
        recording, tensors, needs, arrays = is_grad_enabled(), [], [], []
        for t in inputs:  # one plain loop: with small arrays the calls of Python's are what takes time
            given = is_tensor(t)
            if given:
                tensors.append(t)
            needs.append(given and recording and t.requires_grad)
            arrays.append(t.data if given else t)
        track, self.needs = True in needs, tuple(needs)
        check_one_device(type(self).__name__, [t.data for t in tensors])
        try:
            with quiet():
                result = self.forward(*arrays)
        except OutOfMemoryError:  # of an op within this one
            raise
        except MemoryError as error:
            raise out_of_memory(f"{self!r}", next((t.device for t in tensors), "cpu"), error) from error
        outputs = [wrap(array) for array in (result if isinstance(result, tuple) else (result,))]
        if self.is_view and array_module(outputs[0].data).may_share_memory(outputs[0].data, tensors[0].data):
            outputs[0].version = tensors[0].version
        if is_anomaly_enabled():
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
            self.checksums = [checksum(a) for a in self.saved] if is_anomaly_enabled() else None
        if (trace := tracer.get()) is not None:
            trace(self, inputs, outputs)
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
            add_(slots[edge.slot][0], gradient)
        else:  # the array may be another input's gradient too (Add hands one to both): sum out of place
            slots[edge.slot] = [add(slots[edge.slot][0], gradient), True]


def backward(tensor: Any, gradient: Array, retain_graph: bool = False) -> None:
    """Send `gradient`, of the tensor's shape and dtype, back to every leaf, and add it to the leaf's `.grad`.

    Raises GraphError if a Function was used before, if what it saved was overwritten, or if its gradient is wrong in
    shape or dtype.
    """
    pending = _Pending()
    pending.add(edge_to(tensor), gradient, owned=False)
    with quiet():
        while pending.heap:
            node = heapq.heappop(pending.heap)[1]
            _run(node, pending)
            if not retain_graph:
                node.used, node.saved, node.inputs = True, (), ()
        for leaf, (entry,) in pending.sums.items():
            owned = entry[1] and not leaf.hooks  # asked before they run: a hook may keep the gradient and be removed
            accumulate(leaf, _run_hooks(leaf.hooks, entry[0]), owned)


def _run(node: Function, pending: _Pending) -> None:
    """One node's backward: take its gradients, now final, and pass its inputs' on."""
    edges = node.inputs  # before the check: another thread's backward may free them after it
    node._check_usable()
    entries = pending.sums.pop(node)
    xp = array_module(next(entry[0] for entry in entries if entry is not None))
    gradients = [
        xp.zeros(shape, dtype) if entry is None else entry[0]
        for entry, (shape, dtype) in zip(entries, node.outputs, strict=True)
    ]
    for slot, hooks in (node.hooks or {}).items():
        gradients[slot] = _run_hooks(hooks, gradients[slot])
    try:
        result = node.backward(*gradients)
    except MemoryError as error:
        raise out_of_memory(f"backward of {node!r}", device_of(gradients[0]), error) from error
    except Exception:
        node._check_usable()  # or another thread's backward has freed what this one was reading
        raise
    result = result if isinstance(result, tuple) else (result,)
    if len(result) != len(edges):
        raise GraphError(f"{node!r}: backward returned {len(result)} gradients for {len(edges)} inputs")
    for index, (edge, g) in enumerate(zip(edges, result, strict=True)):
        if edge is None:
            continue
        if g is None or g.shape != edge.shape or g.dtype != edge.dtype:
            got = "None" if g is None else f"shape {g.shape}, {g.dtype}"
            raise GraphError(f"{node!r}: the gradient of input {index} is {got}, not shape {edge.shape}, {edge.dtype}")
        if is_anomaly_enabled() and not is_finite(g):
            raise GraphError(
                f"backward of {node!r} made a NaN or an infinity for input {index}; it was called from {node.where}"
            )
        others = (*gradients, *node.saved, *result[:index], *result[index + 1 :])
        pending.add(edge, g, owned=_is_owned(g, others))


def _is_owned(g: Array, others: tuple[Any, ...]) -> bool:
    """Whether g can be written into, and nobody else sees its memory: g is an array and no view, none of `others`, and
    none of them is a view of it."""
    return (
        not isinstance(g, np.generic)
        and is_whole(g)
        and all(a is not g and getattr(a, "base", None) is not g for a in others)
    )


def _run_hooks(hooks: list[Callable[[Any], Any]] | None, gradient: Array) -> Array:
    for hook in tuple(hooks or ()):
        replaced = hook(wrap(gradient))
        if replaced is None:
            continue
        if not is_tensor(replaced) or replaced.shape != gradient.shape or replaced.dtype != gradient.dtype:
            got = f"{replaced.dtype} {replaced.shape}" if is_tensor(replaced) else type(replaced).__name__
            raise GraphError(f"a hook returned a {got} for a gradient {gradient.dtype} {gradient.shape}")
        gradient = replaced.data
    return gradient


def accumulate(leaf: Any, gradient: Array, owned: bool) -> None:
    """Add a gradient to the leaf's, one thread at a time; a first one that is not owned is copied."""
    with _accumulate_lock:
        if leaf.grad is not None:
            add_(leaf.grad.data, gradient)
            leaf.grad.version.count += 1
        else:
            leaf.grad = wrap(gradient if owned else copy(gradient))


def zero_grad(tensors: Iterable[Any], set_to_none: bool = True) -> None:
    """Forget the tensors' gradients, or set them to zero in place."""
    for tensor in tensors:
        if set_to_none:
            tensor.grad = None
        elif tensor.grad is not None:
            tensor.grad.data[...] = 0
            tensor.grad.version.count += 1
