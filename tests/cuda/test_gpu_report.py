"""The report of a GPU run, written on the fake device: all but its clock, and PyTorch's CUDA, which is its CPU here."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu_cases, gpu_convolutions, gpu_device, gpu_peers, gpu_report, gpu_run, gpu_step, report
from benchmarks.checking import EXACT
from benchmarks.harness import Contender
from minires import Tensor, device, training
from minires.kernels import Accepts, registry
from minires.kernels.cuda import compiler, verified
from minires.kernels.dispatch import Variant
from tests.cuda import fake_cuda, fake_cupy
from tests.data import cifar_files

NO_TORCH = "PyTorch 2 has no CUDA here"


@pytest.fixture
def gpu(emulated: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Counter[str]]:
    """The fake device with what only the report asks for, and no PyTorch. The record of verified kernels is a copy."""
    asked = {
        "getDeviceProperties": lambda index: {"name": b"Fake GPU", "totalGlobalMem": 1 << 30},
        "driverGetVersion": lambda: 13000,
        "runtimeGetVersion": lambda: 13000,
    }
    for name, function in asked.items():
        monkeypatch.setattr(fake_cuda.runtime, name, function, raising=False)
    pool = SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: 1 << 20)
    monkeypatch.setattr(fake_cupy.cupy, "get_default_memory_pool", lambda: pool, raising=False)
    monkeypatch.setattr(gpu_peers, "find", lambda: (None, NO_TORCH))
    monkeypatch.setattr(verified, "FILE", tmp_path / "verified.json")
    return emulated


@pytest.fixture
def torch(gpu: Counter[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """PyTorch, whose GPU is the CPU."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(gpu_peers, "find", lambda: (torch, ""))
    monkeypatch.setattr(gpu_peers, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_peers, "from_gpu", lambda torch, array: torch.from_numpy(array.get()))
    monkeypatch.setattr(gpu_peers, "profile", lambda torch, call, wait: (call(), wait(), (7, 1e-3))[2])
    for name, size in (("reset_peak_memory_stats", 0), ("memory_reserved", 1e6), ("max_memory_reserved", 3e6)):
        monkeypatch.setattr(torch.cuda, name, lambda size=size: size)
    yield torch
    torch.set_num_threads(before)


