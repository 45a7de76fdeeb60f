"""The step benchmark: it refuses a contender that computes something else, and measures what it says it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_step, report, step_process, steps
from minires import models, threads
from minires.errors import ArgumentError
from tests import oracle


@pytest.fixture(autouse=True)
def _pytorch():
    oracle.torchvision()


def run(monkeypatch, capsys, *flags: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["bench_step", "--batch", "2", "--rounds", "1", "--settle", "0", *flags])
    bench_step.main()
    return capsys.readouterr().out.splitlines()


def test_a_training_step_beside_both_layouts(monkeypatch, capsys, tmp_path):
    file = tmp_path / "step.json"
    lines = run(monkeypatch, capsys, "--batch", "1", "--precision", "both", "--json", str(file))
    assert lines[1].startswith("checked: one float64 step on 4 images differs by at most ")
    rows = report.load(file).rows
    contenders = ["PyTorch NCHW", "PyTorch channels-last", "minires exact", "minires fast"]
    assert [(row.contender, row.items) for row in rows] == [(name, n) for n in (2, 1) for name in contenders]
    assert all(set(row.extra) == {"loss off", "step off"} for row in rows if row.contender != "PyTorch NCHW")
    speeds = {row.contender: row.items / row.median for row in rows[:4]}
    better = max(speeds["PyTorch NCHW"], speeds["PyTorch channels-last"])
    for line, name in zip(lines[8:10], contenders[2:], strict=True):
        assert line == f"  images/s of {name} over the better of PyTorch's layouts: {speeds[name] / better:.2f}"


def test_inference(monkeypatch, capsys):
    lines = run(monkeypatch, capsys, "--inference", "--no-check")
    assert lines[1] == "inference, resnet18, 32x32 images, batch 2:"
    assert [line.split("  ")[1] for line in lines[3:6]] == ["PyTorch NCHW", "PyTorch channels-last", "minires fast"]


def test_scaling_tells_the_speed_up(monkeypatch, capsys):
    monkeypatch.setattr(threads, "available", lambda: 2)
    lines = run(monkeypatch, capsys, "--scaling", "--no-check")
    assert [line.rpartition(":")[0] for line in lines[-3:]] == [
        f"  {name}, 2 threads over 1" for name in ("PyTorch NCHW", "PyTorch channels-last", "minires fast")
    ]


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_thread_counts_double(monkeypatch, cores, counts):
    monkeypatch.setattr(threads, "available", lambda: cores)
    assert bench_step.thread_counts() == counts


def test_each_thread_count_is_set(monkeypatch):
    before = threads.get_num_threads()
    try:
        found = [
            bench_step.with_threads(n, lambda: (threads.get_num_threads(), oracle.torch.get_num_threads()))
            for n in (1, 2)
        ]
    finally:
        steps.set_threads(before)
    assert found == [(1, 1), (2, 2)]


class Off:
    """A contender that is off the right loss, step or logits by a share."""

    precision = "exact"

    def __init__(self, **off: float) -> None:
        self.off, self.w = off, np.arange(1.0, 5.0)

    def infer(self) -> np.ndarray:
        return np.ones((2, 10)) * (1 + self.off.get("logits", 0))

    def train(self) -> float:
        self.w = self.w + 1 + self.off.get("step", 0)
        return 2.0 * (1 + self.off.get("loss", 0))

    def weights(self) -> dict[str, np.ndarray]:
        return {"w": self.w}


@pytest.mark.parametrize("what", ["loss", "step", "logits"])
def test_a_contender_that_is_off_stops_it(what):
    bound = bench_step.TOLERANCES["exact"][what]
    inference = what == "logits"
    off = bench_step.check_float32({"right": Off(), "near": Off(**{what: 0.9 * bound})}, inference)
    assert off["near"][f"{what} off"] == pytest.approx(0.9 * bound)
    for wrong in 1.1 * bound, float("nan"):
        with pytest.raises(ArgumentError, match=f"{what} of wrong is off right's by .*so nothing was timed"):
            bench_step.check_float32({"right": Off(), "wrong": Off(**{what: wrong})}, inference)


def test_a_wrong_gradient_stops_the_float64_check(monkeypatch):
    step = steps.Minires.train
    model = models.build("resnet18", num_classes=10, stem="cifar", generator=np.random.default_rng(0))

    def wrong(self):
        self.optimizer.param_groups[0]["lr"] *= 1 + 1e-8
        return step(self)

    monkeypatch.setattr(steps.Minires, "train", wrong)
    with pytest.raises(ArgumentError, match=r"one step from the same weights differs by .*, so nothing was timed"):
        bench_step.check_float64("resnet18", model)


def test_a_net_that_pytorch_lacks_is_refused(monkeypatch, capsys):
    with pytest.raises(ArgumentError, match="torchvision has no 'resnet20' to compare with; it has resnet18, 34"):
        run(monkeypatch, capsys, "--model", "resnet20")


def test_a_compiler_that_fails_is_left_out(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more lines")

    monkeypatch.setattr(oracle.torch, "compile", lambda *args, **kwargs: fail)
    lines = run(monkeypatch, capsys, "--compile", "--no-check")
    assert lines[1] == "torch.compile is left out: InvalidCxxCompiler: No working C++ compiler found"
    assert not any(line.startswith("  torch.compile") for line in lines)


def test_memory_of_whole_processes(monkeypatch, capsys, tmp_path):
    told = []

    def train_alone(contender, model, batch, small_pages):
        told.append((contender, model, batch, small_pages))
        peak = {"PyTorch NCHW": 2000e6, "PyTorch channels-last": 1600e6}.get(contender, 1200e6)
        return {"peak": peak, "before": 1e8, "faults": 70.0, "blocks": 0, "seconds": [1.0, 2.0]}

    monkeypatch.setattr(bench_step, "train_alone", train_alone)
    lines = run(monkeypatch, capsys, "--memory", "--json", str(tmp_path / "memory.json"))
    contenders = ["PyTorch NCHW", "PyTorch channels-last", "minires fast", "minires fast"]
    assert told == bench_step.PROCESSES * [(c, "resnet18", 2, i == 3) for i, c in enumerate(contenders)]
    assert lines[-2] == "  peak memory of minires fast over the better of PyTorch's layouts: 0.75"
    rows = report.load(tmp_path / "memory.json").rows
    assert rows[-1].contender == "minires fast, small pages"
    assert rows[-1].extra == {"peak MB": 1200, "before step 1": 100, "faults/step": 70, "new blocks": 0}


@pytest.mark.parametrize(("contender", "other"), [("minires exact", "torch"), ("PyTorch NCHW", "minires")])
def test_a_process_holds_one_library(contender, other):
    script = (
        "import sys; from benchmarks import step_process as p; "
        f"sys.argv[1:] = [{contender!r}, 'resnet18', '1', '1']; p.STEPS = 4; p.main(); "
        f"assert {other!r} not in sys.modules, 'it is imported'"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=root)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["peak"] >= told["before"] > 30e6
    assert len(told["seconds"]) == 4 - step_process.FIRST
    assert told["blocks"] == 0


def test_a_process_that_fails_is_told():
    with pytest.raises(
        ArgumentError, match=r"step_process minires exact resnet99 .* failed: .*unknown model 'resnet99'"
    ):
        bench_step.train_alone("minires exact", "resnet99", 1, False)
