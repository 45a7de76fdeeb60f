"""The data benchmark: it refuses contenders that differ, and runs with and without PyTorch."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks import bench_data
from minires import Tensor
from minires.errors import ArgumentError

PLAIN = [(Tensor(np.full((2, 4, 4, 3), i, np.float32)), Tensor(np.array([i, 1]))) for i in range(3)]


def changed(**what: object) -> list[tuple[Tensor, Tensor]]:
    """PLAIN with another last batch."""
    images, labels = PLAIN[-1]
    return [*PLAIN[:-1], (Tensor(what.get("images", images.numpy())), Tensor(what.get("labels", labels.numpy())))]


def test_equal_contenders_pass(capsys):
    nchw = [(Tensor(x.numpy().transpose(0, 3, 1, 2)), y) for x, y in PLAIN]
    bench_data.check({"a": PLAIN, "b": nchw}, {"a": PLAIN, "b": nchw})
    assert capsys.readouterr().out.startswith("checked: 6 images of 2 contenders, not augmented, differ by at most 0.0")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changed(images=np.full((2, 4, 4, 3), 2 + 1e-5, np.float32)), r"pixels of b differ by 1.*e-05"),
        (changed(images=np.full((2, 4, 4, 3), np.nan, np.float32)), "pixels of b differ by nan"),
        (changed(labels=np.array([2, 0])), "labels of b"),
        (changed(images=np.full((2, 4, 5, 3), 2, np.float32)), "b have other shapes"),
        (changed(images=np.full((2, 4, 4, 3), 2, np.float64)), "b have other shapes or types"),
        (PLAIN[:-1], "b have other shapes"),
    ],
    ids=["pixel", "nan", "label", "shape", "type", "number"],
)
def test_a_contender_that_differs_stops_it(wrong, message):
    with pytest.raises(ArgumentError, match=f"{message}.*so nothing was timed"):
        bench_data.check({"a": PLAIN, "b": wrong}, {"a": PLAIN, "b": PLAIN})


def test_augmented_batches_must_have_the_same_shapes():
    with pytest.raises(ArgumentError, match="b have other shapes"):
        bench_data.check({"a": PLAIN, "b": PLAIN}, {"a": PLAIN, "b": PLAIN[1:]})


def run(monkeypatch, capsys) -> list[str]:
    monkeypatch.setenv("MINIRES_DATA", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["bench_data", "--images", "300", "--batch", "64", "--rounds", "1"])
    bench_data.main()
    return capsys.readouterr().out.splitlines()


def test_it_runs_without_pytorch(monkeypatch, capsys):
    def missing() -> None:
        raise ArgumentError("No module named 'torch': pip install it")

    monkeypatch.setattr(bench_data, "import_torch", missing)
    lines = run(monkeypatch, capsys)
    assert "minires alone: No module named 'torch'" in lines[0]
    assert lines[2].startswith("300 random images, batch 64")
    assert [line.split(",")[0] for line in lines[3:]] == ["  minires"] * 3


def test_it_runs_beside_torchvision(monkeypatch, capsys):
    from tests.oracle import torchvision

    torchvision()  # skips where it is not installed
    lines = run(monkeypatch, capsys)
    assert lines[1].startswith("checked: 300 images of 7 contenders")
    assert len(lines) == 3 + 7 + 1
    assert "the best of minires / the best of torchvision" in lines[-1]