@pytest.fixture
def command(gpu: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The command with --quick: what its file holds, and its exit code."""

    def run(*flags: str) -> dict[str, Any]:
        file = tmp_path / "report.json"
        monkeypatch.setattr(sys, "argv", ["gpu_report", "--quick", "--json", str(file), *flags])
        try:
            code: Any = training.exit_code(gpu_report.main)
        except SystemExit as ended:
            code = ended.code
        assert report.load(file).benchmark == "gpu_report"  # compare and charts read it, too
        return json.loads(file.read_text()) | {"exit code": code}

    return run


@pytest.fixture
def run(gpu: Counter[str]) -> gpu_run.Run:
    return gpu_run.Run(gpu_run.GpuReport("gpu_report", {}), gpu_run.QUICK, 1)


def contenders(found: dict[str, Any], name: str) -> set[str]:
    return {row["contender"] for row in found["rows"] if row["name"] == name}


def test_all_parts_without_pytorch(command: Any, gpu: Counter[str], capsys: Any) -> None:
    found = command()
    assert (found["problems"], found["exit code"], found["complete"]) == ([], 0, True)
    assert found["parts"] == dict.fromkeys(gpu_report.PARTS, "done")
    assert found["device"]["name"] == "Fake GPU"
    assert found["device"]["PyTorch"] == NO_TORCH
    assert {"commit", "minires", "date"} <= set(found["fingerprint"])
    assert found["peaks"]["gemm_gflops"] > 0
    assert found["tf32"] > 0
    assert [note for note in found["notes"] if NO_TORCH in note] == [
        f"{NO_TORCH}: convolutions are timed alone",
        f"{NO_TORCH}: minires is timed alone",
    ]
    assert found["verified"] == compiler.stems()
    assert not verified.FILE.exists()  # a quick run on small shapes verifies nothing
    kernels = {kernel for _, kernel, _ in gpu_run.variants()}
    assert kernels <= {row["name"] for row in found["rows"]}
    for row in found["rows"]:
        assert row["median"] > 0
        assert row["name"] in ("copy", "launch", "its product alone", "training step") or row["error"], row["name"]
    assert contenders(found, "batch_norm_apply") == {"cuda", "portable"}
    assert contenders(found, "conv2d") == {"cuda", "tf32"}
    steps = [row for row in found["rows"] if row["name"] == "training step"]
    assert {row["contender"] for row in steps} == {"minires strict", "minires TF32"}
    assert all({"loss off", "gradients off", "peak MB", "queue ms", "waits"} <= set(row["extra"]) for row in steps)
    named = {name for stem in compiler.stems() for name in compiler.parameters(compiler.source(stem))}
    assert {name for name in named if not gpu[f"launch of {name}"]} == set()  # each kernel of each file has run
    out = capsys.readouterr().out
    assert re.search(r"^\| training step \| 8x8 images, batch 4 \| minires strict \|", out, re.MULTILINE)
    assert "CUDA kernels never run on a GPU yet" in out


def test_step_and_convolutions_beside_pytorch(command: Any, torch: Any, capsys: Any) -> None:
    found = command("--parts", "convolutions", "step", "--no-compile")
    assert (found["problems"], found["exit code"]) == ([], 0)
    sides = {"cuda", "tf32", "PyTorch strict", "PyTorch TF32"}
    for kernel in ("conv2d", "conv2d_grad_input", "conv2d_grad_weight"):
        assert contenders(found, kernel) == sides
    steps = {row["contender"]: row for row in found["rows"] if row["name"] == "training step"}
    theirs = ["PyTorch strict", "PyTorch TF32", "PyTorch bf16"]
    assert list(steps) == [*theirs, "minires strict", "minires TF32"]
    assert steps["PyTorch TF32"]["extra"]["over PyTorch TF32"] == 1
    assert steps["minires strict"]["extra"]["loss off"] < 1e-6
    assert steps["minires TF32"]["extra"]["gradients off"] > steps["minires strict"]["extra"]["gradients off"]
    assert steps["minires strict"]["extra"]["launches"] == 7
    assert steps["minires strict"]["extra"]["peak MB"] == 2
    assert any(note.startswith("minires strict at batch 4 is bound by the ") for note in found["notes"])
    assert found["verified"] == []  # im2col and col2im have not been met


def test_a_compiler_that_fails_is_a_note(run: gpu_run.Run, torch: Any, monkeypatch: Any) -> None:
    def compile(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no Triton\nand more lines")

    monkeypatch.setattr(torch, "compile", compile)
    made = gpu_step.contenders(run, True)
    monkeypatch.setattr(
        gpu_step, "contenders", lambda run, with_compiler: {name: made[name] for name in made if "compile" in name}
    )
    gpu_step.part(run, True)
    assert "training step of torch.compile TF32 at batch 4 failed: RuntimeError: no Triton" in run.report.notes
    assert run.report.problems == []


def test_no_step_waits(run: gpu_run.Run, gpu: Counter[str]) -> None:
    batches = gpu_step.endless(gpu_step.dataset(run), 4)
    trainer = gpu_step.ours(run, "tf32")
    gpu_step.step(trainer, batches)
    gpu.clear()
    for _ in range(2):
        gpu_step.step(trainer, batches)
    assert (gpu["sync"], gpu["upload"]) == (0, 0), gpu


def wrong(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    def scaled(*args: Any) -> Any:
        return function(*args) * np.float32(factor)

    return scaled


def replaced(monkeypatch: pytest.MonkeyPatch, kernel: str, name: str, factor: float) -> None:
    """Make a variant's results wrong by a factor."""
    entry = registry[kernel]
    changed = [
        Variant(v.name, wrong(v.function, factor), v.accepts, v.suits, v.cost, v.precision) if v.name == name else v
        for v in entry.variants
    ]
    for old, new in zip(entry.variants, changed, strict=True):
        new.function.__module__ = old.function.__module__
    monkeypatch.setattr(entry, "variants", changed)
    monkeypatch.setattr(entry, "remembered", {})


def test_a_wrong_kernel_is_told_and_not_timed(command: Any, monkeypatch: Any) -> None:
    replaced(monkeypatch, "sum_axes", "cuda", 1 + 1e-4)
    found = command("--parts", "kernels")
    assert found["exit code"] == 1
    assert contenders(found, "sum_axes") == {"portable", "CuPy"}
    assert len(found["problems"]) == 2
    assert all(
        re.match(r"sum_axes of cuda for .* is wrong, so it was not timed: .*1\.\de-04", p) for p in found["problems"]
    )
    assert "reduce" not in found["verified"]
    assert {"norm", "pool", "optim"} <= set(found["verified"])
    assert found["parts"] == {"kernels": "done"}


@pytest.mark.parametrize(
    ("name", "factor", "told"), [("tf32", 1.02, True), ("cuda", 1 + 2e-5, True), ("tf32", 1.0005, False)]
)
def test_convolutions_are_held_to_their_precision(
    run: gpu_run.Run, monkeypatch: Any, name: str, factor: float, told: bool
) -> None:
    replaced(monkeypatch, "conv2d_grad_weight", name, factor)
    gpu_convolutions.part(run)
    assert bool(run.report.problems) == told
    assert all(p.startswith(f"conv2d_grad_weight of {name} for ") for p in run.report.problems)


def test_a_step_with_wrong_gradients_is_not_timed(command: Any, torch: Any, monkeypatch: Any) -> None:
    replaced(monkeypatch, "conv2d_grad_weight", "cuda", 1.01)
    found = command("--parts", "step", "--no-compile")
    assert found["exit code"] == 1
    (problem,) = found["problems"]
    assert problem.startswith("training step of minires strict at batch 4 was not timed: it is off gradients off by ")
    assert contenders(found, "training step") == {"PyTorch strict", "PyTorch TF32", "PyTorch bf16", "minires TF32"}


def test_a_part_that_fails_leaves_the_others(command: Any, monkeypatch: Any) -> None:
    def fail(run: gpu_run.Run) -> None:
        raise OSError("no rates\nand more lines")

    monkeypatch.setattr(gpu_device, "rates", fail)
    monkeypatch.setattr(gpu_cases, "build", lambda sizes, rng: iter(()))
    found = command("--parts", "device", "kernels")
    assert found["parts"] == {"device": "OSError: no rates", "kernels": "done"}
    assert found["problems"] == ["part device failed: OSError: no rates"]
    assert (found["exit code"], found["verified"], found["complete"]) == (1, [], True)


def test_a_contender_that_fails_leaves_the_others(run: gpu_run.Run) -> None:
    def fail() -> None:
        raise MemoryError("too large")

    right = [np.ones(3)]
    passed = run.measure(
        "ones", "3", {"bad": Contender(fail), "good": Contender(lambda: right[0], gpu_run.to_host)}, right=right
    )
    assert passed == {"good"}
    assert [row.contender for row in run.report.rows] == ["good"]
    assert run.report.problems == ["ones of bad for 3 failed: MemoryError: too large"]


def test_a_kernel_without_a_case_is_not_verified(run: gpu_run.Run, monkeypatch: Any) -> None:
    for _, kernel, _ in gpu_run.variants():
        run.hold(kernel, {"cuda", "tf32"})
    assert run.verified() == compiler.stems()
    entry = registry["relu"]
    new = Variant("cuda", lambda x: x, Accepts("cuda"))
    new.function.__module__ = "minires.kernels.cuda.norm"
    monkeypatch.setattr(entry, "variants", [*entry.variants, new])
    assert run.verified() == [stem for stem in compiler.stems() if stem != "norm"]
    run.hold("sum_axes", set())
    run.hold("sum_axes", {"cuda"})  # once wrong is wrong
    assert "reduce" not in run.verified()


def test_training_beside_pytorch(command: Any, torch: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    cifar_files.write(tmp_path, rng, train=20, test=6)
    found = command("--parts", "device", "--epochs", "2", "--data-path", str(tmp_path))
    assert (found["problems"], found["exit code"]) == ([], 0)
    records = found["training"]
    assert [(r["epoch"], r["contender"]) for r in records] == [
        (epoch, name) for epoch in (1, 2) for name in ("minires TF32", "PyTorch TF32")
    ]
    for ours, theirs in zip(records[::2], records[1::2], strict=True):
        assert ours["rate"] == pytest.approx(theirs["rate"])
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.02)
        assert 0 <= ours["test_acc"] <= 100
    assert records[0]["rate"] > 0.05 > 1e-2 > records[2]["rate"]


def test_accuracy_is_that_of_evaluation_mode(run: gpu_run.Run, torch: Any) -> None:
    ours, theirs = gpu_step.ours(run, "exact"), gpu_step.theirs(run)
    images, _ = next(gpu_step.endless(gpu_step.dataset(run), 16))
    labels = ours.model.eval()(Tensor(images)).data.argmax(axis=1)
    batches = [(Tensor(images), Tensor(labels))]
    assert ours.accuracy(batches) == theirs.accuracy(batches) == 100
    labels[:4] = 9 - labels[:4]
    assert ours.accuracy(batches) == theirs.accuracy(batches) == 75


def test_no_gpu_is_told_in_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "gpu_missing", lambda: "CuPy is not installed")
    monkeypatch.setattr(sys, "argv", ["gpu_report", "--json", str(tmp_path / "report.json")])
    assert training.exit_code(gpu_report.main) == 2
    assert capsys.readouterr().err == "gpu_report: error: device 'cuda' cannot be used: CuPy is not installed\n"
    assert not list(tmp_path.iterdir())


