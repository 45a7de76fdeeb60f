"""SGD's update, setting by setting."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from minires.kernels import sgd_
from tests import reference

SETTINGS = list(product((0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True)))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_ten_steps(rng: np.random.Generator, settings: tuple[float, ...], dtype: type, rtol: float) -> None:
    start = rng.uniform(1, 2, (3, 2)).astype(dtype)
    gradients = rng.uniform(-1, 1, (10, 3, 2)).astype(dtype)
    w, velocity = start.copy(), None
    for g in gradients:
        kept = g.copy()
        velocity = sgd_(w, g, velocity, 0.02, *settings)
        np.testing.assert_array_equal(g, kept)
    assert w.dtype == dtype
    assert velocity is None if settings[0] == 0 else velocity.dtype == dtype
    for place in np.ndindex(start.shape):
        steps = [float(g[place]) for g in gradients]
        want = reference.sgd(float(start[place]), steps, 0.02, *settings)
        assert w[place] == pytest.approx(want, rel=rtol)


def test_velocity_is_no_alias_of_the_gradient() -> None:
    w, g = np.ones(2), np.ones(2)
    velocity = sgd_(w, g, None, 0.1, 0.9, 0.0, 0.0, False, False)
    g[:] = 5
    assert velocity.tolist() == [1, 1]
