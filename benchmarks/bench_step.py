"""Time a whole training step (forward, loss, backward, SGD) or inference beside PyTorch's, in both of its layouts.

    python -m benchmarks.bench_step --model resnet18 --batch 128
    python -m benchmarks.bench_step --batch 1 --batch 32 --batch 128 --inference --precision both

All start from the same weights. Before anything is timed, one step must agree in float64, and what each contender
computes in float32 must be near float64. Needs torch==2.13.0.
"""

import argparse
import copy
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.steps import (
    LAYOUTS,
    Minires,
    PyTorch,
    at_precision,
    default_precision,
    import_torch,
    random_batch,
    set_threads,
)
from benchmarks.timing import interleaved, spread
from minires import environment, memory, models, threads, training
from minires.errors import ArgumentError

COMPILED = "torch.compile"
WARMUP = 2  # in the first step the pool of memory fills, in the second what only later steps need
LEAST_SECONDS = 0.1  # shorter calls are timed many at a time
# Of float32 to float64, over the whole net: of the loss relative to it, of logits relative to their rms. PyTorch, too,
# has to keep those of "exact".
TOLERANCES = {"exact": {"loss": 1e-5, "logits": 1e-4}, "fast": {"loss": 1e-3, "logits": 1e-2}}


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)")
    add("--batch", type=training.positive, action="append", help="images a step; may be repeated (default 128)")
    add("--rounds", type=training.positive, default=7, help="timed turns of each contender (default %(default)s)")
    add("--threads", type=training.positive, help="threads for minires, BLAS and PyTorch (default: all cores)")
    add("--inference", action="store_true", help="time logits in evaluation mode instead of the training step")
    add(
        "--precision",
        choices=("fast", "exact", "both"),
        default=default_precision(),
        help="of minires (default %(default)s)",
    )
    add("--compile", action="store_true", help="torch.compile, channels-last, as a further contender")
    add("--no-check", action="store_true", help="time without checking first")
    return parser.parse_args()


def check_step(name: str, model: models.ResNet) -> None:
    """Both take one step in float64, from the same weights: the loss and every weight's change must agree to 1e-9.

    In float64, since a ReLU input near 0 that rounds to the other side moves float32 gradients by up to a hundredth.
    """
    images, labels = random_batch(4)
    images = images.astype(np.float64)
    ours = Minires(copy.deepcopy(model).to("float64"), images, labels)
    theirs = PyTorch(name, state(model), images, labels)
    before = ours.weights()
    losses = ours.train(), theirs.train()
    worst = abs(losses[0] - losses[1]) / abs(losses[1])
    mine = ours.weights()
    for key, other in theirs.weights().items():
        worst = max(worst, float(np.abs(mine[key] - other).max() / np.abs(other - before[key]).max()))
    if not worst <= 1e-9:
        raise ArgumentError(f"one step from the same weights differs by {worst:.1e}, so nothing was timed")
    print(f"checked: one float64 step on {len(images)} images differs by at most {worst:.1e}, relative to the step")


def check_float32(contenders: Mapping[str, Any], exact: PyTorch, inference: bool) -> None:
    """What each contender computes first, against PyTorch's float64: the loss, or the logits."""
    what = "logits" if inference else "loss"
    expected = np.array(exact.infer() if inference else exact.loss())
    scale = math.sqrt(float(np.mean(expected * expected)))
    errors = []
    for name, contender in contenders.items():
        got = contender.infer() if inference else contender.train()
        error = float(np.abs(got - expected).max()) / scale
        tolerance = TOLERANCES[getattr(contender, "precision", "exact")][what]
        if not error <= tolerance:
            raise ArgumentError(f"{what} of {name} off by {error:.1e} (allowed {tolerance:.0e}), so nothing was timed")
        errors.append(f"{name} {error:.0e}")
    print(f"checked: float32 {what} off float64 by {', '.join(errors)}")


def state(model: models.ResNet) -> dict[str, np.ndarray]:
    """The weights in PyTorch's layout."""
    return {key: value.numpy() for key, value in model.state_dict("OIHW").items()}


def contend(args: argparse.Namespace, model: models.ResNet, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """All contenders by name, PyTorch's first."""
    given = args.model, state(model), images, labels
    contenders: dict[str, Any] = {name: PyTorch(*given, layout) for name, layout in LAYOUTS.items()}
    if args.compile:
        contenders[COMPILED] = compiled = PyTorch(*given, "channels_last", compiled=True)
        try:
            (compiled.infer if args.inference else compiled.loss)()
        except Exception as error:  # whatever the compiler lacks: it is an extra
            print(f"{COMPILED} is left out: {str(error).splitlines()[0][:100]}")
            del contenders[COMPILED]
    precisions = ("exact", "fast") if args.precision == "both" else (args.precision,)
    return contenders | {f"minires {p}": Minires(model, images, labels, p) for p in precisions}


def repeated(call: Callable[[], Any], count: int) -> Callable[[], None]:
    """A function that calls `count` times."""

    def run() -> None:
        for _ in range(count):
            call()

    return run


def measure(args: argparse.Namespace, model: models.ResNet, batch: int) -> dict[str, list[float]]:
    """Seconds of each contender's calls at one batch size, checked first."""
    images, labels = random_batch(batch)
    contenders = contend(args, model, images, labels)
    if not args.no_check:
        check_float32(contenders, PyTorch(args.model, state(model), images.astype(np.float64), labels), args.inference)
    calls = {name: c.infer if args.inference else c.train for name, c in contenders.items()}
    once = interleaved(calls, rounds=1, warmup=WARMUP - 1)  # the last turn of warming up tells how long a call takes
    count = math.ceil(LEAST_SECONDS * len(calls) / sum(seconds for (seconds,) in once.values()))
    times = interleaved({name: repeated(call, count) for name, call in calls.items()}, args.rounds, warmup=0)
    return {name: [total / count for total in seconds] for name, seconds in times.items()}


def report(args: argparse.Namespace, batch: int, times: Mapping[str, list[float]]) -> None:
    step = "inference" if args.inference else "training step"
    print(f"{args.model}, 32x32 images, batch {batch}, {step}, median (least, greatest) of {args.rounds}:")
    for name, seconds in times.items():
        median, least, greatest = spread(seconds)
        print(f"  {name:<22} {batch / median:7.1f} images/s   {median:.4f} s ({least:.4f}, {greatest:.4f})")
    better = min(spread(times[name])[0] for name in LAYOUTS)
    for name in times:
        if name.startswith("minires"):
            median = spread(times[name])[0]
            beside = f"; / {COMPILED}: {spread(times[COMPILED])[0] / median:.2f}" if COMPILED in times else ""
            print(f"  {name} / the better of PyTorch's layouts: {better / median:.2f}{beside}")


def main() -> None:
    args = arguments()
    torch, *_ = import_torch()
    count = args.threads or threads.available()
    set_threads(count)
    torch_version = f"PyTorch {torch.__version__}, {count} threads"
    print(environment.header(torch_version, environment.processor(), f"precision {args.precision}"))
    model = models.build(args.model, num_classes=10, stem="cifar", generator=np.random.default_rng(0))
    if not args.no_check:
        with at_precision("exact"):
            check_step(args.model, model)
    for batch in args.batch or [128]:
        report(args, batch, measure(args, model, batch))
        memory.release()  # what one batch size needed does not count against the next


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
