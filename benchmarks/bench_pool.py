"""Time max, average and global average pooling, forward and backward, beside PyTorch's.

    python -m benchmarks.bench_pool --batch 32
    python -m benchmarks.bench_pool --only max_pool2d --kernel mine.py:max_pool2d_mine

On what ResNet-18 pools: the stem's output for images of 224, the last stage's for 224 and 32; and on CIFAR's first
stage. GB/s counts what must be moved: each array in and out once.
"""

import sys
from collections.abc import Iterator

import numpy as np

from benchmarks import cases, peers
from benchmarks.cases import Case
from minires import kernels, training
from minires.kernels import ConvGeometry

SIZES = (112, 112, 64), (32, 32, 64), (7, 7, 512), (4, 4, 512)
ODD = [(1, 5, 7, 3), (3, 4, 9, 8), (2, 3, 3, 5)]


def build(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """All cases for images (N, H, W, C)."""
    torch = peers.find_torch()
    x, size = rng.standard_normal(shape, dtype=np.float32), 4 * int(np.prod(shape))
    for k, s, p in ((3, 2, 1), (2, 2, 0)):
        window, geometry, note = (k, k), ConvGeometry((s, s), (p, p, p, p)), f"{k}x{k}/{s}"
        y, index = kernels.max_pool2d(x, window, geometry)
        gy = rng.standard_normal(y.shape, dtype=np.float32)
        pixels = places(index, shape, k, s, p)
        settings = [k, k], [s, s], [p, p]
        yield Case(
            "max_pool2d", (x, window, geometry), size + y.nbytes + index.nbytes,
            lambda t, settings=settings: torch.ops.aten.max_pool2d_with_indices(t, *settings), (x,),
            lambda out, pixel, k=k, s=s, p=p: [out, taps(pixel, shape, k, s, p)], note=note,
        )  # fmt: skip
        yield Case(
            "max_pool2d_grad", (gy, index, shape, window, geometry), size + gy.nbytes + index.nbytes,
            lambda gt, t, i, settings=settings: torch.ops.aten.max_pool2d_with_indices_backward(
                gt, t, *settings, [1, 1], False, i
            ),
            (gy, x, pixels), note=note,
        )  # fmt: skip
    count = np.float32(4)
    yield Case(
        "avg_pool2d",
        (x, window, geometry, count),
        size + y.nbytes,
        lambda t: torch.nn.functional.avg_pool2d(t, 2),
        (x,),
        note=note,
    )
    yield Case(
        "avg_pool2d_grad", (gy, shape, window, geometry, count), size + gy.nbytes,
        lambda gt, t: torch.ops.aten.avg_pool2d_backward(gt, t, [2, 2], [2, 2], [0, 0], False, True, None),
        (gy, x), note=note,
    )  # fmt: skip
    gy = rng.standard_normal((shape[0], 1, 1, shape[3]), dtype=np.float32)
    yield Case("adaptive_avg_pool2d", (x, (1, 1)), size, lambda t: torch.nn.functional.adaptive_avg_pool2d(t, 1), (x,))
    yield Case(
        "adaptive_avg_pool2d_grad",
        (gy, shape),
        size,
        lambda gt, t: torch.ops.aten._adaptive_avg_pool2d_backward(gt, t),
        (gy, x),
    )


def places(index: np.ndarray, shape: tuple[int, ...], k: int, s: int, p: int) -> np.ndarray:
    """PyTorch's index of a window's largest, the pixel h*W + w, from minires's, the tap of the window."""
    _, oh, ow, _ = index.shape
    rows, columns = np.arange(oh)[:, None, None] * s - p, np.arange(ow)[:, None] * s - p
    return (rows + index // k) * shape[2] + columns + index % k


def taps(pixels: np.ndarray, shape: tuple[int, ...], k: int, s: int, p: int) -> np.ndarray:
    """The inverse of `places`."""
    _, oh, ow, _ = pixels.shape
    rows, columns = np.arange(oh)[:, None, None] * s - p, np.arange(ow)[:, None] * s - p
    return (pixels // shape[2] - rows) * k + pixels % shape[2] - columns


def main() -> None:
    args = cases.parser(__doc__, build, ODD[0], batch=32).parse_args()
    with cases.start("bench_pool", args, build, ODD) as run:
        cases.measure_all(run, build, [(args.batch, *size) for size in SIZES])


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