def test_only_a_full_run_is_recorded(gpu: Counter[str], monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_report, "Sizes", lambda: gpu_run.QUICK)
    monkeypatch.setattr(gpu_step, "part", lambda run, with_compiler: None)
    replaced(monkeypatch, "sum_axes", "cuda", 2)
    file = str(tmp_path / "report.json")
    for parts, code, recorded in (("device kernels", 1, False), (" ".join(gpu_report.PARTS), 1, True)):
        monkeypatch.setattr(sys, "argv", ["gpu_report", "--rounds", "1", "--json", file, "--parts", *parts.split()])
        with pytest.raises(SystemExit) as ended:
            gpu_report.main()
        assert ended.value.code == code
        assert verified.FILE.exists() == recorded
    content = json.loads(verified.FILE.read_text())
    assert content["device"] == "Fake GPU"
    known = [stem for stem in compiler.stems() if stem != "reduce"]
    assert content["stems"] == {stem: verified.fingerprint(stem) for stem in known}
    assert verified.status() == f"kernels verified on Fake GPU, {content['date']}; not yet: reduce"


def test_product_bound_admits_sums_one_by_one(rng: np.random.Generator) -> None:
    """As a thread of a GPU adds; and not those whose numbers were rounded to TF32."""
    terms = 2048
    a, b = (rng.standard_normal((terms, 4096), dtype=np.float32) for _ in range(2))
    right = np.sum(a.astype(np.float64) * b, axis=0)
    total = np.zeros(4096)
    for x, y in zip(a, b, strict=True):
        total = (total + x.astype(np.float64) * y).astype(np.float32).astype(np.float64)
    rounded = np.sum(fake_cuda._truncated(a).astype(np.float64) * fake_cuda._truncated(b), axis=0)
    one_by_one, tf32 = (report.Error(*gpu_run.checking.error(found, [right])) for found in (total, rounded))
    assert one_by_one.within(gpu_run.product(terms))
    assert not one_by_one.within(EXACT)
    assert tf32.within(gpu_run.TF32)
    assert not tf32.within(gpu_run.product(1 << 17))


