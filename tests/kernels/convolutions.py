"""What the tests of convolution's variants share: its three kernels' arguments, and the variants that take them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from minires.kernels import ConvGeometry, registry
from minires.kernels.dispatch import Variant
from tests.helpers import TOLERANCES, Tolerance

KERNELS = ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")
# What a variant promises, by the precision setting that allows it.
STATED = {"exact": TOLERANCES["gemm"], "fast": TOLERANCES["gemm_fast"]}


class Call(NamedTuple):
    """One variant, or the portable version, of one of the kernels, with its arguments."""

    kernel: str
    variant: Variant
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        return f"{self.kernel}_{self.variant.name}"

    @property
    def stated(self) -> Tolerance:
        return STATED[self.variant.precision]

    def __call__(self) -> np.ndarray:
        return self.variant.function(*self.args)


PLAIN = ConvGeometry()


@dataclass(frozen=True)
class Convolution:
    """Shapes of x (N, H, W, C) and w (KH, KW, C/G, O), how the window moves, and what results get: bias, sum, ReLU."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    geometry: ConvGeometry = PLAIN
    bias: bool = False
    add: bool = False
    relu: bool = False

    @property
    def y(self) -> tuple[int, ...]:
        return self.x[0], *self.geometry.output_size(self.x[1:3], self.w[:2]), self.w[3]

    def draw(self, dtype: Any = np.float64, shift: float | None = None, seed: int = 0) -> list[np.ndarray]:
        """x as it leaves a ReLU, or positive and of about this mean; w as it is initialised; gy; biases; a sum."""
        rng = np.random.default_rng(seed)
        shapes = self.x, self.w, self.y, (self.w[3],), (self.x[3],), self.y
        x, w, gy, o, c, z = (rng.standard_normal(shape, np.float32) for shape in shapes)
        x = np.maximum(x, 0) if shift is None else np.abs(x + shift)
        w *= math.sqrt(2 / max(1, math.prod(self.w[:3])))
        return [np.asarray(a, dtype) for a in (x, w, gy, o, c, z)]

    def args(self, kernel: str, x: Any, w: Any, gy: Any, o: Any, c: Any, z: Any) -> tuple[Any, ...]:
        """A kernel's arguments, from what `draw` gives."""
        return {
            "conv2d": (x, w, self.geometry, o if self.bias else None, z if self.add else None, self.relu),
            "conv2d_grad_input": (gy, w, self.x, self.geometry, c if self.bias else None),
            "conv2d_grad_weight": (gy, x, self.w, self.geometry),
        }[kernel]

    def shape(self, kernel: str) -> tuple[int, ...]:
        """Of a kernel's result."""
        return dict(zip(KERNELS, (self.y, self.x, self.w), strict=True))[kernel]

    def calls(self, arrays: list[np.ndarray]) -> Iterator[Call]:
        """Each variant of each kernel that takes these arrays."""
        for kernel in KERNELS:
            args = self.args(kernel, *arrays)
            yield from (Call(kernel, v, args) for v in registry[kernel].variants if v.takes(args, {}))

    def right(self, kernel: str, arrays: list[np.ndarray]) -> np.ndarray:
        """The portable kernel's result in float64."""
        return registry[kernel].portable.function(*self.args(kernel, *(a.astype(np.float64) for a in arrays)))


SMALL = {
    "COLUMN_BYTES": 4000, "FEW_WINDOWS": 0, "ROWS": 6, "PIXELS": 50, "TERMS": 11,
    "MOST_PLACES": 36 * 12, "CHANNELS": 6, "COLUMNS": 32, "DEEP": 4, "WIDE": 3, "TILES": 5, "ALONE": 0,
}  # fmt: skip


def small_blocks(patch: pytest.MonkeyPatch) -> None:
    """From now on each thread gets several blocks, of some rows of an image or of a few images, the last smaller.

    Sums are cut into several, too, and nothing is so little that one thread does it alone.
    """
    for name, size in SMALL.items():
        holders = [module for module in modules() if hasattr(module, name)]
        assert holders, name
        for module in holders:
            patch.setattr(module, name, size)


def modules() -> list[ModuleType]:
    """Those that the variants are made of."""
    names = "minires.kernels.cpu.conv", "minires.kernels.cpu.tiles", "minires.kernels.cpu.plans"
    return [module for name, module in sys.modules.items() if name.startswith(names)]


