"""Libraries that benchmarks compare with, none of which minires itself needs."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from minires.errors import ArgumentError


@functools.cache
def import_torch() -> tuple[Any, Any, Any]:
    """torch, torchvision, and declarations of torchvision's compiled ops, which cannot load beside a CPU-only torch."""
    try:
        import torch

        library = torch.library.Library("torchvision", "DEF")  # its declarations live as long as it does
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError as error:
        raise ArgumentError(f"{error}: pip install torch==2.13.0 torchvision==0.28.0") from None
    return torch, torchvision, library


def find_torch() -> ModuleType | None:
    """torch, or None where it is not installed: then minires is timed alone."""
    try:
        import torch
    except ImportError:
        return None
    return torch