class TestStatus:
    """The line of `python -m minires`."""

    @pytest.fixture(autouse=True)
    def file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(verified, "FILE", tmp_path / "verified.json")

    def test_no_file(self) -> None:
        assert verified.status() == "kernels never run on a GPU yet (emulated only)"

    def test_all_equal(self) -> None:
        verified.record("NVIDIA H200", "2026-11-22", "abc", compiler.stems())
        assert verified.status() == "kernels verified on NVIDIA H200, 2026-11-22"
        assert [path.name for path in verified.FILE.parent.iterdir()] == ["verified.json"]

    def test_one_changed_and_one_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        verified.record("NVIDIA H200", "2026-11-22", None, [s for s in compiler.stems() if s != "pool"])
        right = verified.fingerprint
        monkeypatch.setattr(verified, "fingerprint", lambda stem: "other" if stem == "norm" else right(stem))
        assert verified.status() == "kernels verified on NVIDIA H200, 2026-11-22; changed since: norm; not yet: pool"

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"device": "a", "date": "b", "stems": 3}', "\xff"])
    def test_damaged(self, text: str) -> None:
        verified.FILE.write_bytes(text.encode("latin-1"))
        assert re.match(r"kernels: verified.json is damaged \(\w+\); `python -m benchmarks", verified.status())
