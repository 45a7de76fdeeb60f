"""Pictures of a run, drawn with matplotlib (pip install 'minires[examples]')."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ArgumentError

BLUE, ORANGE, GREEN, RED = "#2468b4", "#e07b20", "#1a7f37", "#cf222e"


def _figure(width: float, height: float) -> Any:
    """A figure that needs no screen. Raises ArgumentError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ArgumentError("pictures need matplotlib: pip install 'minires[examples]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves(records: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Loss and error over the epochs: records of `epoch`, `train_loss`, `train_acc`, `test_loss` and `test_acc`.

    With `val_loss` and `val_acc`, of held-out training images, these are drawn instead of the test images'.
    """
    if not records:
        raise ArgumentError("curves: there is no epoch to draw")
    figure = _figure(9, 3.6)
    loss, error = figure.subplots(1, 2)
    epochs = [r["epoch"] for r in records]
    held = "val" if "val_loss" in records[0] else "test"
    losses = [r[f"{split}_loss"] for r in records for split in ("train", held)]
    for split, color in (("train", BLUE), (held, ORANGE)):
        loss.plot(epochs, [r[f"{split}_loss"] for r in records], color=color, marker=".", label=split)
        error.plot(epochs, [100 - r[f"{split}_acc"] for r in records], color=color, marker=".", label=split)
    last = 100 - records[-1][f"{held}_acc"]
    error.annotate(
        f"{last:.2f} %", (epochs[-1], last), xytext=(6, 0), textcoords="offset points", va="center", color=ORANGE
    )
    for axes, label in ((loss, "cross-entropy"), (error, "error in %")):
        axes.set(xlabel="epoch", ylabel=label)
        if axes is loss and 0 < 20 * min(losses) < max(losses) < float("inf"):
            axes.set_yscale("log")  # a loss that falls to a twentieth lies on the axis of a linear scale
        else:
            axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def depths(records: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Errors of nets of different depth over the steps, as in He et al., 2015, figure 6: thin lines for training.

    Records have `net`, `step`, `train_error` and `test_error`, in percent. Plain nets are left, all others right.
    """
    if not records:
        raise ArgumentError("depths: there is no step to draw")
    nets = list(dict.fromkeys(r["net"] for r in records))
    figure = _figure(9, 3.9)
    sides = figure.subplots(1, 2, sharey=True)
    for net, (color, _) in _net_styles(nets).items():
        axes = sides[int(not net.startswith("plain"))]
        of_net = [r for r in records if r["net"] == net]
        steps = [r["step"] for r in of_net]
        axes.plot(steps, [r["train_error"] for r in of_net], color=color, linewidth=1, marker=".", markersize=3)
        axes.plot(steps, [r["test_error"] for r in of_net], color=color, linewidth=2.6, label=net)
    for axes, family in zip(sides, ("plain", "with shortcuts"), strict=True):
        axes.set_title(family, fontsize=10)
        axes.set(xlabel="step", xlim=(0, 1.03 * max(r["step"] for r in records)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(frameon=False)
    sides[0].set(ylabel="error in % (thin: training, bold: test)")
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def by_layer(cases: Mapping[str, Mapping[str, Sequence[float | None]]], path: Path, title: str, ylabel: str) -> None:
    """A number for each layer of nets, each case beside the other: {"case": {"net": [of the first layer, ...]}}.

    Plain nets are dashed, as in He et al., 2015, figure 7. None is left out.
    """
    nets = list(dict.fromkeys(net for case in cases.values() for net in case))
    if not nets:
        raise ArgumentError("by_layer: there is no net to draw")
    figure = _figure(3.6 * len(cases), 3.9)
    for axes, (name, case) in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases.items(), strict=True):
        for net, (color, dashes) in _net_styles(nets).items():
            values = np.array(case.get(net, []), np.float64)
            axes.plot(range(1, len(values) + 1), values, dashes, color=color, linewidth=1.6, label=net)
        drawn = np.concatenate([line.get_ydata() for line in axes.lines])
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) and 0 < 20 * drawn.min() < drawn.max():
            axes.set_yscale("log")
        elif len(drawn):
            axes.set_ylim(0, 1.1 * drawn.max())
        axes.set_title(name, fontsize=10)
        axes.set(xlabel="layer")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.axes[0].set(ylabel=ylabel)
    figure.legend(handles=figure.axes[0].lines, loc="outside lower center", ncols=len(nets), frameon=False)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _net_styles(nets: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour for each depth, which a net's name ends in, from the least; dashes for plain nets, lines for others."""
    depth = {net: int("0" + net[len(net.rstrip("0123456789")) :]) for net in nets}
    order = sorted(set(depth.values()))
    colors = (ORANGE, BLUE, GREEN, RED)
    return {net: (colors[order.index(depth[net]) % 4], "--" if net.startswith("plain") else "-") for net in nets}


def predictions(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], path: Path, title: str
) -> None:
    """A sheet of images (N, H, W, 1 or 3), values in [0, 1], each under its predicted class and the probability of it.

    Right ones are green; wrong ones are red and name the true class too.
    """
    if len(images) == 0:
        raise ArgumentError("predictions: there is no image to draw")
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(1.5 * columns, 1.85 * rows + 0.5)
    grid = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, label, p in zip(grid, images, labels, probabilities, strict=False):
        guess = int(p.argmax())
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray_r", vmin=0, vmax=1)
        text = f"{classes[guess]} ({100 * p[guess]:.0f} %)"
        if guess != label:
            text += f"\ntrue: {classes[int(label)]}"
        axes.set_title(text, fontsize=9, color=GREEN if guess == label else RED)
    right = int((probabilities.argmax(axis=1) == labels).sum())
    figure.suptitle(f"{title}: {right} of {len(images)} right", fontsize=12)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
