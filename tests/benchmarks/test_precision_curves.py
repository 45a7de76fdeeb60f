"""Loss curves of both precisions: the same draws for a pair, runs kept as they end, and a verdict that can be no."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import pytest

from benchmarks import precision_curves as curves
from minires import data, get_precision
from minires.errors import ArgumentError

PNG = b"\x89PNG"


@pytest.fixture
def images() -> data.ImageDataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
    return data.ImageDataset(pixels, rng.integers(0, 10, 8), [str(i) for i in range(10)], name="noise")


def test_a_seed_decides_weights_order_and_crops(images):
    args = argparse.Namespace(model="resnet18", steps=3, batch=4, lr=0.01)
    first, again, other = (curves.train(args, seed, images) for seed in (0, 0, 1))
    assert len(first) == 3  # more than an epoch of two batches
    assert first == again
    assert first[0] != other[0]


def test_running_means():
    values = np.random.default_rng(0).standard_normal((2, 57))
    half = curves.WINDOW // 2
    naive = [[row[max(0, i - half) : i + half].mean() for i in range(57)] for row in values]
    np.testing.assert_allclose(curves.running(values), naive, rtol=1e-12)


def run(monkeypatch, capsys, folder, images, off: float = 0.0, *flags: str) -> tuple[list[str], list[tuple[str, int]]]:
    """The output, and the runs that were trained; fast is `off` the seeds' spread of 0.1."""
    trained = []

    def train(args, seed, given):
        assert given is images
        trained.append((get_precision(), seed))
        return list(np.linspace(2.3, 1.0, args.steps) + 0.1 * seed + (off if get_precision() == "fast" else 0))

    monkeypatch.setattr(curves, "train", train)
    monkeypatch.setattr(data, "CIFAR10", lambda path: images)
    monkeypatch.setattr(
        sys, "argv", ["precision_curves", "--steps", "50", "--seeds", "2", "--output-dir", str(folder), *flags]
    )
    curves.main()
    return capsys.readouterr().out.splitlines(), trained


@pytest.mark.parametrize(("off", "verdict"), [(0.09, "alike: at every step"), (0.11, "NOT alike at every step")])
def test_the_verdict(off, verdict, monkeypatch, capsys, tmp_path, images):
    lines, trained = run(monkeypatch, capsys, tmp_path, images, off)
    assert trained == [("exact", 0), ("fast", 0), ("exact", 1), ("fast", 1)]
    assert f"over the spread of 2 seeds: {off / 0.1:.2f} (median), {off / 0.1:.2f} (greatest)" in lines[-3]
    assert lines[-2] == verdict
    assert (tmp_path / "precision_curves.png").read_bytes().startswith(PNG)


def test_an_interrupted_run_goes_on(monkeypatch, capsys, tmp_path, images):
    run(monkeypatch, capsys, tmp_path, images)
    file = tmp_path / "precision_curves.json"
    content = json.loads(file.read_text())
    del content["curves"]["fast"]["1"]
    file.write_text(json.dumps(content))
    assert run(monkeypatch, capsys, tmp_path, images)[1] == [("fast", 1)]
    assert run(monkeypatch, capsys, tmp_path, images, 0.0, "--seeds", "3")[1] == [("exact", 2), ("fast", 2)]


def test_curves_of_other_settings_are_refused(monkeypatch, capsys, tmp_path, images):
    run(monkeypatch, capsys, tmp_path, images)
    with pytest.raises(ArgumentError, match=r"other settings: lr was 0.01, is 0.1; name another --output-dir"):
        run(monkeypatch, capsys, tmp_path, images, 0.0, "--lr", "0.1")
