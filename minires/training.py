"""Small helpers around a training loop, which stays in the user's own file: averages, progress, logs, exit codes."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from . import threads
from .autograd import no_grad
from .cli import ArgumentParser as ArgumentParser
from .cli import exit_code as exit_code
from .cli import natural as natural
from .cli import positive as positive
from .cli import positive_number as positive_number
from .data import DataLoader
from .device import array_module, synchronize
from .errors import ArgumentError, DataError, DivergedError
from .kernels import PRECISIONS, get_precision, set_precision, set_tuning
from .nn import Module
from .ops import cross_entropy
from .tensor import Tensor

BETWEEN = 0.5  # seconds between two texts of a bar


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """--threads, --precision, --tf32 and --tune, for `set_kernel_options`."""
    add = parser.add_argument
    add("--threads", type=positive, help="threads of kernels and BLAS (default: MINIRES_NUM_THREADS, or all cores)")
    precision = get_precision()
    add("--precision", choices=PRECISIONS, default=precision, help="of convolutions (default %(default)s)")
    tf32 = "on a GPU, products of numbers rounded to 10 bits on tensor cores: --precision tf32"
    add("--tf32", action="store_const", const="tf32", dest="precision", help=tf32)
    tune = "measure which kernel is the fastest for each shape, and remember it, in FILE also for later runs"
    add("--tune", nargs="?", const="", metavar="FILE", help=tune)


def set_kernel_options(args: argparse.Namespace) -> None:
    """Put what the options of `add_kernel_options` say into force, for the whole process."""
    if args.threads is not None:
        threads.set_num_threads(args.threads)
    set_precision(args.precision)
    if args.tune is not None:
        set_tuning(True, cache=args.tune or None)


class Average:
    """The mean of values that stand for unequal numbers of examples.

    Values on a GPU are summed there: only `mean` and `last` wait for them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._total: Any = 0.0
        self._last: Any = float("nan")

    def add(self, value: float | Tensor, count: int) -> None:
        """Count `value`, the mean over `count` examples, in."""
        if isinstance(value, Tensor):
            value = value.item() if value.device == "cpu" else value.data.astype("float64")
        self._total, self.count, self._last = self._total + value * count, self.count + count, value

    @property
    def mean(self) -> float:
        """The mean over all examples so far; NaN before the first, or where one value was."""
        return float(self._total) / self.count if self.count else float("nan")

    @property
    def last(self) -> float:
        """The value that was added last."""
        return float(self._last)


