"""Time a step of SGD with momentum and of AdamW over all weights of a model, beside PyTorch's; and their kernels.

    python -m benchmarks.bench_optim --model resnet18
    python -m benchmarks.bench_optim --only sgd_ --kernel mine.py:sgd_mine

PyTorch's optimizers are timed as they are by default, and with foreach and fused. GB/s counts weights, gradients and
state in, weights and state out.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import cases, peers
from benchmarks.cases import Case
from benchmarks.harness import Contender, Run
from benchmarks.report import Work
from minires import Tensor, kernels, models, optim, training
from minires.nn import Parameter

SETTINGS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "AdamW": {"lr": 1e-3, "weight_decay": 1e-2},
}
PASSES = {"SGD": 5, "AdamW": 7}  # arrays of the weights' size that a step reads and writes
FORMS: dict[str, dict[str, bool]] = {
    "PyTorch": {},
    "PyTorch foreach": {"foreach": True},
    "PyTorch fused": {"fused": True},
}
ODD = [(3, 3, 5, 7), (11,), (1, 1, 64, 130)]


def build(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[Case]:
    """The kernels for one weight, after some steps."""
    w, g, v = (rng.standard_normal(shape, dtype=np.float32) for _ in range(3))
    yield Case("sgd_", (w, g, v, 0.1, 0.9, 0.0, 5e-4, False, False), 5 * w.nbytes)
    yield Case("adamw_", (w, g, v, v * v, 3, 1e-3, (0.9, 0.999), 1e-8, 1e-2, False, False), 7 * w.nbytes)


def ours(name: str, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    """An optimizer of minires, and the arrays that it writes."""
    parameters = [Parameter(w.copy()) for w in weights]
    for parameter, g in zip(parameters, gradients, strict=True):
        parameter.grad = Tensor(g)
    return getattr(optim, name)(parameters, **SETTINGS[name]), [p.data for p in parameters]


def theirs(
    torch: Any, name: str, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray], **form: bool
) -> tuple[Any, list[np.ndarray]]:
    """PyTorch's."""
    parameters = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in weights]
    for parameter, g in zip(parameters, gradients, strict=True):
        parameter.grad = torch.from_numpy(g.copy())
    return getattr(torch.optim, name)(parameters, **SETTINGS[name], **form), [p.detach().numpy() for p in parameters]


def whole(call: Callable[[], Any], written: list[np.ndarray], chosen: bool = False) -> Contender:
    """A step whose result are the weights, one after another."""
    return Contender(call, lambda _: flat(written), chosen=chosen)


def flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """All numbers in one row."""
    return np.concatenate([array.ravel() for array in arrays])


def step(run: Run, name: str, label: str, weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> None:
    """Check and time an optimizer's step over all weights."""
    given = weights, gradients
    contenders = {}
    torch = peers.find_torch()
    for who, form in FORMS.items() if torch else ():
        optimizer, written = theirs(torch, name, *given, **form)
        contenders[who] = whole(optimizer.step, written)
    for who in ("portable", "minires"):
        optimizer, written = ours(name, *given)
        call = kernels.use("portable")(optimizer.step) if who == "portable" else optimizer.step
        contenders[who] = whole(call, written, who == "minires")

    def reference() -> list[np.ndarray]:
        optimizer, written = ours(name, *([a.astype(np.float64) for a in arrays] for arrays in given))
        with kernels.use("portable"):
            optimizer.step()
        return [flat(written)]

    size = sum(w.nbytes for w in weights)
    run.measure(f"{name} step", label, contenders, Work(bytes=PASSES[name] * size), reference)


def main() -> None:
    parser = cases.parser(__doc__, build, ODD[0], ops=[f"{name} step" for name in SETTINGS])
    parser.add_argument(
        "--model", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)"
    )
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    model = models.build(args.model, num_classes=10, stem="cifar", generator=rng)
    weights = [p.detach().numpy() for p in model.parameters()]
    gradients = [rng.standard_normal(w.shape, dtype=np.float32) for w in weights]
    largest = max((w.shape for w in weights), key=math.prod)
    label = f"{args.model}, {len(weights)} weights, {sum(w.size for w in weights):,} numbers"
    with cases.start("bench_optim", args, build, ODD) as run:
        for name in SETTINGS:
            if cases.wanted(args, f"{name} step"):
                step(run, name, label, weights, gradients)
        cases.measure_all(run, build, [largest])


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
