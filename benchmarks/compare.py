"""Compare two runs of a benchmark, row by row: the ratio of medians, and whether it is more than chance.

    python -m benchmarks.compare before.json after.json
    python -m benchmarks.compare before.json after.json --fail-above 1.1

A row is marked "slower" or "faster" where each run's median lies outside the other's least and greatest. With
--fail-above the exit code is 1 if a row is marked slower and its ratio is above that.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.report import Report, Row
from benchmarks.timing import spread
from minires import training
from minires.errors import ArgumentError

FREE = {"date", "command", "commit"}  # what may differ between runs that are compared
PEAKS = 0.1  # the share by which the measured peaks may


class Pair(NamedTuple):
    """The same measurement in two runs."""

    before: Row
    after: Row

    @property
    def ratio(self) -> float:
        """The median after, over that before: above 1 is slower."""
        return self.after.median / self.before.median

    @property
    def mark(self) -> str:
        """ "slower" or "faster" where each median lies outside the other's spread, else nothing."""
        (a, a_least, a_greatest), (b, b_least, b_greatest) = spread(self.before.seconds), spread(self.after.seconds)
        if a_least <= b <= a_greatest or b_least <= a <= b_greatest:
            return ""
        return "slower" if b > a else "faster"


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add("before", type=Path, help="a file of --json")
    add("after", type=Path, help="another")
    add("--contender", action="append", metavar="NAME", help="of this contender only; may be repeated")
    add("--fail-above", type=float, metavar="RATIO", help="exit with 1 if a row has become slower by more than this")
    return parser.parse_args()


def differences(before: Report, after: Report) -> Iterator[str]:
    """What makes two runs hard to compare: other machines, threads or versions, and interrupted runs."""
    for name in [*before.fingerprint, *(after.fingerprint.keys() - before.fingerprint.keys())]:
        a, b = before.fingerprint.get(name), after.fingerprint.get(name)
        if a != b and name not in FREE:
            yield f"{name} differs: {a} and {b}"
    if before.peaks and after.peaks:
        for name, a, b in zip(("GEMM", "copy"), before.peaks, after.peaks, strict=True):
            if abs(math.log(b / a)) > math.log(1 + PEAKS):
                yield f"the machine's own {name} peak went from {a / 1e9:.1f} to {b / 1e9:.1f} G/s"
    for place, run in (("first", before), ("second", after)):
        if not run.complete:
            yield f"the {place} run was interrupted"


def pairs(before: Report, after: Report, contenders: Sequence[str] | None) -> list[Pair]:
    """The rows that both runs have. Raises ArgumentError where there is none."""
    known = {row.key: row for row in before.rows}
    found = [
        Pair(known[row.key], row)
        for row in after.rows
        if row.key in known and (contenders is None or row.contender in contenders)
    ]
    if not found:
        of = f" of {', '.join(contenders)}" if contenders else ""
        raise ArgumentError(f"the two runs have no row{of} in common: {before.benchmark} and {after.benchmark}")
    return found


def show(found: Sequence[Pair]) -> None:
    """Print the pairs, and the geometric mean of each contender's ratios."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in found:
        groups.setdefault((pair.after.name, pair.after.shape), []).append(pair)
    for (name, shape), members in groups.items():
        print(f"{name}, {shape}:")
        report.print_table(
            ["contender", "before ms", "after ms", "ratio", ""],
            [
                [
                    ("contender", pair.after.contender),
                    ("before ms", f"{1e3 * pair.before.median:.4g}"),
                    ("after ms", f"{1e3 * pair.after.median:.4g}"),
                    ("ratio", f"{pair.ratio:.3f}"),
                    ("", pair.mark),
                ]
                for pair in members
            ],
        )
    print("geometric mean of the ratios, after over before:")
    for name in dict.fromkeys(pair.after.contender for pair in found):
        ratios = [pair.ratio for pair in found if pair.after.contender == name]
        print(f"  {name}: {statistics.geometric_mean(ratios):.3f} ({len(ratios)} rows)")


def main() -> None:
    args = arguments()
    before, after = report.load(args.before), report.load(args.after)
    for path, run in ((args.before, before), (args.after, after)):
        print(f"{path}: {run.benchmark}, {run.fingerprint.get('date')}, commit {run.fingerprint.get('commit')}")
    for difference in differences(before, after):
        print(f"warning: {difference}")
    found = pairs(before, after, args.contender)
    show(found)
    alone = (
        len(before.rows) + len(after.rows) - 2 * len({row.key for row in before.rows} & {row.key for row in after.rows})
    )
    if alone:
        print(f"{alone} rows are in one of the runs only")
    limit = args.fail_above
    regressions = [] if limit is None else [p for p in found if p.mark == "slower" and p.ratio > limit]
    if regressions:
        print(f"{len(regressions)} rows are slower by more than {limit}:")
        for pair in regressions:
            print(f"  {pair.ratio:.3f}  {', '.join(pair.after.key)}")
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
