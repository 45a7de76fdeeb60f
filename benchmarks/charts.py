"""Draw the results of benchmarks: rooflines, minires beside PyTorch layer by layer, images/s over batch sizes.

    python -m benchmarks.charts conv.json step.json --output-dir docs/images

Of each file: <file>-roofline.png where the peaks were measured, <file>-ratios.png where PyTorch was timed beside
single kernels, <file>-speed.png where calls handle images.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.report import Report, Row
from minires import training
from minires.errors import ArgumentError

# Okabe and Ito's colours, which colour-blind readers can tell apart, but for their yellow, too pale on white; and
# markers for those who print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#882255")
MARKERS = "os^Dv<>PX"
PYTORCH = "PyTorch"


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="files of --json")
    parser.add_argument("--output-dir", type=Path, default=Path("."), help="where the pictures go (default: here)")
    return parser.parse_args()


def figure(width: float, height: float, title: str, run: Report) -> Any:
    """A figure that needs no screen, whose title says what it was measured on. Raises ArgumentError if it cannot be."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ArgumentError("charts need matplotlib: pip install 'minires[examples]'") from None
    made = Figure(figsize=(width, height), layout="constrained")
    f = run.fingerprint
    versions = f"NumPy {f['numpy']}" + (f", PyTorch {f['torch']}" if f["torch"] else "")
    measured = f"{f['processor']}, {f['threads']} threads, precision {f['precision']}, {versions}, commit {f['commit']}"
    made.suptitle("\n".join([title, *textwrap.wrap(measured, int(10 * width))]), fontsize=11)
    return made


def legend(made: Any, axes: Any) -> None:
    """What the colours mean, below the pictures."""
    handles, names = axes.get_legend_handles_labels()
    made.legend(handles, names, loc="outside lower center", ncols=min(6, len(names)), frameon=False)


def colours(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each contender."""
    names = dict.fromkeys(row.contender for row in rows)
    return {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    axes.set_axisbelow(True)


def roofline(run: Report) -> Any:
    """Effective GFLOP/s over arithmetic intensity, one panel for each kernel, under the roof of both peaks."""
    assert run.peaks is not None
    rows = [row for row in run.rows if row.work.flops and row.work.bytes]
    names, styles = list(dict.fromkeys(row.name for row in rows)), colours(rows)
    made = figure(max(7.0, 4.6 * len(names)), 5.6, "Roofline: speed over arithmetic intensity", run)
    intensities = [row.work.flops / row.work.bytes for row in rows]
    x = np.geomspace(min(*intensities, 1) / 1.5, 1.5 * max(intensities), 200)
    roof = np.minimum(run.peaks.gemm, run.peaks.copy * x) / 1e9
    panels = made.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        axes.plot(x, roof, color="black", linewidth=1.2)
        for who, (colour, marker) in styles.items():
            mine = [row for row in rows if (row.name, row.contender) == (name, who)]
            axes.plot(
                [row.work.flops / row.work.bytes for row in mine], [row.gflops for row in mine], marker,
                color=colour, markersize=6, alpha=0.85, markeredgecolor="white", markeredgewidth=0.5, label=who,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", title=name, xlabel="flop / byte")
        tidy(axes)
    gemm, copy = run.peaks.gemm / 1e9, run.peaks.copy / 1e9
    panels[0].set_ylabel("effective GFLOP/s")
    panels[0].annotate(f"GEMM {gemm:.0f} GFLOP/s", (x[0], gemm), va="center")
    panels[0].annotate(
        f"copy {copy:.0f} GB/s", (x[0], roof[0]), xytext=(12, 0), textcoords="offset points", va="center"
    )
    legend(made, panels[0])
    return made


def label(row: Row) -> str:
    """A case's short name: what stands before the colon, or the whole shape."""
    return row.shape.partition(":")[0]


def advantages(run: Report) -> dict[str, dict[str, float]]:
    """For each kernel and case, the time of PyTorch's better layout over that of the variant that minires takes."""
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in run.rows:
        cases.setdefault((row.name, row.shape), []).append(row)
    found: dict[str, dict[str, float]] = {}
    for (name, _), rows in cases.items():
        theirs = [row.median for row in rows if row.contender.startswith(PYTORCH)]
        ours = [row.median for row in rows if row.chosen]
        if theirs and ours:
            found.setdefault(name, {})[label(rows[0])] = min(theirs) / ours[0]
    return found


def ratios(run: Report) -> Any:
    """Bars: how many times as fast as PyTorch, case by case."""
    found = advantages(run)
    cases = list(dict.fromkeys(case for of in found.values() for case in of))
    title = "minires beside PyTorch's better layout: PyTorch's time / minires's"
    made = figure(max(8.0, 0.9 * len(cases) + 2), 5.4, title, run)
    axes, width = made.subplots(), 0.8 / len(found)
    for i, (name, of) in enumerate(found.items()):
        places = [cases.index(case) + (i + 0.5) * width - 0.4 for case in of]
        bars = axes.bar(places, list(of.values()), 0.92 * width, color=COLOURS[i % len(COLOURS)], label=name)
        axes.bar_label(bars, fmt="%.2f", fontsize=9, rotation=90, padding=3)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right")
    axes.set(ylabel="times as fast (above 1: minires)", ylim=(0, 1.18 * max(max(of.values()) for of in found.values())))
    tidy(axes)
    axes.grid(visible=False, axis="x")
    legend(made, axes)
    return made


def speed(run: Report) -> Any:
    """Bars: images/s of each contender over batch sizes, one panel for each kind of call."""
    rows = [row for row in run.rows if row.items]
    names, styles = list(dict.fromkeys(row.name for row in rows)), colours(rows)
    batches = sorted({row.items for row in rows})
    made = figure(max(7.0, 1.5 * len(batches) * len(names)), 4.8, "Images a second over batch sizes", run)
    panels = made.subplots(1, len(names), squeeze=False)[0]
    width = 0.8 / len(styles)
    for axes, name in zip(panels, names, strict=True):
        for i, (who, (colour, _)) in enumerate(styles.items()):
            mine = [row for row in rows if (row.name, row.contender) == (name, who)]
            places = [batches.index(row.items) + (i + 0.5) * width - 0.4 for row in mine]
            bars = axes.bar(places, [row.items / row.median for row in mine], 0.92 * width, color=colour, label=who)
            axes.bar_label(bars, fmt="%.0f", fontsize=9, padding=2)
        axes.set_xticks(range(len(batches)), batches)
        axes.set(title=name, xlabel="batch", ylabel="images/s")
        tidy(axes)
        axes.grid(visible=False, axis="x")
    legend(made, panels[0])
    return made


def main() -> None:
    args = arguments()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for path in args.files:
        run = report.load(path)
        drawn = {
            "roofline": roofline if run.peaks and any(row.work.flops and row.work.bytes for row in run.rows) else None,
            "ratios": ratios if advantages(run) else None,
            "speed": speed if any(row.items for row in run.rows) else None,
        }
        if not any(drawn.values()):
            raise ArgumentError(f"{path} has nothing that can be drawn: no peaks, no row of PyTorch's, no images")
        for kind, draw in drawn.items():
            if draw is not None:
                target = args.output_dir / f"{path.stem}-{kind}.png"
                draw(run).savefig(target, dpi=130)
                print(target)


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
