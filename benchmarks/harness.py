"""What all benchmarks share: their options, the check before the clock starts, the table and the file.

    def main() -> None:
        args = harness.arguments(__doc__, batch=128).parse_args()
        with harness.Run("bench_norm", args, odd={"batch_norm_grad": odd_batch_norm_grad}) as run:
            for x, gy, ... in layers:
                run.kernel("batch_norm_grad", f"{x.shape}", (gy, x, hi, lo, invstd, gamma), Work(flops, bytes), peers)

`Run.kernel` times all implementations in the registry that take these arguments, and the user's own (--kernel), beside
contenders of other libraries; `Run.measure` times any contenders, such as whole training steps.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import checking, own_kernel, peaks, report
from benchmarks.checking import EXACT, FAST, Error
from benchmarks.report import Row, Work
from benchmarks.timing import SETTLE, interleaved
from minires import environment, threads, training
from minires.kernels import get_precision, precision, registry

BOUNDS = {"exact": EXACT, "fast": FAST}  # of the error of minires's own variants, by their precision
Cases = Callable[[np.random.Generator], Iterable[Sequence[Any]]]  # arguments of a kernel, of odd shapes, float32


def same(result: Any) -> Any:
    """The result as it is."""
    return result


class Contender(NamedTuple):
    """One side of a comparison: a call without arguments, ready to be timed."""

    call: Callable[[], Any]
    arrays: Callable[[Any], Any] = same  # what `call` returned, as array or tuple of arrays like the reference's
    flops: float | None = None  # what a call executes, if it is not work.flops
    bound: Error = FAST  # the error that it promises to keep within
    chosen: bool = False  # whether minires takes this one by itself


def arguments(
    description: str | None, batch: int | None = None, rounds: int = 5, precisions: Sequence[str] = ("exact", "fast")
) -> training.ArgumentParser:
    """A parser with what all benchmarks know; --batch too if there is a default for it."""
    parser = training.ArgumentParser(description)
    add = parser.add_argument
    if batch is not None:
        add("--batch", type=training.positive, default=batch, help="images a call (default %(default)s)")
    add("--rounds", type=training.positive, default=rounds, help="turns of each contender (default %(default)s)")
    settling = "that a contender runs before its turn, which lasts half as long, or a call (default %(default)s)"
    add("--settle", type=_seconds, default=SETTLE, metavar="SECONDS", help=settling)
    add("--threads", type=training.positive, help="for minires, BLAS and PyTorch (default: all cores)")
    add("--precision", choices=precisions, default="fast", help="of minires's convolutions (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all rows and what they depend on to FILE")
    return parser


def _seconds(text: str) -> float:
    """An argparse type: seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < 60:
        raise argparse.ArgumentTypeError(f"{value} is not within 0 and 60 seconds")
    return value


def add_kernel_options(parser: argparse.ArgumentParser, kernels: Iterable[str]) -> None:
    """--variants, --kernel and --of, for benchmarks of the named kernels."""
    names = ", ".join(kernels)
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="time these of minires's only (default: all)")
    parser.add_argument("--kernel", metavar="FILE.py:FUNCTION", help="check and time a kernel of your own, too")
    parser.add_argument(
        "--of", metavar="NAME", help=f"the kernel whose arguments it takes, of: {names} (default: by name)"
    )


