"""The default generator: its seed, and its state, which passes through JSON."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minires
from minires import nn
from minires.errors import ArgumentError
from minires.nn import functional as F


def draws() -> list[Any]:
    """A dropout's mask and a convolution's initial weights."""
    weight = nn.Parameter(np.empty((3, 3, 2, 4), np.float32))
    return [F.dropout(np.ones(50, np.float32)).tolist(), nn.init.kaiming_normal_(weight).tolist()]


def test_manual_seed_starts_anew() -> None:
    minires.manual_seed(3)
    first, second = draws(), draws()
    assert first != second
    minires.manual_seed(3)
    assert draws() == first
    minires.manual_seed(4)
    assert draws() != first


def test_threads_that_draw_first_share_one_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that were started at once with seed 0, both would draw the same mask."""
    interval = sys.getswitchinterval()
    monkeypatch.setattr(minires.random, "_default", None)
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            minires.random._default, start = None, threading.Barrier(8)
            with ThreadPoolExecutor(8) as pool:
                found = [
                    pool.submit(lambda b=start: (b.wait(), minires.random.default_generator())[1]) for _ in range(8)
                ]
            assert len({id(f.result()) for f in found}) == 1
    finally:
        sys.setswitchinterval(interval)


def test_the_state_passes_through_json() -> None:
    minires.manual_seed(3)
    draws()
    state = json.loads(json.dumps(minires.get_rng_state()))
    want = [draws(), draws()]
    minires.manual_seed(99)
    minires.set_rng_state(state)
    assert [draws(), draws()] == want
    minires.set_rng_state(state)  # it is not used up
    assert draws() == want[0]


def test_the_state_is_a_copy() -> None:
    minires.manual_seed(3)
    state = minires.get_rng_state()
    copy = json.dumps(state)
    draws()
    assert json.dumps(state) == copy
    state["state"]["state"] = 0
    assert minires.get_rng_state()["state"]["state"] != 0


@pytest.mark.parametrize("bad", [None, {}, 3, {"bit_generator": "MT19937"}, np.random.MT19937(0).state])
def test_a_foreign_state_is_refused_and_changes_nothing(bad: Any) -> None:
    minires.manual_seed(3)
    before = minires.get_rng_state()
    with pytest.raises(ArgumentError, match="set_rng_state: not a state from get_rng_state"):
        minires.set_rng_state(bad)
    assert minires.get_rng_state() == before


@pytest.mark.parametrize("generator", [0, np.random.RandomState(0), "seed"])
@pytest.mark.parametrize("draw", [lambda g: F.dropout([1.0], generator=g), lambda g: nn.Linear(2, 3, generator=g)])
def test_what_is_no_generator_is_refused(draw: Any, generator: Any) -> None:
    with pytest.raises(ArgumentError, match="generator must be a numpy Generator"):
        draw(generator)