def accuracy(logits: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """The share of rows of logits (N, C) with the label (N,) among their `k` largest, in percent: one number, float64.

    Of equal entries those of lower numbers count as larger, so that logits which are all alike are no better than a
    guess. A row that holds a NaN is wrong, whatever its label.
    """
    x = logits.data
    if k == 1:
        right = x.argmax(axis=1) == labels.data
    else:
        order = array_module(x).argsort(-x, axis=1, kind="stable")
        right = (order[:, :k] == labels.data[:, None]).any(axis=1)
    right &= (x == x).all(axis=1)  # NaN, which argmax and argsort take for some number, is not equal to itself
    return Tensor(100 * right.mean() if len(logits) else np.float64("nan"))


def check_finite(loss: Average) -> None:
    """Raises DivergedError if a loss that was added is infinite or NaN. On a GPU it waits: call it where you print."""
    if not math.isfinite(loss.mean):
        raise DivergedError(
            f"the loss is {loss.mean} after {loss.count:,} examples: try a smaller learning rate; run the step under "
            "minires.detect_anomaly() to find the op that made it"
        )


def evaluate(
    model: Module, batches: Iterable[tuple[Tensor, Tensor]], device: str = "cpu", top: Sequence[int] = (1,)
) -> tuple[float, ...]:
    """Mean cross-entropy and accuracy in percent over all examples, in evaluation mode and without graph.

    An accuracy for each number in `top`: of the label being among that many first. Raises DataError where there is no
    example.
    """
    loss, right = Average(), [Average() for _ in top]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            for images, labels in batches:
                images, labels = images.to(device), labels.to(device)
                logits = model(images)
                loss.add(cross_entropy(logits, labels), len(images))
                for average, k in zip(right, top, strict=True):
                    average.add(accuracy(logits, labels, k), len(images))
    finally:  # each module's own mode: some may have been frozen
        for module, mode in modes:
            module.training = mode
    if not loss.count:
        raise DataError("evaluate: there is no example to average over; is the data set empty?")
    return loss.mean, *(average.mean for average in right)


class Stopwatch:
    """Batches of a loader, over and over for about so many seconds, and in `times` how long the work on each took.

    That is from asking for a batch to asking for the next, when a GPU has done what it was given. The first ones, in
    which memory is mapped and kernels are compiled, count in `seconds`, but not in `median`.
    """

    LEAST = 4

    def __init__(self, loader: DataLoader, seconds: float, device: str = "cpu") -> None:
        self.loader, self.seconds, self.device = loader, seconds, device
        self.times: list[float] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        begin = start = time.perf_counter()
        for batch in itertools.chain.from_iterable(itertools.repeat(self.loader)):
            yield batch
            synchronize(self.device)
            now = time.perf_counter()
            self.times.append(now - start)
            start = now
            if len(self.times) >= self.LEAST and now - begin >= self.seconds:
                return

    @property
    def median(self) -> float:
        """The median of the times, in seconds, without the first of them."""
        return statistics.median(self.times[1:])


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: "1:02:03", or "2 days, 1:02:03"."""
    return str(datetime.timedelta(seconds=round(seconds)))


class Progress:
    """The progress of one epoch: a bar on a terminal, else a line every `every` batches and at the end.

    Without a title nothing is shown.
    """

    def __init__(self, title: str | None, total: int, every: int = 100) -> None:
        self.title, self.total, self.every = title, total, every
        self.done, self.start = 0, time.perf_counter()
        self.bar: Any = _bar() if title is not None and sys.stdout.isatty() else None
        self.shown = -math.inf

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, text: Callable[[], str]) -> None:
        """One batch is done; `text()` says how it stands. Called only when that is shown: it may wait for a GPU."""
        self.done += 1
        now = time.perf_counter()
        if self.bar is not None:
            if now - self.shown > BETWEEN or self.done == self.total:
                self.shown = now
                self.bar.update(self.task, text=text())
            self.bar.update(self.task, completed=self.done)
        elif self.title is not None and (self.done % self.every == 0 or self.done == self.total):
            left = (now - self.start) / self.done * (self.total - self.done)
            print(f"{self.title}[{self.done}/{self.total}]  {text()}  eta {duration(left)}", flush=True)


def _bar() -> Any:
    """A progress bar of rich's, or None where rich is not installed."""
    try:
        from rich import progress
    except ImportError:
        return None
    columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
    return progress.Progress(
        progress.TextColumn("{task.description}"), *columns, progress.TextColumn("{task.fields[text]}"), transient=True
    )


class RunLog:
    """A file of JSON lines, one record each, that is complete after every line."""

    def __init__(self, path: Path, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """Start the file with `records`: those of the run that this one goes on with."""
        self.path, self.records = path, list(records)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records))

    def write(self, **record: Any) -> None:
        """Append a record."""
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def unused(given: str) -> Path:
    """The folder, whether it is there or not. Raises ArgumentError if it holds a run."""
    folder = Path(given)
    if (folder / "log.jsonl").exists() or (folder / "last.safetensors").exists():
        raise ArgumentError(f"{folder} holds a run already: choose another --output-dir, or go on with it by --resume")
    return folder


def new_run_folder(name: str, given: str | None = None) -> Path:
    """The folder of a new run: `given`, which must not hold a run yet, or a new runs/<name>-<date>-<time>."""
    if given:
        folder = unused(given)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    stem = Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    numbered = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
    folder = next(folder for folder in itertools.chain([stem], numbered) if not folder.exists())
    folder.mkdir(parents=True)  # which fails if another run was faster
    return folder
