"""Time each convolution of a model, forward and both gradients: every variant of minires beside PyTorch's layouts.

    python -m benchmarks.bench_conv --model resnet18 --batch 128
    python -m benchmarks.bench_conv --model resnet50 --size 224 --batch 8 --only fwd --layers layer2
    python -m benchmarks.bench_conv --kernel mine.py:conv2d_mine

Before a shape is timed, all results must be near the portable kernel's in float64. * marks what minires itself takes.
GFLOP/s counts the operations of the plain sum of products; "real", where it differs, those that are executed.
"""

import argparse
import contextlib
import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import harness, layers, peers
from benchmarks.harness import Contender, Run
from benchmarks.layers import Layer
from benchmarks.report import Row, print_table
from minires import training
from minires.kernels import ConvGeometry, fixed, registry

PASSES = {"fwd": "conv2d", "gx": "conv2d_grad_input", "gw": "conv2d_grad_weight"}
REFERENCE_BYTES = 256 << 20  # columns in float64 at a time


def arguments() -> argparse.Namespace:
    parser = harness.arguments(__doc__, batch=128)
    add = parser.add_argument
    add("--model", default="resnet18", help="a ResNet of minires's or torchvision's (default %(default)s)")
    add("--size", type=training.positive, default=32, help="rows of the square images (default %(default)s)")
    add("--only", choices=tuple(PASSES), help="the forward pass, or the gradient of the input or of the weight")
    add(
        "--fixed-weights",
        action="store_true",
        help="as in evaluation: what the forward pass makes of the weights is kept, and its variants for that are met",
    )
    add("--layers", nargs="+", metavar="NAME", help="layers whose names begin so (default: all)")
    harness.add_kernel_options(parser, PASSES.values())
    return parser.parse_args()


