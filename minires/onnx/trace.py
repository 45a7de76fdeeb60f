"""What a model computes, written down while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from ..autograd import Function, enable_grad
from ..errors import ArgumentError
from ..modes import tracer
from ..nn import Module
from ..tensor import Tensor


class Call(NamedTuple):
    """A Function that ran, the layer that called it, what went in and what came out."""

    function: Function
    layer: str
    inputs: tuple[Any, ...]
    outputs: tuple[Tensor, ...]


def trace(model: Module, images: Tensor, check: Callable[[Function, str], None]) -> tuple[list[Call], Any]:
    """Every Function that `model` calls in evaluation, in order, and what it returns. The model stays as it is.

    Writing in place is refused, since nothing of it would be noted: into the images, a result, a parameter or a buffer,
    whose values are put back.

    `check` sees each Function and the name of its layer before its result is used. Gradients are recorded meanwhile:
    only then are convolution and batch norm two Functions, with the weights that the model has.
    """
    calls: list[Call] = []
    layers = [""]
    state = [*model.named_parameters(), *model.named_buffers()]
    seen = [("its input", images), *((repr(name), t) for name, t in state)]
    written = [(what, t, t.version.count) for what, t in seen]  # and how often each had been written before

    def note(function: Function, inputs: tuple[Any, ...], outputs: list[Tensor]) -> None:
        check(function, layers[-1])
        calls.append(Call(function, layers[-1], inputs, tuple(outputs)))
        written.extend(("a result", t, t.version.count) for t in outputs)

    def leave(*_: Any) -> None:
        layers.pop()

    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.enter_context(module.register_forward_pre_hook(lambda *_, name=name: layers.append(name)))
            stack.enter_context(module.register_forward_hook(leave))
        stack.enter_context(_evaluating(model))
        stack.enter_context(_restoring([t for _, t in state]))
        stack.enter_context(enable_grad())
        stack.callback(tracer.reset, tracer.set(note))
        output = model(images)
    for what, t, count in written:
        if t.version.count != count:
            raise ArgumentError(f"onnx.export: the model writes into {what} in place; write `x = x + y`, not `x += y`")
    return calls, output


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode within a block; then each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _restoring(tensors: list[Tensor]) -> Iterator[None]:
    """Put back the values of those that are written within a block."""
    before = [(t, t.version.count, t.data, t.data.copy()) for t in tensors]
    try:
        yield
    finally:
        for t, count, array, values in before:
            if t.version.count != count:
                array[...] = values
                t.data = array  # itself, or what was assigned: a write of its own, for those who keep what they made
