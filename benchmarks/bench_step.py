"""Time a whole training step (forward, loss, backward, SGD) or inference beside PyTorch's, in both of its layouts.

    python -m benchmarks.bench_step --model resnet18 --batch 128
    python -m benchmarks.bench_step --batch 1 --batch 32 --batch 128 --inference --precision both
    python -m benchmarks.bench_step --batch 128 --memory     peak memory and page faults, each in a process of its own
    python -m benchmarks.bench_step --batch 128 --scaling    1 thread, 2, 4, ... as far as there are cores

All start from the same weights. Before anything is timed, one step must agree with PyTorch's in float64, and the first
call of each contender with PyTorch's in float32. Needs torch==2.13.0.
"""

import argparse
import copy
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Contender
from benchmarks.report import Row, Work, table
from benchmarks.steps import LAYOUTS, Minires, PyTorch, import_torch, random_batch, set_threads
from minires import memory, models, threads, training
from minires.errors import ArgumentError

COMPILED = "torch.compile"
PROCESSES = 2  # of each contender for --memory: what they take hardly varies
# Beside PyTorch in float32: the loss relative to it, all weights' changes by their L2 norm, logits relative to their
# rms. A ReLU input near 0 that rounds to the other side moves gradients: PyTorch's own two layouts differ by 6e-3.
TOLERANCES = {
    "exact": {"loss": 1e-5, "step": 0.03, "logits": 1e-4},
    "fast": {"loss": 1e-3, "step": 0.1, "logits": 1e-2},
}


def arguments() -> argparse.Namespace:
    parser = harness.arguments(__doc__, rounds=7, precisions=("fast", "exact", "both"))
    add = parser.add_argument
    add("--model", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)")
    add("--batch", type=training.positive, action="append", help="images a step; may be repeated (default 128)")
    add("--inference", action="store_true", help="time logits in evaluation mode instead of the training step")
    add("--compile", action="store_true", help="torch.compile, channels-last, as a further contender")
    add("--no-check", action="store_true", help="time without checking first")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--memory", action="store_true", help="measure training in whole processes instead")
    other.add_argument("--scaling", action="store_true", help="with 1, 2, 4, ... threads, and the speed-up")
    return parser.parse_args()


def check_float64(name: str, model: models.ResNet) -> None:
    """Both take one step in float64, from the same weights: the loss and every weight's change must agree to 1e-9.

    In float64, since a ReLU input near 0 that rounds to the other side moves float32 gradients by up to a hundredth.
    """
    images, labels = random_batch(4)
    images = images.astype(np.float64)
    ours = Minires(copy.deepcopy(model).to("float64"), images, labels, "exact")
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


def check_float32(contenders: Mapping[str, Any], inference: bool) -> dict[str, dict[str, float]]:
    """The first call of each, beside that of the first, by the names in TOLERANCES: how far off they are."""
    (reference, right), *others = ((name, first_call(c, inference)) for name, c in contenders.items())
    found = {}
    for name, got in others:
        bounds = TOLERANCES[getattr(contenders[name], "precision", "exact")]
        found[name] = {what: distance(got[what], right[what]) for what in right}
        for what, off in found[name].items():
            if not off <= bounds[what]:  # NaN is refused too
                raise ArgumentError(
                    f"{what} of {name} is off {reference}'s by {off:.1e}, more than {bounds[what]:.0e}, so nothing was"
                    " timed"
                )
    return {name: {f"{what} off": off for what, off in numbers.items()} for name, numbers in found.items()}


def first_call(contender: Any, inference: bool) -> dict[str, np.ndarray]:
    """What is compared: logits, or the loss and all weights' changes."""
    if inference:
        return {"logits": contender.infer()}
    before = contender.weights()
    loss = contender.train()
    step = [(after - before[name]).ravel() for name, after in sorted(contender.weights().items())]
    return {"loss": np.array([loss]), "step": np.concatenate(step)}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The L2 norm of a - b over that of b."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def state(model: models.ResNet) -> dict[str, np.ndarray]:
    """The weights in PyTorch's layout."""
    return {key: value.numpy() for key, value in model.state_dict("OIHW").items()}


