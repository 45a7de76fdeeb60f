"""The figures of the op tests, at the end of a run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Cases, checks (tests passed) and mutants caught, by family."""
    cases, mutants, checks = defaultdict(set), defaultdict(set), 0
    for report in terminalreporter.stats.get("passed", []):
        path, _, test = report.nodeid.partition("::")
        if "tests/ops/" not in path:
            continue
        checks += 1
        name = test.partition("[")[2].rstrip("]")
        if path.endswith("test_mutants.py") and name:
            mutants[name.partition("-")[0]].add(name)
        elif "loops" in test:
            cases[name.partition("-")[0]].add(name)
    if cases or mutants:
        terminalreporter.section("op tests")
        for kind, found in ("cases", cases), ("mutants caught", mutants):
            by_family = ", ".join(f"{family} {len(names)}" for family, names in found.items())
            terminalreporter.line(f"{sum(map(len, found.values()))} {kind}: {by_family}")
        terminalreporter.line(f"{checks} checks passed")
