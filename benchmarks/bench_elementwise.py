"""Time what works element by element, and softmax with cross-entropy, beside PyTorch's.

    python -m benchmarks.bench_elementwise --batch 128
    python -m benchmarks.bench_elementwise --only relu --kernel mine.py:relu_mine

GB/s counts what must be moved: each array in and out once.
"""

import sys
from collections.abc import Iterator

import numpy as np

from benchmarks import cases, layers, peers
from benchmarks.cases import Case
from minires import kernels, training

ODD = [(1, 5, 7, 3), (3, 2, 9, 8), (2, 1, 1, 5)]


def build(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """All cases for images (N, H, W, C); cross-entropy has as many rows as there are images, and C classes."""
    torch = peers.find_torch()
    x, gy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    size = x.nbytes
    one, two = (x,), (gy, x)
    yield Case("relu", one, 2 * size, lambda t: torch.relu(t), one)
    y = kernels.relu(x)
    yield Case("relu_grad", (gy, y), 3 * size, lambda gt, out: torch.ops.aten.threshold_backward(gt, out, 0), (gy, y))
    yield Case("add", two, 3 * size, lambda a, b: torch.add(a, b), two)
    yield Case("add_", two, 3 * size, lambda a, b: (a.add_(b), b), two)
    yield Case("sigmoid", one, 2 * size, lambda t: torch.sigmoid(t), one)
    yield Case("silu", one, 2 * size, lambda t: torch.nn.functional.silu(t), one)
    yield Case("silu_grad", two, 3 * size, lambda gt, t: torch.ops.aten.silu_backward(gt, t), two)
    yield Case("gelu", one, 2 * size, lambda t: torch.nn.functional.gelu(t), one)
    yield Case("gelu_grad", two, 3 * size, lambda gt, t: torch.ops.aten.gelu_backward(gt, t), two)
    yield Case("erf", one, 2 * size, lambda t: torch.erf(t), one)
    z, g, target = x[:, 0, 0], gy[:, 0, 0, 0], rng.integers(0, shape[-1], shape[0])
    yield Case(
        "cross_entropy",
        (z, target, None),
        z.nbytes,
        lambda t, k: torch.nn.functional.cross_entropy(t, k, reduction="none"),
        (z, target),
    )
    yield Case("cross_entropy_grad", (g, z, target, None), 2 * z.nbytes)


def main() -> None:
    args = cases.parser(__doc__, build, ODD[0], batch=128).parse_args()
    with cases.start("bench_elementwise", args, build, ODD) as run:
        cases.measure_all(run, build, dict.fromkeys(layer.y_shape(args.batch) for layer in layers.walk("resnet18", 32)))


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
