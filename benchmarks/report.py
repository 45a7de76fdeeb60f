"""What a benchmark measured: rows, the machine they were measured on, the table on the terminal, the file."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.checking import Error
from benchmarks.peaks import Peaks
from benchmarks.timing import spread
from minires import __version__, environment, threads
from minires.errors import ArgumentError
from minires.files import publish

FORMAT = 1
COLUMNS = (
    "contender", "ms", "least", "greatest", "images/s", "GFLOP/s", "real", "of GEMM", "GB/s", "of copy", "error", "rms",
)  # fmt: skip


class Work(NamedTuple):
    """What one call has to do: floating-point operations by the plain definition, and bytes that it must read and
    write at least once. 0 for what makes no sense here."""

    flops: float = 0
    bytes: float = 0


@dataclass
class Row:
    """One contender's times for one case."""

    name: str  # what is computed: conv2d, batch_norm_grad, training step
    shape: str  # on what
    contender: str
    seconds: list[float]  # of each round
    work: Work
    real_flops: float  # what the contender executes: fewer than work.flops for Winograd
    error: Error | None = None  # against the reference, where there is one
    items: int = 0  # images a call, for images/s
    chosen: bool = False  # whether this is what minires runs for these arguments
    extra: dict[str, float] = field(default_factory=dict)  # further numbers, by the heading of their column

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes rows of two runs the same measurement."""
        return self.name, self.shape, self.contender

    @property
    def median(self) -> float:
        """Seconds of the median call."""
        return spread(self.seconds)[0]

    @property
    def gflops(self) -> float:
        """Effective GFLOP/s: of the plain definition's operations."""
        return self.work.flops / self.median / 1e9

    @property
    def real_gflops(self) -> float:
        """GFLOP/s of the operations that are executed."""
        return self.real_flops / self.median / 1e9

    @property
    def gbytes(self) -> float:
        """GB/s of the bytes that must be moved."""
        return self.work.bytes / self.median / 1e9

    def columns(self, peaks: Peaks | None) -> dict[str, str]:
        """The row as it is shown, without columns that do not apply."""
        median, least, greatest = spread(self.seconds)
        cells = {
            "contender": self.contender + (" *" if self.chosen else ""),
            "ms": _digits(1e3 * median),
            "least": _digits(1e3 * least),
            "greatest": _digits(1e3 * greatest),
        }
        if self.items:
            cells["images/s"] = f"{self.items / median:,.1f}"
        if self.work.flops:
            cells["GFLOP/s"] = f"{self.gflops:.1f}"
            if self.real_flops != self.work.flops:
                cells["real"] = f"{self.real_gflops:.1f}"
            if peaks:
                cells["of GEMM"] = f"{100e9 * self.real_gflops / peaks.gemm:.0f} %"
        if self.work.bytes:
            cells["GB/s"] = f"{self.gbytes:.1f}"
            if peaks:
                cells["of copy"] = f"{100e9 * self.gbytes / peaks.copy:.0f} %"
        if self.error is not None:
            cells["error"] = f"{self.error.max:.0e}"
            cells["rms"] = f"{self.error.rms:.0e}"
        return cells | {name: _digits(value) for name, value in self.extra.items()}


def _digits(value: float) -> str:
    """Four digits at least."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def table(rows: Sequence[Row], peaks: Peaks | None = None) -> None:
    """Print rows as a table: rich's on a terminal where it is installed, else plain."""
    cells = [row.columns(peaks) for row in rows]
    found = dict.fromkeys(name for row in cells for name in row)
    known = [name for name in COLUMNS if name in found]
    print_table([*known, *(name for name in found if name not in known)], [list(row.items()) for row in cells])


def print_table(headings: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Print rows of (heading, text). The first column is flush left, numbers are flush right."""
    texts = [[dict(row).get(name, "") for name in headings] for row in rows]
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            shown = Table(box=None, pad_edge=True, header_style="dim")
            for place, name in enumerate(headings):
                shown.add_column(name, justify="right" if place else "left", no_wrap=True)
            for row in texts:
                shown.add_row(*row, style="bold" if row[0].endswith(" *") else None)
            Console(highlight=False, markup=False).print(shown)
            return
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    for row in [list(headings), *texts]:
        first, *others = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        print("  " + "  ".join([first.strip().ljust(widths[0]), *others]).rstrip())


def fingerprint(precision: str) -> dict[str, Any]:
    """What a time depends on: machine, threads, versions, commit."""
    torch = sys.modules.get("torch")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": _commit(),
        "processor": environment.processor(),
        "system": platform.platform(),
        "cores": threads.available(),
        "threads": threads.get_num_threads(),
        "precision": precision,
        "minires": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": environment.blas(),
        "torch": torch.__version__ if torch else None,
    }


def _commit() -> str | None:
    """The commit that is checked out, with + if files differ from it; None outside a repository."""
    try:
        commands = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        head, changed = (
            subprocess.run(
                ["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


@dataclass
class Report:
    """All rows of a run."""

    benchmark: str
    fingerprint: dict[str, Any]
    peaks: Peaks | None = None
    rows: list[Row] = field(default_factory=list)
    complete: bool = False  # False in the file of a run that was interrupted

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all. Derived numbers are in it for other readers."""
        content = {"format": FORMAT} | asdict(self)
        content["peaks"] = self.peaks and {"gemm_gflops": self.peaks.gemm / 1e9, "copy_gbytes": self.peaks.copy / 1e9}
        for row, described in zip(self.rows, content["rows"], strict=True):
            described |= {"flops": row.work.flops, "bytes": row.work.bytes, "error": row.error and row.error._asdict()}
            del described["work"]
            median, least, greatest = spread(row.seconds)
            described |= {"median": median, "least": least, "greatest": greatest}
            described |= {"gflops": row.gflops, "real_gflops": row.real_gflops, "gbytes": row.gbytes}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(json.dumps(content, indent=1).encode())
                publish(file, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def load(path: Path) -> Report:
    """The report in a file. Raises ArgumentError, naming it, for a file that is none."""
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ArgumentError(f"{path} has format {content['format']}; this version reads {FORMAT}")
        peaks = content["peaks"]
        rows = [
            Row(
                **{name: r[name] for name in ("name", "shape", "contender", "seconds", "real_flops")},
                **{name: r[name] for name in ("items", "chosen", "extra")},
                work=Work(r["flops"], r["bytes"]),
                error=r["error"] and Error(**r["error"]),
            )
            for r in content["rows"]
        ]
        return Report(
            content["benchmark"],
            content["fingerprint"],
            peaks and Peaks(1e9 * peaks["gemm_gflops"], 1e9 * peaks["copy_gbytes"]),
            rows,
            content["complete"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path} is no file of a benchmark (--json): {type(error).__name__}: {error}") from None
