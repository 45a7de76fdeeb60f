"""Every op on CuPy's arrays gives what it gives on NumPy's, stays on the device, and never waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires.device import to_device
from tests.cuda.fake_cupy import counts
from tests.helpers import assert_f16, assert_f32, assert_f64
from tests.ops.case import Case, gradient_for
from tests.ops.cases import CASES

# How many elements a mask picks has to be known before there can be an array of them.
WAITS = {case.name for case in CASES if case.name.startswith("index-mask")}
# Whose op has constants of its own, which it uploads.
CONSTANTS = {case.name for case in CASES for part in ("weight", "loss-cross_entropy", "norm-eval") if part in case.name}

CHECKS = {"float16": assert_f16, "float32": assert_f32, "float64": assert_f64}


def on_both(case: Case, dtype: str, cupy: Any) -> tuple[list[np.ndarray], list[Any]]:
    """The case's result and gradients: on the CPU in float64, and in `dtype` on the GPU, all the time."""
    arrays = case.inputs(dtype)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    gy = gradient_for(case.run(exact)[0]).astype(dtype)
    *uploaded, gy_uploaded = (to_device(a, "cuda") for a in (*arrays, gy))
    counts.clear()
    got = case.run(uploaded, gy_uploaded)
    assert counts["sync"] == (counts["sync by a boolean index"] if case.name in WAITS else 0), counts
    assert counts["upload"] <= (2 if case.name in CONSTANTS else 0), counts
    assert all(isinstance(g, cupy.ndarray) for g in got)
    return case.run(exact, gy.astype(np.float64)), got


@pytest.mark.parametrize("dtype", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_cpu(case: Case, dtype: str, cupy: Any) -> None:
    wanted, got = on_both(case, dtype, cupy)
    for g, want, tolerance in zip(got, wanted, case.tolerances, strict=False):
        CHECKS[dtype](g.get(), want, tolerance)
