"""What the parts of the GPU report share: results are checked, then timed on the device in turns; what went wrong.

A part that fails, or a contender that computes something else, is a problem that the report lists, and no reason for
the others to stop. Notes are what a reader should know, such as that there is no PyTorch.
"""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from benchmarks import checking
from benchmarks.checking import EXACT, Error
from benchmarks.harness import Contender
from benchmarks.peaks import Peaks
from benchmarks.report import Report, Row, Work
from benchmarks.timing import interleaved
from minires import device
from minires.kernels import registry
from minires.kernels.dispatch import Variant

# A tensor core may cut the last 13 bits of a number off instead of rounding them: 6e-3 and 8e-4 in a convolution.
TF32 = Error(1e-2, 1e-3)
SAME = Error(0, 0)
MOST = 1000  # calls that are queued in one turn


def product(terms: int) -> Error:
    """The bound of float32 products that add `terms` numbers one after the other, as a GPU's threads do.

    Rounding such a sum takes 3e-8 * sqrt(terms) of the result's rms; three times that is admitted.
    """
    rms = max(EXACT.rms, 1e-7 * math.sqrt(terms))
    return Error(max(EXACT.max, 10 * rms), rms)


class Sizes(NamedTuple):
    """What is measured; QUICK shows that everything runs."""

    batches: tuple[int, ...] = (128, 512)  # of training steps; single kernels take the first
    image: int = 32
    layers: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    images: int = 50_000  # of the data set on the device
    gemm: int = 8192  # rows of the square matrices
    copied: int = 1 << 30  # bytes
    turn: float = 0.02  # seconds of a contender's turn
    step_turn: float = 0.3


QUICK = Sizes((4,), 8, (1, 1), (16, 32), 16, 32, 1 << 12, 0, 0)


@dataclass
class GpuReport(Report):
    """Rows, and all else that the file holds."""

    device: dict[str, Any] = field(default_factory=dict)
    tf32: float | None = None  # FLOP/s of the matrix product in TF32; `peaks` has the strict one
    parts: dict[str, str] = field(default_factory=dict)  # "done", or what ended it
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)  # stems of `.cu` files all of whose variants gave right results

    def markdown(self, rows: Sequence[Row]) -> str:
        """Rows as a table of Markdown's."""
        cells = []
        for row in rows:
            peaks = self.peaks
            if peaks and self.tf32 and "tf32" in row.contender.lower():
                peaks = Peaks(self.tf32, peaks.copy)
            cells.append({"what": row.name, "shape": row.shape} | row.columns(peaks))
        names = list(dict.fromkeys(name for row in cells for name in row))
        lines = [names, ["---"] * 3 + ["---:"] * (len(names) - 3), *([row.get(n, "") for n in names] for row in cells)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Run:
    """A report in the making."""

    def __init__(self, report: GpuReport, sizes: Sizes, rounds: int) -> None:
        self.report, self.sizes, self.rounds = report, sizes, rounds
        self.results: dict[str, dict[str, bool]] = defaultdict(dict)  # stem -> kernel and variant -> always right

    def problem(self, text: str) -> None:
        """Something is wrong."""
        self.report.problems.append(text)
        print(f"PROBLEM: {text}", flush=True)

    def note(self, text: str) -> None:
        """Something to know; once is enough."""
        if text not in self.report.notes:
            self.report.notes.append(text)
            print(f"note: {text}", flush=True)

    def wait(self) -> None:
        """Until the device has done what is queued."""
        device.synchronize("cuda")

    def measure(
        self,
        name: str,
        shape: str,
        contenders: Mapping[str, Contender],
        work: Work = Work(),  # noqa: B008
        right: Sequence[np.ndarray] | None = None,
        items: int = 0,
        extra: Mapping[str, Mapping[str, float]] | None = None,
        turn: float | None = None,
    ) -> set[str]:
        """Time those contenders whose first result is near `right`, float64 arrays; returns their names."""
        print(f"{name}, {shape}", flush=True)
        ready: dict[str, Error | None] = {}
        for who, contender in contenders.items():
            try:
                result = contender.call()
                self.wait()
                ready[who] = None if right is None else checking.error(contender.arrays(result), right)
                del result
            except Exception as error:  # whatever a library or a device raises: the others go on
                self.problem(f"{name} of {who} for {shape} failed: {described(error)}")
                continue
            found = ready[who]
            if found is not None and not found.within(contender.bound):
                del ready[who]
                self.problem(
                    f"{name} of {who} for {shape} is wrong, so it was not timed: its error is {found}; up to"
                    f" {contender.bound} is admitted"
                )
        times = self.times({who: contenders[who].call for who in ready}, self.sizes.turn if turn is None else turn)
        for who, found in ready.items():
            flops = contenders[who].flops
            more = dict((extra or {}).get(who, {}))
            self.report.rows.append(
                Row(
                    name,
                    shape,
                    who,
                    times[who],
                    work,
                    work.flops if flops is None else flops,
                    found,
                    items,
                    False,
                    more,
                )
            )
        return set(ready)

    def times(self, calls: Mapping[str, Callable[[], object]], turn: float) -> dict[str, list[float]]:
        """Seconds of a call in each round: in its turn a contender queues so many calls, and waits once."""
        counts = {who: self.count(call, turn) for who, call in calls.items()}
        turns = {who: functools.partial(self.queue, call, counts[who]) for who, call in calls.items()}
        seconds = interleaved(turns, self.rounds)
        return {who: [second / counts[who] for second in seconds[who]] for who in calls}

    def count(self, call: Callable[[], object], turn: float) -> int:
        """How many calls fill a turn."""
        start = time.perf_counter()
        self.queue(call, 1)
        return min(MOST, max(1, math.ceil(turn / (time.perf_counter() - start))))

    def queue(self, call: Callable[[], object], times: int) -> None:
        """Call, then wait for the device."""
        for _ in range(times):
            call()
        self.wait()

    def hold(self, kernel: str, passed: Container[str]) -> None:
        """Note which CUDA variants of a kernel gave right results; others failed, or were not even tried."""
        for stem, name, v in variants():
            if name == kernel:
                was = self.results[stem].get(f"{name} {v.name}", True)
                self.results[stem][f"{name} {v.name}"] = was and v.name in passed

    def verified(self) -> list[str]:
        """Stems whose variants were all met, and always right."""
        met = defaultdict(list)
        for stem, name, v in variants():
            met[stem].append(self.results[stem].get(f"{name} {v.name}", False))
        return sorted(stem for stem, right in met.items() if all(right))


def variants() -> Iterator[tuple[str, str, Variant]]:
    """All for CUDA: the stem of the `.cu` file, the kernel's name, and the variant.

    A launcher's module has the name of its `.cu` file.
    """
    for entry in registry.values():
        for v in entry.variants:
            if v.accepts is not None and v.accepts.device == "cuda":
                yield v.function.__module__.rpartition(".")[2], entry.name, v


def described(error: Exception) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def to_gpu(value: Any) -> Any:
    """Arrays, and those in lists, on the device."""
    return mapped(lambda array: device.to_device(array, device.resolve("cuda")), value)


def to_host(value: Any) -> list[np.ndarray]:
    """The arrays in a result or among arguments, from the device."""
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in to_host(part)]
    return [device.to_device(value, "cpu")] if hasattr(value, "dtype") and hasattr(value, "shape") else []


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """`value` with its arrays changed, also in lists."""
    if isinstance(value, list):
        return [mapped(change, part) for part in value]
    return change(value) if hasattr(value, "dtype") and hasattr(value, "shape") else value
