"""Time batch norm in training and evaluation, alone and with addition and ReLU, and group norm, beside PyTorch's.

    python -m benchmarks.bench_norm --batch 128
    python -m benchmarks.bench_norm --only batch_norm_grad --kernel mine.py:batch_norm_grad_mine

At every shape of a model's batch norms. GB/s counts what must be moved: each array in and out once.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import cases, layers, peers
from benchmarks.cases import Case
from minires import kernels, training

EPS = 1e-5
GROUPS = 32  # of group norm, as its paper has them (Wu and He, 2018); 1 where that does not divide the channels
ODD = [(1, 5, 7, 3), (3, 2, 9, 8), (2, 3, 1, 64)]


def batch_norm(x: Any, gamma: Any, beta: Any, add: Any, relu: bool) -> Any:
    """In training: the two kernels of a forward pass."""
    hi, lo, _, invstd = kernels.batch_norm_statistics(x, EPS)
    return kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, add, relu)


def group_norm(x: Any, gamma: Any, beta: Any) -> Any:
    """y alone."""
    return kernels.group_norm(x, gamma, beta, EPS).y


def build(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """All cases for images (N, H, W, C)."""
    torch = peers.find_torch()
    n, h, w, c = shape
    groups = GROUPS if c % GROUPS == 0 else 1
    image, gimage, other = (rng.standard_normal(shape, dtype=np.float32) for _ in range(3))
    image += 1
    gamma, beta = (rng.standard_normal(c, dtype=np.float32) for _ in range(2))
    x, gy, z = (a.reshape(-1, c) for a in (image, gimage, other))
    hi, lo, variance, invstd = kernels.batch_norm_statistics(x, EPS)
    y = kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, z, True)
    statistics, size = (hi, lo, invstd), x.nbytes

    def forward(t: Any, a: Any, b: Any) -> Any:
        return torch.nn.functional.batch_norm(t, None, None, a, b, True, 0.1, EPS)

    def backward(gt: Any, t: Any, a: Any, mean: Any, s: Any) -> Any:
        return torch.ops.aten.native_batch_norm_backward(gt, t, a, None, None, mean, s, True, EPS, [True] * 3)

    def relu_backward(gt: Any, out: Any, *given: Any) -> Any:
        gt = torch.ops.aten.threshold_backward(gt, out, 0)
        return *backward(gt, *given), gt

    def evaluation(t: Any, *given: Any) -> Any:
        return torch.nn.functional.batch_norm(t, *given, False, 0.1, EPS)

    yield Case("batch norm", (x, gamma, beta, None, False), 2 * size, forward, (image, gamma, beta), op=batch_norm)
    yield Case(
        "batch norm + add + ReLU", (x, gamma, beta, z, True), 3 * size,
        lambda t, a, b, u: forward(t, a, b).add_(u).relu_(), (image, gamma, beta, other), op=batch_norm,
    )  # fmt: skip
    yield Case("batch_norm_apply", (x, *statistics, gamma, beta, None, False), 2 * size)
    yield Case("batch_norm_grad", (gy, x, *statistics, gamma), 3 * size, backward, (gimage, image, gamma, hi, invstd))
    yield Case(
        "batch_norm_relu_grad", (gy, y, x, *statistics, gamma, True), 5 * size,
        relu_backward, (gimage, y.reshape(shape), image, gamma, hi, invstd),
    )  # fmt: skip
    yield Case(
        "batch_norm_eval", (x, hi, variance, gamma, beta, EPS, None, False), 2 * size,
        evaluation, (image, hi, variance, gamma, beta),
    )  # fmt: skip
    yield Case(
        "batch_norm_eval", (x, hi, variance, gamma, beta, EPS, z, True), 3 * size,
        lambda t, u, *given: evaluation(t, *given).add_(u).relu_(), (image, other, hi, variance, gamma, beta),
        note="+ add + ReLU",
    )  # fmt: skip
    view, weights = (n, h * w, groups, c // groups), (groups, c // groups)
    grouped = x.reshape(view), gamma.reshape(weights), beta.reshape(weights)
    yield Case(
        "group norm", grouped, 2 * size,
        lambda t, a, b: torch.nn.functional.group_norm(t, groups, a, b, EPS), (image, gamma, beta),
        lambda out: [out.reshape(view)], op=group_norm,
    )  # fmt: skip
    _, hi, lo, invstd = kernels.group_norm(*grouped, EPS)
    yield Case(
        "group_norm_grad", (gy.reshape(view), grouped[0], hi, lo, invstd, grouped[1]), 3 * size,
        lambda gt, t, a, mean, s: torch.ops.aten.native_group_norm_backward(
            gt, t, mean, s, a, n, c, h * w, groups, [True] * 3
        ),
        (gimage, image, gamma, hi.reshape(n, groups), invstd.reshape(n, groups)),
        lambda gx, ga, gb: [gx.reshape(view), ga.reshape(weights), gb.reshape(weights)],
    )  # fmt: skip


def main() -> None:
    args = cases.parser(__doc__, build, ODD[0], batch=128).parse_args()
    with cases.start("bench_norm", args, build, ODD) as run:
        cases.measure_all(run, build, dict.fromkeys(layer.y_shape(args.batch) for layer in layers.walk("resnet18", 32)))


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
