"""Every CUDA kernel that is no convolution, at the shapes of ResNet-18 on CIFAR: what it is called with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import checking
from benchmarks.checking import EXACT, Error
from benchmarks.gpu_run import SAME, TF32, Run, Sizes, described, mapped, product, to_gpu, to_host, variants
from benchmarks.harness import Contender
from benchmarks.layers import Layer, distinct, of
from benchmarks.report import Work
from minires import data, kernels, models
from minires.kernels import ConvGeometry, registry
from minires.kernels.dispatch import Kernel, Variant

EPS = 1e-5
PORTABLE = "portable"  # the same kernel in CuPy's own functions


class Case(NamedTuple):
    """A kernel and NumPy arguments. `compared` makes of its results what can be compared."""

    name: str
    args: Sequence[Any]
    bound: Error = EXACT
    bytes: float | None = None  # None: all arguments once and all results once
    compared: Callable[[list[np.ndarray]], list[np.ndarray]] = list
    shape: str = ""  # what tells it from others of its name
    cupy: Callable[..., Any] | None = None  # CuPy's own function for it


def network(sizes: Sizes) -> models.ResNet:
    """The model, with the same weights at each call."""
    return models.ResNet(sizes.layers, 10, widths=sizes.widths, generator=np.random.default_rng(0))


def layers(sizes: Sizes) -> list[Layer]:
    """Its distinct convolutions."""
    return list(distinct(of(network(sizes), sizes.image)))


def build(sizes: Sizes, rng: np.random.Generator) -> Iterator[Case]:
    """All cases."""
    batch, walked = sizes.batches[0], layers(sizes)
    for shape in dict.fromkeys(layer.y_shape(batch) for layer in walked):
        yield from batch_norm(shape, rng)
    for layer in walked:
        yield from gathers(layer, batch, rng)
    yield from pooling(walked[0].y_shape(batch), walked[-1].y_shape(batch), rng)
    yield from loss(batch, rng)
    yield sgd(sizes, rng)
    for dtype in (np.uint8, np.float32):
        yield augmentation(sizes, batch, dtype, rng)
    for x, axes in ((normal(rng, *walked[0].y_shape(batch)), (0, 1, 2)), (normal(rng, batch, 10), (0,))):
        yield Case("sum_axes", (x, axes), cupy=lambda x, axes: x.sum(axis=axes))
    counter = rng.integers(0, 2**32, (1024 * batch, 4), np.uint32)
    yield Case("philox4x32", (counter, (1, 2)), SAME)
    mask = normal(rng, *walked[0].y_shape(batch))
    yield Case("dropout_mask", (mask, (1, 2), 0.5), SAME, bytes=mask.size)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 draws."""
    return rng.standard_normal(shape, dtype=np.float32)


def batch_norm(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """In training: with and without addition and ReLU."""
    c = shape[-1]
    x, gy, z = (normal(rng, *shape).reshape(-1, c) for _ in range(3))
    x += 1
    gamma, beta = normal(rng, c), normal(rng, c)
    hi, lo, _, invstd = kernels.batch_norm_statistics(x, EPS)
    y = kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, z, True)

    def means(found: list[np.ndarray]) -> list[np.ndarray]:  # lo is what rounding took from hi
        return [np.add(*found[:2], dtype=np.float64), *found[2:]]

    yield Case("batch_norm_statistics", (x, EPS), compared=means)
    yield Case("batch_norm_apply", (x, hi, lo, invstd, gamma, beta, None, False))
    yield Case("batch_norm_apply", (x, hi, lo, invstd, gamma, beta, z, True), shape="with addition and ReLU")
    yield Case("batch_norm_grad", (gy, x, hi, lo, invstd, gamma))
    yield Case("batch_norm_relu_grad", (gy, y, x, hi, lo, invstd, gamma, True))
    yield Case("running_average_", (beta, gamma, 0.1, 1.01))


def gathers(layer: Layer, batch: int, rng: np.random.Generator) -> Iterator[Case]:
    """What surrounds the matrix products of a convolution."""
    kernel, geometry = layer.w_shape[:2], layer.geometry
    x = normal(rng, *layer.x_shape(batch))
    yield Case("im2col", (x, kernel, geometry), SAME)
    cols = normal(rng, *registry["im2col"].portable.function(x, kernel, geometry).shape)
    yield Case("col2im", (cols, x.shape, kernel, geometry), shape=f"to {'x'.join(map(str, x.shape))}")