class Run(contextlib.AbstractContextManager["Run"]):
    """A benchmark that runs: sets threads and precision, measures the peaks, collects rows, writes the file.

    `odd` gives, for each kernel that --kernel may stand for, arguments of odd shapes to check it on.
    """

    def __init__(
        self, benchmark: str, args: argparse.Namespace, odd: Mapping[str, Cases] | None = None, with_peaks: bool = True
    ) -> None:
        self.benchmark, self.args, self.odd, self.with_peaks = benchmark, args, odd or {}, with_peaks
        self.total, self.done, self.began = 0, 0, time.perf_counter()  # cases; set `total` for the time that is left
        self.broken: list[str] = []  # promises of exactness
        self.own: tuple[str, Callable[..., Any]] | None = None  # the kernel that the user's function stands for
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        count = self.args.threads or threads.get_num_threads()
        self.stack.callback(threads.set_num_threads, threads.get_num_threads())
        threads.set_num_threads(count)
        torch = sys.modules.get("torch")
        if torch:
            self.stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(count)
        self.stack.enter_context(threadpool_limits(count))
        if self.args.precision != "both":  # else the benchmark sets it for each of its contenders
            self.stack.enter_context(precision(self.args.precision))
        with contextlib.ExitStack() as undo:
            undo.push(self.stack.__exit__)
            self._begin(count, torch)
            undo.pop_all()
        return self

    def _begin(self, count: int, torch: Any) -> None:
        described = [f"PyTorch {torch.__version__}"] if torch else []
        described += [environment.processor(), f"{count} threads", f"precision {self.args.precision}"]
        print(environment.header(*described), flush=True)
        own_kernel.check_variants(getattr(self.args, "variants", None) or (), list(self.odd))
        where = getattr(self.args, "kernel", None)
        if where:
            kernel = own_kernel.which(where, self.args.of, list(self.odd))
            function = own_kernel.load(where)
            own_kernel.check(function, where, kernel, self.odd[kernel](np.random.default_rng(0)))
            self.own = kernel, function
        measured = peaks.measure() if self.with_peaks else None
        if measured:
            print(f"peaks: {measured}", flush=True)
        self.report = report.Report(self.benchmark, report.fingerprint(self.args.precision), measured)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.report.complete = error is None
        if self.args.json and self.report.rows:
            self.report.save(self.args.json)
            print(f"{len(self.report.rows)} rows in {self.args.json}")
        self.stack.close()
        if self.broken and error is None:
            print(f"{len(self.broken)} results are less exact than promised:", *self.broken, sep="\n  ")
            raise SystemExit(1)

    def measure(
        self,
        name: str,
        shape: str,
        contenders: Mapping[str, Contender],
        work: Work = Work(),  # noqa: B008
        reference: Callable[[], Sequence[np.ndarray]] | None = None,
        items: int = 0,
        extra: Mapping[str, Mapping[str, float]] | None = None,
        least: float | None = None,
    ) -> list[Row]:
        """Check contenders against `reference()`, float64 arrays, then time them in turns, and print a table.

        `items`, such as images, are what a call handles; `extra` holds further numbers of a contender by the heading
        of their column; a turn lasts `least` seconds (else half of --settle). Raises ArgumentError, and times nothing,
        if a result is wrong. One that is only less exact than its contender promises is timed, and told at the end.
        """
        errors: dict[str, Error] = {}
        if reference is not None:
            right = reference()
            for who, contender in contenders.items():
                result = contender.arrays(contender.call())
                given = f"{name} of {who} for {shape}"
                errors[who] = checking.verified(given, result, right)
                if not errors[who].within(contender.bound):
                    self.broken.append(f"{given}: {errors[who]}, where it promises {contender.bound}")
                del result
            del right
        settle = self.args.settle
        calls = {who: c.call for who, c in contenders.items()}
        times = interleaved(calls, self.args.rounds, settle=settle, least=settle / 2 if least is None else least)
        rows = [
            Row(
                name, shape, who, times[who], work, work.flops if c.flops is None else c.flops, errors.get(who), items,
                c.chosen, dict((extra or {}).get(who, {})),
            )
            for who, c in contenders.items()
        ]  # fmt: skip
        print(f"{self._progress()}{name}, {shape}:")
        report.table(rows, self.report.peaks)
        sys.stdout.flush()
        self.report.rows += rows
        return rows

    def _progress(self) -> str:
        """How many cases are done, and how long the others may take."""
        self.done += 1
        if not self.total:
            return ""
        left = (time.perf_counter() - self.began) / self.done * (self.total - self.done)
        return f"[{self.done}/{self.total}, {datetime.timedelta(seconds=round(left))} left] "

    def kernel(
        self,
        kernel: str,
        shape: str,
        args: Sequence[Any],
        work: Work,
        peers: Mapping[str, Contender] | None = None,
        reference: Callable[[], Sequence[np.ndarray]] | None = None,
        flops: Callable[[str], float] | None = None,
    ) -> list[Row]:
        """Measure every implementation of a kernel that takes `args`, the user's own, and `peers`.

        They are checked against the portable one in float64, or against `reference()` where that takes too much
        memory. A kernel that works in place is checked on copies, and timed on copies of its own, which it goes on
        changing. `flops` tells what the variant of a name executes, if that is not `work.flops`.
        """
        entry, args = registry[kernel], tuple(args)
        chosen = entry.choose(args, {}).name
        right = checking.reference(kernel, args) if reference is None else list(reference())
        contenders = dict(peers or {})
        for v in (entry.portable, *entry.candidates(args, {}, get_precision())):
            if not self.args.variants or v.name in self.args.variants:
                made = _contender(kernel, v.function, args, v.name == chosen, BOUNDS[v.precision])
                contenders[v.name] = made._replace(flops=flops and flops(v.name))
        if self.own and self.own[0] == kernel:
            name = self.args.kernel.rpartition(":")[2]
            contenders[f"{name} (yours)" if name in contenders else name] = _contender(kernel, self.own[1], args)
        return self.measure(kernel, shape, contenders, work, lambda: right)


def _contender(
    kernel: str, function: Callable[..., Any], args: Sequence[Any], chosen: bool = False, bound: Error = FAST
) -> Contender:
    """An implementation with its arguments."""
    if not kernel.endswith("_"):
        return Contender(functools.partial(function, *args), bound=bound, chosen=chosen)
    own = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    written = [a for a in own if isinstance(a, np.ndarray)]  # the check looks at them after the first call
    return Contender(functools.partial(function, *own), lambda _: written, bound=bound, chosen=chosen)