EPILOGUE: Any = {"bias": True, "add": True, "relu": True}
# Each is met by every variant that takes it at all. Together they have H != W, tiles that stick out at both sides,
# pads that differ on all four sides, bands of one image's rows, more channels than tiles, and few windows.
CASES = {
    "3x3": Convolution((3, 9, 14, 5), (3, 3, 5, 7), ConvGeometry(padding=(1, 1, 1, 1)), **EPILOGUE),
    "3x3, no tile sticks out": Convolution((2, 8, 12, 6), (3, 3, 6, 4), ConvGeometry(padding=(1, 1, 1, 1))),
    "3x3, tiles in sixty-fours": Convolution(
        (8, 32, 32, 8), (3, 3, 8, 8), ConvGeometry(padding=(1, 1, 1, 1)), relu=True),
    "3x3, pads differ": Convolution((2, 7, 6, 3), (3, 3, 3, 4), ConvGeometry(padding=(0, 2, 2, 1)), **EPILOGUE),
    "3x3, large pads": Convolution((2, 7, 6, 3), (3, 3, 3, 4), ConvGeometry(padding=(3, 7, 0, 5))),
    "3x3, one pixel": Convolution((5, 1, 1, 3), (3, 3, 3, 4), ConvGeometry(padding=(1, 1, 1, 1))),
    "3x3, one row": Convolution((1, 1, 23, 4), (3, 3, 4, 3), ConvGeometry(padding=(2, 0, 0, 2)), relu=True),
    "3x3, many channels": Convolution((1, 4, 4, 130), (3, 3, 130, 258), ConvGeometry(padding=(1, 1, 1, 1)), **EPILOGUE),
    "3x3, channels over 64": Convolution((2, 16, 16, 65), (3, 3, 65, 66), ConvGeometry(padding=(1, 1, 1, 1))),
    "3x3, panels": Convolution((4, 16, 16, 130), (3, 3, 130, 128), ConvGeometry(padding=(1, 1, 1, 1)), **EPILOGUE),
    "3x3, large image": Convolution((2, 131, 118, 3), (3, 3, 3, 5), ConvGeometry(padding=(1, 1, 1, 1)), bias=True),
    "3x3/2": Convolution((3, 9, 12, 5), (3, 3, 5, 6), ConvGeometry((2, 2), (1, 1, 1, 1)), **EPILOGUE),
    "3x3/(3, 2), pads differ": Convolution((2, 11, 10, 4), (3, 3, 4, 5), ConvGeometry((3, 2), (2, 0, 1, 3))),
    "3x3, dilated": Convolution((2, 12, 9, 3), (3, 3, 3, 4), ConvGeometry((1, 2), (2, 1, 2, 0), (2, 3)), bias=True),
    "7x7/2": Convolution((2, 23, 30, 3), (7, 7, 3, 9), ConvGeometry((2, 2), (3, 3, 3, 3))),
    "2x5": Convolution((3, 10, 13, 3), (2, 5, 3, 4), ConvGeometry(padding=(1, 0, 2, 4)), **EPILOGUE),
    "4x1/(2, 1)": Convolution((4, 13, 5, 2), (4, 1, 2, 3), ConvGeometry((2, 1), (3, 1, 0, 0))),
    "2x1/(4, 3), phases that no window sees": Convolution((2, 9, 11, 3), (2, 1, 3, 4), ConvGeometry((4, 3)), bias=True),
    "2x2/5, image smaller than the stride": Convolution((2, 3, 4, 3), (2, 2, 3, 4), ConvGeometry((5, 5))),
    "1x1": Convolution((3, 33, 31, 6), (1, 1, 6, 8), **EPILOGUE),
    "1x1, many channels": Convolution((1, 3, 5, 140), (1, 1, 140, 259), **EPILOGUE),
    "1x1/(2, 3)": Convolution((3, 8, 10, 6), (1, 1, 6, 7), ConvGeometry((2, 3)), add=True, relu=True),
    "1x1, pads": Convolution((2, 5, 4, 3), (1, 1, 3, 4), ConvGeometry((2, 1), (1, 0, 2, 1))),
    "groups": Convolution((3, 9, 8, 6), (3, 3, 2, 9), ConvGeometry((2, 1), (1, 0, 2, 1), groups=3), **EPILOGUE),
    "depthwise": Convolution((3, 9, 8, 6), (3, 3, 1, 6), ConvGeometry((1, 2), (1, 1, 1, 1), groups=6), add=True),
}  # fmt: skip