def pooling(first: tuple[int, ...], last: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """The net's global average; and of its first activations the windows of ImageNet's stem, and halves."""
    x, window, stem = normal(rng, *last), (3, 3), ConvGeometry((2, 2), (1, 1, 1, 1))
    yield Case("adaptive_avg_pool2d", (x, (1, 1)))
    yield Case("adaptive_avg_pool2d_grad", (normal(rng, last[0], 1, 1, last[3]), last))
    x = normal(rng, *first)
    y, index = kernels.max_pool2d(x, window, stem)
    yield Case("max_pool2d", (x, window, stem), SAME)
    yield Case("max_pool2d_grad", (normal(rng, *y.shape), index, first, window, stem))
    halves = ConvGeometry((2, 2))
    yield Case("avg_pool2d", (x, (2, 2), halves, 4))
    half = first[0], first[1] // 2, first[2] // 2, first[3]
    yield Case("avg_pool2d_grad", (normal(rng, *half), first, (2, 2), halves, 4))


def loss(batch: int, rng: np.random.Generator) -> Iterator[Case]:
    """Of ten classes."""
    z, target = normal(rng, batch, 10), rng.integers(0, 10, batch)
    yield Case("cross_entropy", (z, target, None))
    yield Case("cross_entropy_grad", (normal(rng, batch), z, target, None))


def sgd(sizes: Sizes, rng: np.random.Generator) -> Case:
    """All parameters at once; weights and velocities are read and written, gradients read."""
    shapes = [p.shape for p in network(sizes).parameters()]
    lists = [[normal(rng, *shape) for shape in shapes] for _ in range(3)]
    size = sum(w.nbytes for w in lists[0])
    count = f"{size // 4:,} weights in {len(shapes)} arrays"
    return Case("sgd_foreach_", (*lists, 0.1, 0.9, 0.0, 5e-4, False, False), bytes=5 * size, shape=count)


def augmentation(sizes: Sizes, batch: int, dtype: Any, rng: np.random.Generator) -> Case:
    """A batch of the data set: each pixel is read, and written as a float."""
    images = rng.integers(0, 256, (sizes.images, sizes.image, sizes.image, 3), np.uint8).astype(dtype)
    rows = rng.permutation(sizes.images)[:batch]
    plans = [step.plan(images) for step in steps(sizes)]
    moved = (images.itemsize + 4) * 3 * batch * sizes.image**2
    shape = f"{batch} of {images.dtype} {images.shape}"
    return Case("augment", (images, rows, rows, 1, *plans), SAME, bytes=moved, shape=shape)


def steps(sizes: Sizes) -> list[Any]:
    """The augmentation of CIFAR-10's common recipe."""
    crop, flip = data.RandomCrop(sizes.image, 4, seed=1), data.RandomHorizontalFlip(seed=1)
    return [crop, flip, data.Normalize(*data.NORMALIZATION["cifar10"])]


def reference(entry: Kernel, args: Sequence[Any]) -> list[np.ndarray]:
    """The portable kernel's results in float64; of one that works in place what it left in its arguments."""
    wide = mapped(lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a, list(args))
    result = entry.portable.function(*wide)
    return to_host(wide) if entry.in_place else checking.outputs(result)


def contender(entry: Kernel, v: Variant, args: Sequence[Any], case: Case) -> Contender:
    """An implementation with its arguments: copies of its own, where it writes into them."""
    own = mapped(lambda a: a.copy(), list(args)) if entry.in_place else args
    call = functools.partial(v.function, *own)
    if v is entry.portable:
        call = kernels.use("portable")(call)
    result = (lambda _: own) if entry.in_place else (lambda found: found)
    bound = TF32 if v.precision == "tf32" else case.bound
    return Contender(call, lambda found: case.compared(to_host(result(found))), bound=bound)


def measure(run: Run, case: Case) -> None:
    """Check and time a kernel's CUDA variants beside its portable version on CuPy's arrays."""
    entry, (first, *_) = registry[case.name], to_host(case.args)
    shape = case.shape if case.name in ("sgd_foreach_", "augment") else "x".join(map(str, first.shape))
    if case.shape and case.shape != shape:
        shape = f"{shape}, {case.shape}"
    right = reference(entry, case.args)
    size = case.bytes
    if size is None:
        size = sum(a.nbytes for a in to_host(case.args)) + sum(a.size * min(a.itemsize, 4) for a in right)
    args = to_gpu(list(case.args))
    ours = [v for _, kernel, v in variants() if kernel == case.name and v.takes(tuple(args), {})]
    if not ours:
        run.problem(f"no CUDA variant of {case.name} takes {shape}")
    contenders = {v.name: contender(entry, v, args, case) for v in ours}
    contenders[PORTABLE] = contender(entry, entry.portable, args, case)
    if case.cupy is not None:
        contenders["CuPy"] = Contender(functools.partial(case.cupy, *args), to_host, bound=product(first.size))
    passed = run.measure(case.name, shape, contenders, Work(bytes=size), case.compared(right))
    run.hold(case.name, passed)


def part(run: Run) -> None:
    """All kernels but convolutions."""
    for case in build(run.sizes, np.random.default_rng(0)):
        try:
            measure(run, case)
        except Exception as error:  # the others go on
            run.problem(f"{case.name} was not measured: {described(error)}")