def draw(layer: Layer, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x as it leaves a ReLU, w as it is initialised, and a gradient gy."""
    x, w, gy = (rng.standard_normal(s, np.float32) for s in (layer.x_shape(batch), layer.w_shape, layer.y_shape(batch)))
    return np.maximum(x, 0), w * np.float32(math.sqrt(2 / math.prod(layer.w_shape[:3]))), gy


def kernel_arguments(what: str, x: np.ndarray, w: np.ndarray, gy: np.ndarray, geometry: ConvGeometry) -> Sequence[Any]:
    """What the kernel of a pass is called with."""
    return {
        "fwd": (x, w, geometry, None), "gx": (gy, w, x.shape, geometry, None), "gw": (gy, x, w.shape, geometry),
    }[what]  # fmt: skip


def reference(what: str, x: np.ndarray, w: np.ndarray, gy: np.ndarray, geometry: ConvGeometry) -> list[np.ndarray]:
    """The portable kernel's result in float64, some images at a time: the columns of all take gigabytes."""
    portable = registry[PASSES[what]].portable.function
    w64 = w.astype(np.float64)
    step = max(1, REFERENCE_BYTES // (8 * math.prod(gy.shape[1:3]) * math.prod(w.shape[:3]) * geometry.groups))
    parts = []
    for i in range(0, len(x), step):
        x64, gy64 = x[i : i + step].astype(np.float64), gy[i : i + step].astype(np.float64)
        parts.append(portable(*kernel_arguments(what, x64, w64, gy64, geometry)))
    return [np.sum(parts, axis=0) if what == "gw" else np.concatenate(parts)]


def pytorch(what: str, x: np.ndarray, w: np.ndarray, gy: np.ndarray, geometry: ConvGeometry) -> Mapping[str, Contender]:
    """PyTorch's convolution, or its gradient with respect to x or w alone; nothing where it has no such padding."""
    top, bottom, left, right = geometry.padding
    if top != bottom or left != right:
        return {}

    def contender(torch: Any, layout: str) -> Contender:
        x2, w2, gy2 = peers.images(x, layout), peers.filters(w, layout), peers.images(gy, layout)
        settings = list(geometry.stride), [top, left], list(geometry.dilation)
        if what == "fwd":
            convolve = torch.nn.functional.conv2d
            return Contender(lambda: convolve(x2, w2, None, *settings, geometry.groups), peers.from_images)
        mask = [what == "gx", what == "gw", False]
        backward = torch.ops.aten.convolution_backward
        back, place = (peers.from_images, 0) if what == "gx" else (peers.from_filters, 1)
        return Contender(
            lambda: backward(gy2, x2, w2, None, *settings, False, [0, 0], geometry.groups, mask),
            lambda gradients: back(gradients[place]),
        )

    return peers.in_both_layouts(contender)


def executed(variant: str, what: str, layer: Layer, batch: int) -> float:
    """The operations that a variant executes: all, but for Winograd's F(m x m, 3x3) those of its products.

    Those are (m+2)^2 for each tile of m x m results, channel in and channel out; its transforms come on top.
    """
    if "winograd" not in variant:
        return layer.work(batch).flops
    m, (rows, columns) = int(variant[-1]), layer.size if what == "gx" else layer.output_size
    tiles = batch * math.ceil(rows / m) * math.ceil(columns / m)
    return 2 * tiles * (m + 2) ** 2 * math.prod(layer.w_shape[2:])


def odd(what: str) -> harness.Cases:
    """Arguments of a pass that find mistakes: one image, H != W, even windows, strides that leave a rest, 1x1."""

    def cases(rng: np.random.Generator) -> Iterator[Sequence[Any]]:
        for size, w_shape, stride, padding in (
            ((5, 7), (3, 3, 3, 4), (1, 1), (1, 1, 1, 1)),
            ((8, 6), (3, 3, 5, 7), (2, 2), (1, 1, 1, 1)),
            ((6, 9), (1, 1, 4, 3), (2, 2), (0, 0, 0, 0)),
            ((7, 5), (2, 4, 2, 5), (1, 2), (0, 1, 2, 1)),
            ((14, 14), (3, 3, 16, 24), (1, 1), (1, 1, 1, 1)),
            ((9, 9), (7, 7, 3, 8), (2, 2), (3, 3, 3, 3)),
        ):
            layer = Layer(size, w_shape, ConvGeometry(stride, padding))
            for batch in (1, 3):
                x, w, gy = draw(layer, batch, rng)
                args = kernel_arguments(what, x, w, gy, layer.geometry)
                if what == "fwd" and batch > 1:  # with all that follows
                    args = x, w, layer.geometry, rng.standard_normal(w.shape[3], np.float32), gy, True
                yield args

    return cases


def totals(walked: Sequence[tuple[Layer, list[Row]]]) -> None:
    """Print what each pass takes over all layers of the model: minires's choice, its fastest variants, the peers."""
    sums: dict[str, dict[str, float]] = {}
    for layer, rows in walked:
        ours = [row for row in rows if not row.contender.startswith("PyTorch")]
        medians = {row.contender: row.median for row in rows if row not in ours}
        medians["minires, chosen"] = next((row.median for row in ours if row.chosen), math.nan)
        medians["minires, fastest"] = min((row.median for row in ours), default=math.nan)
        for who, seconds in medians.items():
            of = sums.setdefault(who, {})
            of[rows[0].name] = of.get(rows[0].name, 0) + len(layer.names) * seconds
    print("all layers together, ms:")
    names = list(dict.fromkeys(rows[0].name for _, rows in walked))
    print_table(
        ["contender", *names, "all"],
        [
            [("contender", who), *((n, f"{1e3 * of[n]:.1f}") for n in names), ("all", f"{1e3 * sum(of.values()):.1f}")]
            for who, of in sums.items()
        ],
    )


def main() -> None:
    args = arguments()
    peers.find_torch()
    walked = layers.walk(args.model, args.size)
    first = walked[0]  # nothing needs the gradient of the images
    cases: list[tuple[Layer, str]] = [
        (layer, what)
        for what in ([args.only] if args.only else PASSES)
        for layer in layers.matching(walked, args.layers)
        if what != "gx" or layer is not first
    ]
    timed = []
    with Run("bench_conv", args, {name: odd(what) for what, name in PASSES.items()}) as run:
        print(f"{args.model}, {args.size}x{args.size} images, batch {args.batch}; median of {args.rounds}")
        run.total = len(cases)
        for layer, what in cases:
            operands = (*draw(layer, args.batch, np.random.default_rng(0)), layer.geometry)
            with fixed(operands[1], "all rounds") if args.fixed_weights else contextlib.nullcontext():
                timed.append((layer, run.kernel(
                    PASSES[what], layer.describe(args.batch), kernel_arguments(what, *operands), layer.work(args.batch),
                    pytorch(what, *operands), functools.partial(reference, what, *operands),
                    functools.partial(executed, what=what, layer=layer, batch=args.batch),
                )))  # fmt: skip
        totals(timed)


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
