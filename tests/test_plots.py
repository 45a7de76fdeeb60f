"""Pictures: a PNG that is not blank, right colours, and a word about what to install where matplotlib is missing."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from minires import plots
from minires.errors import ArgumentError

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
Image = pytest.importorskip("PIL.Image", reason="pillow reads the pictures")

CLASSES = [f"class {i}" for i in range(10)]


def records(count: int) -> list[dict[str, float]]:
    return [
        {"epoch": i, "train_loss": 2 / i, "train_acc": 90 - 40 / i, "test_loss": 2.5 / i, "test_acc": 85 - 40 / i}
        for i in range(1, count + 1)
    ]


def probabilities(guesses: list[int], p: float = 0.82) -> np.ndarray:
    return np.where(np.arange(10) == np.array(guesses)[:, None], p, (1 - p) / 9)


@pytest.fixture
def figures(monkeypatch) -> list:
    """The figures that are saved from here on."""
    kept: list = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (kept.append(figure), save(figure, path)))
    return kept


def colours(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_curves(tmp_path, figures, count):
    path = tmp_path / "new" / "curves.png"
    plots.curves(records(count), path, "a run")
    pixels = colours(path)
    assert pixels.shape == (540, 1350, 3)
    for colour in (plots.BLUE, plots.ORANGE):
        drawn = (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1)
        assert drawn.sum() > 20, colour
    assert os.listdir(path.parent) == ["curves.png"]
    loss, error = figures[0].axes
    expected = records(count)
    for axes, values in ((loss, lambda r, s: r[f"{s}_loss"]), (error, lambda r, s: 100 - r[f"{s}_acc"])):
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            assert line.get_label() == split
            assert line.get_xdata().tolist() == list(range(1, count + 1))
            np.testing.assert_allclose(line.get_ydata(), [values(r, split) for r in expected])
    far = max(r["train_loss"] for r in expected) > 20 * min(r["train_loss"] for r in expected)
    assert loss.get_yscale() == ("log" if far else "linear")
    assert far == (count == 30)
    assert error.get_ylim()[0] == 0
    assert error.texts[0].get_text() == f"{100 - expected[-1]['test_acc']:.2f} %"


def test_curves_of_held_out_images_before_those_of_the_test(tmp_path, figures):
    held = [{**record, "val_loss": 3.0 + i, "val_acc": 70.0 + i} for i, record in enumerate(records(3))]
    plots.curves(held, tmp_path / "curves.png", "a run")
    loss, error = figures[0].axes
    assert [line.get_label() for line in error.lines] == ["train", "val"]
    assert loss.lines[1].get_ydata().tolist() == [3, 4, 5]
    assert error.lines[1].get_ydata().tolist() == [30, 29, 28]
    assert error.texts[0].get_text() == "28.00 %"


def test_curves_of_a_run_that_diverged(tmp_path):
    bad = [{**record, "train_loss": float("nan"), "test_loss": float("inf")} for record in records(2)]
    plots.curves(bad, tmp_path / "curves.png", "a run")
    assert colours(tmp_path / "curves.png").std() > 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5, 8, 11])
def test_predictions(rng, tmp_path, figures, count, channels):
    images = rng.random((count, 8, 8, channels))
    labels = np.arange(count) % 10
    guesses = [int(label) if i % 3 else (int(label) + 1) % 10 for i, label in enumerate(labels)]
    path = tmp_path / "predictions.png"
    plots.predictions(images, labels, probabilities(guesses), CLASSES, path, "Test")
    pixels = colours(path)
    columns, rows = min(8, count), -(-count // 8)
    assert pixels.shape[:2] == (round((1.85 * rows + 0.5) * 150), round(1.5 * columns * 150))
    assert pixels.std() > 20
    axes = [a for a in figures[0].axes if a.images]
    assert len(axes) == count
    for a, image, label, guess in zip(axes, images, labels, guesses, strict=True):
        right = guess == label
        true = "" if right else f"\ntrue: class {label}"
        assert a.get_title() == f"class {guess} (82 %){true}"
        assert a.title.get_color() == (plots.GREEN if right else plots.RED)
        np.testing.assert_array_equal(a.images[0].get_array(), image[..., 0] if channels == 1 else image)
        assert a.images[0].get_clim() == (0, 1)
    wrong = len(range(0, count, 3))
    assert figures[0].get_suptitle() == f"Test: {count - wrong} of {count} right"


def test_wrong_is_red_and_right_is_green_in_the_picture(tmp_path):
    grey = np.full((2, 8, 8, 1), 0.5)
    for guess, more, less in ((3, 1, 0), (4, 0, 1)):  # green above red for the right guess
        path = tmp_path / f"{guess}.png"
        plots.predictions(grey, np.array([3, 3]), probabilities([guess, guess]), CLASSES, path, "Test")
        pixels = colours(path).astype(int)
        assert (pixels[..., more] - pixels[..., less] > 80).sum() > 100
        assert (pixels[..., less] - pixels[..., more] > 80).sum() == 0


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ArgumentError, match="no epoch to draw"):
        plots.curves([], tmp_path / "curves.png", "a run")
    with pytest.raises(ArgumentError, match="no image to draw"):
        plots.predictions(np.zeros((0, 8, 8, 1)), np.zeros(0, int), np.zeros((0, 10)), CLASSES, tmp_path / "x.png", "")
    with pytest.raises(ArgumentError, match="no step to draw"):
        plots.depths([], tmp_path / "curves.png", "a run")
    with pytest.raises(ArgumentError, match="no net to draw"):
        plots.by_layer({"case": {}}, tmp_path / "layers.png", "a run", "size")
    assert not os.listdir(tmp_path)


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ArgumentError, match=r"pip install 'minires\[examples\]'"):
        plots.curves(records(2), tmp_path / "curves.png", "a run")
    assert not os.listdir(tmp_path)


def test_depths(tmp_path, figures):
    nets = ["plain20", "plain56", "resnet20", "preact_resnet56"]
    points = [
        {"net": net, "step": 10 * j, "train_error": 90 - i - j, "test_error": 91 - i - j}
        for i, net in enumerate(nets)
        for j in range(1, 4)
    ]
    plots.depths(points, tmp_path / "new" / "curves.png", "a run")
    assert colours(tmp_path / "new" / "curves.png").shape == (585, 1350, 3)
    for axes, (shallow, deep), first in zip(figures[0].axes, (nets[:2], nets[2:]), (0, 2), strict=True):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [shallow, deep]
        for i, (line, bold) in enumerate(zip(axes.lines[::2], axes.lines[1::2], strict=True)):
            assert line.get_color() == bold.get_color() == (plots.ORANGE, plots.BLUE)[i]
            assert line.get_linewidth() < bold.get_linewidth()
            assert line.get_xdata().tolist() == bold.get_xdata().tolist() == [10, 20, 30]
            assert line.get_ydata().tolist() == [90 - first - i - j for j in (1, 2, 3)]
            assert bold.get_ydata().tolist() == [91 - first - i - j for j in (1, 2, 3)]


@pytest.mark.parametrize("net", ["plain20", "resnet20"])
def test_depths_of_one_net(tmp_path, figures, net):
    plots.depths([{"net": net, "step": 1, "train_error": 90.0, "test_error": 90.0}], tmp_path / "x.png", "a run")
    assert [len(axes.lines) for axes in figures[0].axes] == ([2, 0] if net == "plain20" else [0, 2])


def test_by_layer(tmp_path, figures):
    cases = {
        "far": {"plain20": [1, 5, 25], "resnet8": [1, 2, None]},
        "near": {"plain20": [1.0, 2.0, 3.0]},
        "none yet": {},
    }
    plots.by_layer(cases, tmp_path / "layers.png", "a run", "size")
    assert colours(tmp_path / "layers.png").std() > 5
    far, near, none = figures[0].axes
    assert [axes.get_yscale() for axes in (far, near, none)] == ["log", "linear", "linear"]
    assert [axes.get_title() for axes in (far, near, none)] == list(cases)
    plain, residual = far.lines
    assert (plain.get_linestyle(), plain.get_color()) == ("--", plots.BLUE)  # the deeper of the two
    assert (residual.get_linestyle(), residual.get_color()) == ("-", plots.ORANGE)
    assert plain.get_xdata().tolist() == [1, 2, 3]
    assert plain.get_ydata().tolist() == [1, 5, 25]
    np.testing.assert_array_equal(residual.get_ydata(), [1, 2, np.nan])
    assert [len(line.get_ydata()) for line in near.lines] == [3, 0]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["plain20", "resnet8"]
