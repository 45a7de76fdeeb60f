"""PyTorch as a peer of single kernels. It is optional: without it minires is timed alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.harness import Contender

LAYOUTS = {"PyTorch NCHW": "contiguous_format", "PyTorch channels-last": "channels_last"}


@functools.cache
def find_torch() -> Any:
    """torch, or None where it is not installed. Call it before `harness.Run` begins, which sets torch's threads."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def images(array: np.ndarray, layout: str) -> Any:
    """x (N, H, W, C) as a tensor (N, C, H, W) in a memory layout of LAYOUTS."""
    torch = find_torch()
    nchw = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
    return nchw.contiguous(memory_format=getattr(torch, layout))


def filters(array: np.ndarray, layout: str) -> Any:
    """w (KH, KW, I, O) as a tensor (O, I, KH, KW)."""
    torch = find_torch()
    oihw = torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))
    return oihw.contiguous(memory_format=getattr(torch, layout))


def from_images(tensor: Any) -> np.ndarray:
    """The inverse of `images`, a view."""
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def from_filters(tensor: Any) -> np.ndarray:
    """The inverse of `filters`, a view."""
    return tensor.detach().numpy().transpose(2, 3, 1, 0)


def in_both_layouts(make: Callable[[Any, str], Contender]) -> Mapping[str, Contender]:
    """`make(torch, layout)` for each of LAYOUTS; nothing without PyTorch."""
    torch = find_torch()
    return {} if torch is None else {name: make(torch, layout) for name, layout in LAYOUTS.items()}
