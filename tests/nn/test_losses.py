"""The layers of losses beside PyTorch's: values, gradients, settings, state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, nn
from tests.oracle import torch

ROWS, REDUCTIONS = (6, 5), ("mean", "sum", "none")
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25, 1.5])
LABELS = np.array([0, 4, 2, 2, -100, 1])

# Name of the layer, settings, target ("normal" and "uniform" are drawn)
CALLS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "cross entropy": ("CrossEntropyLoss", {}, LABELS),
    "cross entropy, all settings": (
        "CrossEntropyLoss",
        {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1},
        np.abs(LABELS) % 5,
    ),
    "cross entropy of probabilities": ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, "uniform"),
    "negative log-likelihood": ("NLLLoss", {}, LABELS),
    "negative log-likelihood, all settings": ("NLLLoss", {"weight": WEIGHT, "ignore_index": 4}, np.abs(LABELS) % 5),
    "squares": ("MSELoss", {}, "normal"),
    "absolute values": ("L1Loss", {}, "normal"),
    "binary": ("BCEWithLogitsLoss", {}, "uniform"),
    "binary, all settings": ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT[::-1].copy()}, "uniform"),
}


def drawn(kind: Any, rng: np.random.Generator) -> np.ndarray:
    if isinstance(kind, np.ndarray):
        return kind
    return rng.standard_normal(ROWS) if kind == "normal" else rng.random(ROWS)


def pair(name: str, **more: Any) -> tuple[nn.Module, Any]:
    layer, settings, _ = CALLS[name]
    theirs = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in settings.items()}
    return getattr(nn, layer)(**settings, **more), getattr(torch.nn, layer)(**theirs, **more)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CALLS)
def test_losses_equal_pytorchs(name: str, reduction: str, rng: np.random.Generator) -> None:
    ours, theirs = pair(name, reduction=reduction)
    values = rng.standard_normal(ROWS)
    target = drawn(CALLS[name][2], rng)
    x, their_x = Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
    loss, their_loss = ours(x, target), theirs(their_x, torch.from_numpy(target))
    loss.sum().backward()
    their_loss.sum().backward()
    np.testing.assert_allclose(loss.data, their_loss.detach().numpy(), rtol=1e-13)
    np.testing.assert_allclose(x.grad.data, their_x.grad.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", CALLS)
def test_weights_are_state_as_in_pytorch(name: str) -> None:
    ours, theirs = pair(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert not list(ours.parameters())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].data, value.numpy())
    ours.to("float32").load_state_dict({key: value + 1 for key, value in theirs.state_dict().items()})
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(getattr(ours, key).data, (value + 1).float().numpy())


def test_weights_may_be_lists() -> None:
    assert nn.CrossEntropyLoss([1.0, 2.0])(Tensor([[0.0, 0.0]]), [1]).item() == pytest.approx(np.log(2), rel=1e-6)


REPRS = {
    "CrossEntropyLoss(ignore_index=-100, reduction=sum, label_smoothing=0.1)": lambda: nn.CrossEntropyLoss(
        reduction="sum", label_smoothing=0.1
    ),
    "NLLLoss(ignore_index=3, reduction=mean)": lambda: nn.NLLLoss(ignore_index=3),
    "MSELoss(reduction=none)": lambda: nn.MSELoss(reduction="none"),
    "L1Loss(reduction=mean)": nn.L1Loss,
    "BCEWithLogitsLoss(reduction=mean)": nn.BCEWithLogitsLoss,
}


@pytest.mark.parametrize("text", REPRS)
def test_repr(text: str) -> None:
    assert repr(REPRS[text]()) == text


@pytest.mark.parametrize(
    "call",
    [
        lambda: nn.CrossEntropyLoss(None, True),  # size_average
        lambda: nn.NLLLoss(None, True),
        lambda: nn.MSELoss(True),
        lambda: nn.L1Loss(True),
        lambda: nn.BCEWithLogitsLoss(None, True),
        lambda: nn.functional.cross_entropy(np.ones((1, 3)), [0], None, True),
        lambda: nn.functional.nll_loss(np.ones((1, 3)), [0], None, True),
        lambda: nn.functional.mse_loss(np.ones(3), np.ones(3), True),
        lambda: nn.functional.l1_loss(np.ones(3), np.ones(3), True),
        lambda: nn.functional.binary_cross_entropy_with_logits(np.ones(3), np.ones(3), None, True),
    ],
)
def test_deprecated_positions_are_refused(call: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        call()
