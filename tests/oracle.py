"""PyTorch as the oracle: importing this module skips the test module where torch is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.steps import import_torch
from minires.errors import ArgumentError

torch = pytest.importorskip("torch", reason="torch is the oracle of this test: pip install torch==2.13.0")
torch.set_num_threads(2)


def torchvision() -> Any:
    """torchvision, as the benchmarks load it: its compiled ops are declared once in a process."""
    try:
        return import_torch()[1]
    except ArgumentError as error:
        pytest.skip(str(error))


def nchw(x: np.ndarray) -> Any:
    """Images (N, H, W, C) as PyTorch's (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(0, 3, 1, 2)))


def nhwc(x: Any) -> np.ndarray:
    """PyTorch's images (N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(x.detach().numpy().transpose(0, 2, 3, 1))


def oihw(w: np.ndarray) -> Any:
    """Convolution weights (KH, KW, I, O) as PyTorch's (O, I, KH, KW)."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(w).transpose(3, 2, 0, 1)))


def hwio(w: Any) -> np.ndarray:
    """PyTorch's convolution weights (O, I, KH, KW) as (KH, KW, I, O)."""
    return np.ascontiguousarray(w.detach().numpy().transpose(2, 3, 1, 0))
