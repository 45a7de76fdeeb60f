"""Benchmarks of single kernels: each case computes what PyTorch does, and what differs is not timed."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import numpy as np
import pytest

from benchmarks import (
    bench_elementwise,
    bench_norm,
    bench_optim,
    bench_pool,
    cases,
    harness,
    peaks,
    peers,
    report,
)
from benchmarks.cases import Case
from minires import kernels
from minires.errors import ArgumentError

BENCHMARKS = [bench_norm, bench_elementwise, bench_pool, bench_optim]
LAYOUTS = set(peers.LAYOUTS)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Nothing is timed, and the peaks are not measured."""

    def interleaved(calls, rounds, **_):
        return {name: [1e-3] * rounds for name in calls}

    monkeypatch.setattr(harness, "interleaved", interleaved)
    monkeypatch.setattr(harness.peaks, "measure", lambda: peaks.Peaks(1e11, 1e10))


def options(**given: object) -> argparse.Namespace:
    usual = {
        "rounds": 1,
        "settle": 0.0,
        "threads": 1,
        "precision": "fast",
        "json": None,
        "only": None,
        "variants": None,
    }
    return argparse.Namespace(**(usual | {"kernel": None, "of": None} | given))


def main(monkeypatch, module: ModuleType, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, "--rounds", "1", "--settle", "0", *flags])
    module.main()


@pytest.mark.parametrize("module", BENCHMARKS, ids=lambda m: m.__name__.partition(".")[2])
def test_every_case_is_what_pytorch_computes(module):
    """At odd shapes, in both layouts: the check before the clock is the test."""
    pytest.importorskip("torch")
    with cases.start("cases", options(), module.build, module.ODD) as run:
        cases.measure_all(run, module.build, module.ODD)
    rows = run.report.rows
    assert all(row.work.bytes > 0 and row.error is not None for row in rows)
    for case in module.build(module.ODD[0], np.random.default_rng(0)):
        found = {row.contender for row in rows if row.name == case.name}
        others = set() if case.peer is None else LAYOUTS if any(np.ndim(a) == 4 for a in case.given) else {"PyTorch"}
        assert found & (LAYOUTS | {"PyTorch"}) == others
        assert {"portable", "minires"} <= found if case.op else "portable" in found
        assert any(row.chosen for row in rows if row.name == case.name)


@pytest.mark.parametrize("module", BENCHMARKS, ids=lambda m: m.__name__.partition(".")[2])
def test_it_runs_without_pytorch(module, monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "find_torch", lambda: None)
    monkeypatch.setattr(bench_pool, "SIZES", [(5, 7, 3)])
    main(
        monkeypatch, module, *([] if module is bench_optim else ["--batch", "1"]), "--json", str(tmp_path / "rows.json")
    )
    rows = report.load(tmp_path / "rows.json").rows
    assert rows
    assert not any(row.contender.startswith("PyTorch") for row in rows)


def wrong(**what: object) -> Case:
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    return Case("relu", (x,), x.nbytes, given=(x,))._replace(**what)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (wrong(peer=lambda t: t.relu() * 1.001), "relu of PyTorch NCHW .* is wrong"),
        (wrong(peer=lambda t: t.relu()[:, 1:]), "relu of PyTorch NCHW .* gives shapes"),
        (wrong(name="op", peer=lambda t: t.relu(), op=lambda x: kernels.relu(x) + 1), "op of PyTorch NCHW .* is wrong"),
    ],
    ids=["value", "shape", "op"],
)
def test_what_differs_is_not_timed(case, message):
    pytest.importorskip("torch")
    with (
        harness.Run("cases", options(), with_peaks=False) as run,
        pytest.raises(ArgumentError, match=f"{message}.*not timed"),
    ):
        cases.measure(run, case, "1x2x3x4")
    assert run.report.rows == []


def test_a_kernel_of_the_users_own_is_checked_at_odd_shapes(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    file, rows = tmp_path / "mine.py", tmp_path / "rows.json"
    flags = ["--batch", "1", "--only", "max_pool2d", "--kernel", f"{file}:max_pool2d_mine", "--json", str(rows)]
    right = "from minires.kernels import registry\nportable = registry['max_pool2d'].portable.function\n"
    file.write_text(
        right + "def max_pool2d_mine(x, kernel_size, geometry):\n    return portable(x, kernel_size, geometry)\n"
    )
    main(monkeypatch, bench_pool, *flags)
    names = {(row.name, row.contender) for row in report.load(rows).rows}
    assert ("max_pool2d", "max_pool2d_mine") in names
    assert {name for name, _ in names} == {"max_pool2d"}
    file.write_text(
        right + "def max_pool2d_mine(x, kernel_size, geometry):\n"
        "    y, index = portable(x, kernel_size, geometry)\n    return y, index + (x.shape[1] == 5)\n"
    )
    with pytest.raises(ArgumentError, match=r"max_pool2d_mine for float32 .1, 5, 7, 3.*is wrong, so it was not timed"):
        main(monkeypatch, bench_pool, *flags)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_an_optimizer_of_other_settings_is_not_timed(name, monkeypatch):
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [[rng.standard_normal(shape, dtype=np.float32) for shape in ((3, 4), (5,))] for _ in range(2)]
    with harness.Run("cases", options(), with_peaks=False) as run:
        bench_optim.step(run, name, "few", *arrays)
        assert {row.contender for row in run.report.rows} == {*bench_optim.FORMS, "portable", "minires"}
        assert run.report.rows[0].work.bytes == bench_optim.PASSES[name] * 17 * 4
        monkeypatch.setattr(bench_optim, "FORMS", {"PyTorch": {"maximize": True}})
        with pytest.raises(ArgumentError, match=rf"{name} step of PyTorch for few is wrong, so it was not timed"):
            bench_optim.step(run, name, "few", *arrays)


def test_the_optimizers_leave_the_models_weights(monkeypatch, tmp_path):
    weights = [np.ones((2, 3), np.float32)]
    optimizer, written = bench_optim.ours("SGD", weights, weights)
    optimizer.step()
    assert (weights[0] == 1).all()
    assert (written[0] < 1).all()


def test_pixels_and_taps_of_pooling_are_inverses():
    shape, (k, s, p) = (2, 7, 5, 3), (3, 2, 1)
    index = np.random.default_rng(0).integers(0, 9, (2, 4, 3, 3))
    pixels = bench_pool.places(index, shape, k, s, p)
    assert (bench_pool.taps(pixels, shape, k, s, p) == index)[:, 1:-1, 1:-1].all()
    assert bench_pool.places(np.full((1, 4, 3, 1), 4), shape, k, s, p)[0, 1, 1, 0] == 2 * 5 + 2  # the middle of 3x3