def contend(args: argparse.Namespace, model: models.ResNet, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """All contenders by name, PyTorch's first."""
    given = args.model, state(model), images, labels
    contenders: dict[str, Any] = {name: PyTorch(*given, layout) for name, layout in LAYOUTS.items()}
    if args.compile:
        trial, contenders[COMPILED] = (PyTorch(*given, "channels_last", compiled=True) for _ in range(2))
        try:
            first_call(trial, args.inference)
        except Exception as error:  # whatever the compiler lacks: it is an extra
            print(f"{COMPILED} is left out: {str(error).splitlines()[0][:100]}")
            del contenders[COMPILED]
    return contenders | {f"minires {p}": Minires(copy.deepcopy(model), images, labels, p) for p in precisions(args)}


def precisions(args: argparse.Namespace) -> Sequence[str]:
    """minires' settings that are measured."""
    return ("exact", "fast") if args.precision == "both" else (args.precision,)


def measure(run: harness.Run, args: argparse.Namespace, model: models.ResNet, batch: int) -> None:
    """Time all contenders at one batch size."""
    contenders = contend(args, model, *random_batch(batch))
    # the first call fills the pool of memory, and is no part of the warm-up that the harness does
    off = {} if args.no_check else check_float32(contenders, args.inference)
    calls = {name: c.infer if args.inference else c.train for name, c in contenders.items()}
    step = "inference" if args.inference else "training step"
    if args.scaling:
        counts = thread_counts()
        calls = {
            f"{name}, {n} threads": functools.partial(with_threads, n, call)
            for name, call in calls.items()
            for n in counts
        }
        off, step = {}, f"{step}, threads"
    shape = f"{args.model}, 32x32 images, batch {batch}"
    rows = run.measure(step, shape, {name: Contender(call) for name, call in calls.items()}, items=batch, extra=off)
    if args.scaling:
        speed_ups(rows, len(counts))
    else:
        ratios("images/s", {row.contender: batch / row.median for row in rows}, max)


def measure_memory(run: harness.Run, args: argparse.Namespace, batch: int) -> None:
    """Train in processes that hold one contender each, in turns: peak memory, and what the steady state maps."""
    small = {f"minires {p}, small pages": f"minires {p}" for p in precisions(args)}
    contenders = {name: name for name in (*LAYOUTS, *(f"minires {p}" for p in precisions(args)))} | small
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(PROCESSES):
        for name, contender in contenders.items():
            found[name].append(train_alone(contender, args.model, batch, name in small))
    rows = []
    for name, results in found.items():
        median = {
            what: statistics.median(result[what] for result in results) for what in results[0] if what != "seconds"
        }
        extra = {
            "peak MB": median["peak"] / 1e6,
            "before step 1": median["before"] / 1e6,
            "faults/step": median["faults"],
        }
        if name not in LAYOUTS:
            extra["new blocks"] = median["blocks"]
        seconds = [second for result in results for second in result["seconds"]]
        shape = f"{args.model}, 32x32 images, batch {batch}"
        rows.append(Row("training process", shape, name, seconds, Work(), 0.0, items=batch, extra=extra))
    print(f"training process, {rows[0].shape}, {PROCESSES} of each; times, faults and blocks of steps 4 to 8:")
    table(rows)
    run.report.rows += rows
    ratios("peak memory", {row.contender: row.extra["peak MB"] for row in rows if row.contender not in small}, min)


def train_alone(contender: str, model: str, batch: int, small_pages: bool) -> dict[str, Any]:
    """What step_process tells of a contender. With small pages, NumPy does not ask the system for huge ones."""
    environment = os.environ | ({"NUMPY_MADVISE_HUGEPAGE": "0"} if small_pages else {})
    command = [
        sys.executable,
        "-m",
        "benchmarks.step_process",
        contender,
        model,
        str(batch),
        str(threads.get_num_threads()),
    ]
    folder = Path(__file__).parents[1]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if ended.returncode:
        raise ArgumentError(f"{' '.join(command)} failed: {ended.stderr.strip().splitlines()[-1:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def thread_counts() -> list[int]:
    """1, 2, 4, ... and as many as there are cores."""
    cores = threads.available()
    return [1 << power for power in range(cores.bit_length()) if 1 << power < cores] + [cores]


def with_threads(count: int, call: Any) -> Any:
    """The call with so many threads."""
    set_threads(count)
    return call()


def speed_ups(rows: Sequence[Row], counts: int) -> None:
    """Each contender's speed over that of its own first row, of one thread."""
    for first in range(0, len(rows), counts):
        for row in rows[first + 1 : first + counts]:
            row.extra["speed-up"] = rows[first].median / row.median
            print(f"  {row.contender} over 1: {row.extra['speed-up']:.2f}")


def ratios(what: str, values: Mapping[str, float], better: Callable[[Iterable[float]], float]) -> None:
    """Each minires beside the better of PyTorch's layouts, and beside torch.compile."""
    best = better(values[name] for name in LAYOUTS)
    for name, value in values.items():
        if name.startswith("minires"):
            beside = f"; over {COMPILED}: {value / values[COMPILED]:.2f}" if COMPILED in values else ""
            print(f"  {what} of {name} over the better of PyTorch's layouts: {value / best:.2f}{beside}")


def main() -> None:
    args = arguments()
    import_torch()
    model = models.build(args.model, num_classes=10, stem="cifar", generator=np.random.default_rng(0))
    with harness.Run("bench_step", args, with_peaks=False) as run:
        if not (args.no_check or args.memory):
            check_float64(args.model, model)
        for batch in args.batch or [128]:
            if args.memory:
                measure_memory(run, args, batch)
            else:
                measure(run, args, model, batch)
            memory.release()  # what one batch size needed does not count against the next


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
