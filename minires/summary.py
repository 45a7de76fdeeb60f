"""What each layer of a model makes and costs: shapes, parameters, MACs, bytes, receptive fields."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import models
from .autograd import Function, enable_grad
from .cli import positive
from .errors import ArgumentError
from .nn import Conv2d, Module
from .ops.conv import Conv2d as ConvOp
from .ops.conv import ConvTranspose2d as ConvTransposeOp
from .ops.index import Index
from .ops.linear import Linear as LinearOp
from .ops.linear import MatMul
from .ops.norm import GroupNorm
from .ops.pool import AvgPool2d, MaxPool2d
from .ops.shape import Pad, Permute
from .tensor import Tensor

# The pixels of the image that one pixel of a map sees, in rows and columns, and how many apart neighbours are.
Field = tuple[float, float, float, float]
ONE_PIXEL: Field = (1, 1, 1, 1)
WHOLE: Field = (math.inf, math.inf, 1, 1)


@dataclass(frozen=True)
class Layer:
    """One call of a layer, for one image. `receptive_field` is in pixels of the image, None for all of it."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    receptive_field: tuple[int, int] | None
    wasted: bool  # a window of several pixels on a map of one: the others only ever meet padding


@dataclass(frozen=True)
class Summary:
    """The layers in the order of their calls, and the sums of what the whole model has."""

    input_shape: tuple[int, ...]
    layers: list[Layer]
    dtype: str  # of the parameters
    parameters: int
    parameter_bytes: int
    macs: int  # multiplications with an addition, of convolutions and matrix products; a FLOP count is about twice it
    activation_bytes: int  # of all layers' outputs; training keeps most of them for each image of a batch

    @property
    def warnings(self) -> list[str]:
        """What is likely to be a mistake: a map that shrinks to one pixel too early."""
        wasted = [layer.name for layer in self.layers if layer.wasted]
        if not wasted:
            return []
        windows = sum(layer.kind.startswith("Conv") and "1x1" not in layer.kind for layer in self.layers)
        first = f"{self.input_shape[0]}x{self.input_shape[1]} images are 1x1 before {wasted[0]}"
        return [
            f"{first}: {len(wasted)} of {windows} convolutions larger than 1x1 see one pixel and padding. "
            "Use larger images, or fewer strides"
        ]

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "MACs", "bytes", "receptive field")
        rows = [head, *map(_cells, self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = ["<", "<", ">", ">", ">", ">", ">"]
        lines = [
            "  ".join(f"{c:{a}{w}}" for c, a, w in zip(row, aligned, widths, strict=True)).rstrip() for row in rows
        ]
        lines.append(
            f"{'x'.join(map(str, self.input_shape))}: {self.parameters:,} parameters "
            f"({self.parameter_bytes / 1e6:,.1f} MB), "
            f"{self.macs / 1e6:,.1f} M MACs ({2 * self.macs / 1e9:,.2f} GFLOP), "
            f"outputs of {self.activation_bytes / 1e6:,.1f} MB an image, in {self.dtype}"
        )
        return "\n".join([*lines, *(f"Warning: {warning}" for warning in self.warnings)])


def _cells(layer: Layer) -> tuple[str, ...]:
    mark = "  1x1 map!" if layer.wasted else ""
    field = "image" if layer.receptive_field is None else "x".join(map(str, layer.receptive_field))
    counts = (f"{count:,}" if count else "" for count in (layer.parameters, layer.macs, layer.activation_bytes))
    return layer.name, layer.kind, "x".join(map(str, layer.output_shape)), *counts, field + mark


def summarize(model: Module, input_shape: Sequence[int]) -> Summary:
    """Run `model` on one image (H, W, C) of zeros, in evaluation mode, and say what each of its layers did.

    MACs and receptive fields are read off the recorded graph, so that work outside of layers counts, too, in the row
    of the next layer. Modes, gradients and running statistics stay as they are. Raises what the model raises, and
    ArgumentError where a layer's output is cut off from the graph.
    """
    graph, layers, seen = _Graph(), list[Layer](), set[int]()
    names = {id(module): name for name, module in model.named_modules()}

    def add(module: Module, inputs: tuple[Any, ...], y: Any) -> None:
        if not isinstance(y, Tensor):
            return
        if y.node is None and y is not image:
            raise ArgumentError(
                f"summary: what {names[id(module)]!r} gives is cut off from the graph, by no_grad, detach or .data, so "
                "that its work and its receptive field are not known"
            )
        counted, fields = graph.reach(y)
        own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
        seen.update(map(id, own))
        size = getattr(module, "kernel_size", None)
        window = (size, size) if isinstance(size, int) else size
        shape = inputs[0].shape[1:-1] if inputs and isinstance(inputs[0], Tensor) else ()
        layers.append(
            Layer(
                names[id(module)],
                type(module).__name__ + (f" {window[0]}x{window[1]}" if window else ""),
                y.shape[1:],
                sum(p.numel() for p in own),
                counted,
                y.data.nbytes,
                None if math.inf in fields[:2] else (int(fields[0]), int(fields[1])),
                isinstance(module, Conv2d) and shape == (1, 1) and module.kernel_size != (1, 1),
            )
        )

    leaves = [module for module in model.modules() if not module._modules]
    handles = [module.register_forward_hook(add) for module in leaves]
    modes = [(module, module.training) for module in model.modules()]
    first = next(model.parameters(), Tensor(np.zeros(0, np.float32)))
    try:
        zeros = Tensor(np.zeros((1, *input_shape), first.dtype)).to(first.device)
        image = Tensor(zeros.data, requires_grad=True)
        model.eval()
        with enable_grad():
            output = model(image)
        for y in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(y, Tensor):
                graph.reach(y)
    except MemoryError as error:
        raise ArgumentError(f"summary: an image of {'x'.join(map(str, input_shape))} needs too much memory") from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return Summary(
        tuple(input_shape),
        layers,
        str(first.dtype),
        sum(p.numel() for p in model.parameters()),
        sum(p.data.nbytes for p in model.parameters()),
        graph.macs,
        sum(layer.activation_bytes for layer in layers),
    )


class _Graph:
    """The part of the recorded graph that was visited so far: its MACs, and the field of each op's output."""

    def __init__(self) -> None:
        self.fields: dict[Function, Field] = {}
        self.macs = 0

    def reach(self, tensor: Tensor) -> tuple[int, Field]:
        """Visit what `tensor` was made of. The MACs that are new, and its field."""
        before, stack = self.macs, [tensor.node]
        while stack:
            node = stack[-1]
            if not isinstance(node, Function) or node in self.fields:
                stack.pop()
                continue
            makers = [edge.source for edge in node.inputs if edge is not None and isinstance(edge.source, Function)]
            unknown = [maker for maker in makers if maker not in self.fields]
            if unknown:
                stack += unknown
                continue
            self.fields[node] = _field(node, [self.fields[maker] for maker in makers] or [ONE_PIXEL])
            self.macs += _macs(node)
            stack.pop()
        return self.macs - before, self.fields.get(tensor.node, ONE_PIXEL)


def _macs(node: Function) -> int:
    """Multiplications that are followed by an addition."""
    shape = node.outputs[0][0]
    if isinstance(node, ConvOp):
        return math.prod(shape[:-1]) * math.prod(node.shapes[1])
    if isinstance(node, ConvTransposeOp):
        return math.prod(node.shapes[0][:-1]) * math.prod(node.shapes[1])
    if isinstance(node, (LinearOp, MatMul)):
        x, w = node.inputs[:2]
        # a constant has no edge in the graph, and one of the two is no constant
        if x is not None:
            return math.prod(shape) * x.shape[-1]
        return math.prod(shape) * w.shape[-1 if isinstance(node, LinearOp) else -2] if w is not None else 0
    return 0


def _field(node: Function, fields: list[Field]) -> Field:
    """The receptive field of an op's output, from those of its inputs: the largest, widened by the op's window.

    Where an op mixes pixels in another way it is the whole image.
    """
    height, width, rows, columns = (max(values) for values in zip(*fields, strict=True))
    if isinstance(node, ConvOp):
        size = node.shapes[1][:2]
    elif isinstance(node, (MaxPool2d, AvgPool2d)):
        size = node.kernel_size
    elif isinstance(node, Index) and len(node.shape) == 4:
        steps = [part.step or 1 if isinstance(part, slice) else 1 for part in node.place[1:3]]
        down, right = [*steps, 1, 1][:2]
        return height, width, rows * down, columns * right
    elif isinstance(node, ConvTransposeOp):
        (high, wide), (down, right) = node.geometry.extent(node.shapes[1][:2]), node.geometry.stride
        seen = (-(-high // down) - 1) * rows, (-(-wide // right) - 1) * columns
        return height + seen[0], width + seen[1], rows / down, columns / right
    else:
        passes = any(edge is not None and edge.shape[:-1] == node.outputs[0][0][:-1] for edge in node.inputs)
        passes = (passes and not isinstance(node, MatMul)) or isinstance(node, (Pad, Permute))
        mixes = isinstance(node, GroupNorm) and math.prod(node.view[1:]) > node.outputs[0][0][-1]
        return (height, width, rows, columns) if passes and not mixes else WHOLE
    high, wide = node.geometry.extent(size)
    down, right = node.geometry.stride
    return height + (high - 1) * rows, width + (wide - 1) * columns, rows * down, columns * right


def image_shape(text: str) -> tuple[int, int, int]:
    """An argparse type: "32x32x3" is height, width and channels."""
    parts = text.lower().split("x")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTHxCHANNELS, such as 32x32x3")
    try:
        height, width, channels = map(positive, parts)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of three numbers, such as 32x32x3") from None
    if height in (1, 3) and channels > 4:
        raise argparse.ArgumentTypeError(f"{text!r} looks like PyTorch's order: say {width}x{channels}x{height}")
    return height, width, channels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `minires summary`, for `run`."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help=f"one of: {', '.join(models.BUILDERS)} (default: a line for each)")
    add("--input", type=image_shape, metavar="HxWxC", help="one image (default: 224x224x3, or 32x32x3 by the stem)")
    add("--num-classes", type=positive, help="default: the paper's, 1000 or 10")
    add("--stem", choices=models.STEMS, help="default: the paper's")
    add("--shortcut", choices=models.SHORTCUTS, help="default: the paper's")
    add("--no-batch-norm", action="store_const", const=False, dest="batch_norm", help="convolutions with bias instead")
    add("--stride-in-1x1", action="store_const", const=True, help="bottlenecks with the paper's stride")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print the summary that the command line asks for."""
    names = ("num_classes", "stem", "shortcut", "batch_norm", "stride_in_1x1")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given |= {"in_channels": args.input[2]} if args.input and args.input[2] != 3 else {}
    if args.model:
        summary = _of(args.model, args.input, given)
        print(json.dumps(asdict(summary) | {"warnings": summary.warnings}, indent=1) if args.json else summary)
        return
    if given or args.input or args.json:
        raise ArgumentError("summary: options are for one model: name it")
    width = max(map(len, models.BUILDERS))
    print(f"{'model':{width}}  {'input':>9}  {'classes':>7}  {'parameters':>10}  {'M MACs':>8}")
    for name in models.BUILDERS:
        summary = _of(name, None, {})
        shape, classes = "x".join(map(str, summary.input_shape)), summary.layers[-1].output_shape[0]
        print(f"{name:{width}}  {shape:>9}  {classes:>7}  {summary.parameters:>10,}  {summary.macs / 1e6:>8,.1f}")


def _of(name: str, shape: tuple[int, ...] | None, settings: dict[str, Any]) -> Summary:
    """The summary of a model of a name, on images of a size that suits its stem if none is given."""
    model = models.build(name, generator=np.random.default_rng(0), **settings)
    size = 32 if getattr(model, "maxpool", None) is None else 224
    return summarize(model, shape or (size, size, 3))
