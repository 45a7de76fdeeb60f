"""Rows, files, the comparison of two runs, and charts: arithmetic on times that are given."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest

from benchmarks import charts, compare, report, timing
from benchmarks.checking import Error
from benchmarks.peaks import Peaks
from benchmarks.report import Report, Row, Work
from minires.errors import ArgumentError

PEAKS = Peaks(gemm=100e9, copy=10e9)


def row(contender: str, seconds: list[float], shape: str = "layer1 x2: 8x8", **more: object) -> Row:
    given: dict[str, object] = {"work": Work(2e9, 1e8), "real_flops": 2e9} | more
    return Row("conv2d", shape, contender, seconds, **given)  # type: ignore[arg-type]


@pytest.fixture
def run() -> Report:
    rows = [
        row("PyTorch NCHW", [0.08, 0.1, 0.12]),
        row("PyTorch channels-last", [0.04, 0.05, 0.06]),
        row("winograd4", [0.02, 0.021, 0.025], real_flops=5e8, error=Error(3e-5, 2e-6), chosen=True, items=8),
    ]
    return Report("bench_conv", report.fingerprint("fast"), PEAKS, rows, complete=True)


def test_columns(run):
    columns = run.rows[2].columns(PEAKS)
    assert columns == {
        "contender": "winograd4 *", "ms": "21", "least": "20", "greatest": "25", "images/s": "381.0",
        "GFLOP/s": "95.2", "real": "23.8", "of GEMM": "24 %", "GB/s": "4.8", "of copy": "48 %",
        "error": "3e-05", "rms": "2e-06",
    }  # fmt: skip
    assert "real" not in run.rows[0].columns(PEAKS)
    assert not {"of GEMM", "of copy"} & run.rows[2].columns(None).keys()
    assert "GFLOP/s" not in Row("gather", "8", "take", [1.0], Work(0, 8), 0).columns(PEAKS)


def test_a_table_lines_up(run, capsys):
    report.table(run.rows, PEAKS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["contender", "ms"]
    ends = {line.index(text) + len(text) for line, text in zip(lines, ("greatest", "120", "60", "25"), strict=True)}
    assert len(ends) == 1
    assert lines[0].index("GFLOP/s") < lines[0].index("real") < lines[0].index("of GEMM") < lines[0].index("rms")


def test_files_hold_all(run, tmp_path):
    path = tmp_path / "deep" / "run.json"
    run.save(path)
    assert report.load(path) == run
    assert [entry.name for entry in path.parent.iterdir()] == ["run.json"]


def test_the_fingerprint_names_what_times_depend_on():
    found = report.fingerprint("exact")
    assert found["precision"] == "exact"
    for name in ("date", "commit", "processor", "cores", "threads", "python", "numpy", "blas", "minires"):
        assert found[name]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "benchmark": "b", "peaks": {}}'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ArgumentError, match="other"):
        report.load(path)


def test_no_file_is_left_of_one_that_cannot_be_written(run, tmp_path):
    run.fingerprint["odd"] = object()
    with pytest.raises(TypeError):
        run.save(tmp_path / "run.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("before", "after", "mark"),
    [
        ([1, 2, 3], [2.5, 3.5, 4.5], "slower"),  # the ranges overlap, but neither median lies in the other
        ([1, 2, 3], [2.5, 2.9, 4.5], ""),
        ([1, 3, 8], [7, 9, 10], "slower"),
        ([1, 3, 9], [7, 9, 10], ""),
        ([7, 9, 10], [1, 3, 8], "faster"),
        ([2, 2, 2], [2, 2, 2], ""),
    ],
)
def test_marks(before, after, mark):
    assert compare.Pair(row("a", before), row("a", after)).mark == mark


def changed(run: Report, factor: float, **fingerprint: object) -> Report:
    other = copy.deepcopy(run)
    for each in other.rows:
        each.seconds = [factor * s for s in each.seconds]
    other.fingerprint |= fingerprint
    return other


def compared(monkeypatch, tmp_path: Path, before: Report, after: Report, *options: str) -> None:
    before.save(tmp_path / "before.json")
    after.save(tmp_path / "after.json")
    files = [str(tmp_path / name) for name in ("before.json", "after.json")]
    monkeypatch.setattr(sys, "argv", ["compare", *files, *options])
    compare.main()


def test_compare_shows_ratios_and_fails_above(run, tmp_path, monkeypatch, capsys):
    after = changed(run, 2.0)
    after.rows.append(row("rows", [1.0]))
    compared(monkeypatch, tmp_path, run, after, "--fail-above", "2.5")
    shown = capsys.readouterr().out
    assert re.search(r"^  winograd4 +21 +42 +2.000 +slower$", shown, re.MULTILINE)
    assert "winograd4: 2.000 (1 rows)" in shown
    assert "1 rows are in one of the runs only" in shown
    assert "warning" not in shown
    with pytest.raises(SystemExit) as ended:
        compared(monkeypatch, tmp_path, run, after, "--fail-above", "1.5", "--contender", "winograd4")
    assert ended.value.code == 1
    assert "1 rows are slower by more than 1.5" in capsys.readouterr().out
    compared(monkeypatch, tmp_path, after, run, "--fail-above", "1.1")
    assert "0.500  faster" in capsys.readouterr().out


def test_compare_warns_of_other_machines(run, tmp_path, monkeypatch, capsys):
    after = changed(run, 1.0, numpy="1.0", threads=99, commit="other", date="tomorrow")
    after.peaks, after.complete = Peaks(120e9, 10.5e9), False
    compared(monkeypatch, tmp_path, run, after)
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 4
    for line, text in zip(warnings, ("threads differs", "numpy differs", "GEMM peak", "second run was"), strict=True):
        assert text in line


def test_compare_needs_common_rows(run, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="no row of nobody in common"):
        compared(monkeypatch, tmp_path, run, run, "--contender", "nobody")


def test_charts(run, tmp_path, monkeypatch):
    assert charts.advantages(run) == {"conv2d": {"layer1 x2": pytest.approx(0.05 / 0.021)}}
    run.save(tmp_path / "run.json")
    monkeypatch.setattr(sys, "argv", ["charts", str(tmp_path / "run.json"), "--output-dir", str(tmp_path / "pictures")])
    charts.main()
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["run-ratios.png", "run-roofline.png", "run-speed.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_nothing_to_draw(run, tmp_path, monkeypatch):
    Report("b", run.fingerprint, None, [row("a", [1.0], work=Work())]).save(tmp_path / "run.json")
    monkeypatch.setattr(sys, "argv", ["charts", str(tmp_path / "run.json")])
    with pytest.raises(ArgumentError, match="nothing that can be drawn"):
        charts.main()


def test_turns_settle_and_repeat(monkeypatch):
    """On a clock that only calls move."""
    now, calls = 0.0, []

    def call(name: str, seconds: float) -> None:
        nonlocal now
        now += seconds
        calls.append(name)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    slept: list[float] = []
    monkeypatch.setattr(timing.time, "sleep", slept.append)
    contenders = {"short": lambda: call("short", 0.01), "long": lambda: call("long", 5.0)}
    times = timing.interleaved(contenders, rounds=2, settle=0.1, least=0.05)
    assert times == {"short": pytest.approx([0.01, 0.01]), "long": pytest.approx([5, 5])}
    assert 3 * 15 <= calls.count("short") <= 3 * 17
    assert calls.count("long") == 2 + 2  # settled by a call in the warm-up, by sleep from then on
    assert slept == [0.1, 0.1]
    assert timing.spread([3.0, 1.0, 2.0]) == (2, 1, 3)
