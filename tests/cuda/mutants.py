"""Planted mistakes in the CUDA sources, each with a test that must fail for it under one schedule at least.

Those of the other sources are in mutants_by_stem.py, and what reads or writes outside of an array in OUT_OF_BOUNDS.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from minires.kernels.cuda import compiler
from tests.cuda import test_norm

Check = Callable[..., None]  # of the device's CuPy


@dataclass(frozen=True)
class Mutant:
    """A source or a header in which `old`, which stands there once, is `new`."""

    what: str
    file: str
    old: str
    new: str
    check: Check
    stem: str  # that the check launches kernels of,
    width: int = 4  # with this V

    def plant(self, folder: Path) -> None:
        """A folder of all sources, with this mistake."""
        shutil.copytree(compiler.FOLDER, folder, ignore=shutil.ignore_patterns("*.py*"))
        text = (folder / self.file).read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.what}: {self.old!r} is {text.count(self.old)} times in {self.file}"
        (folder / self.file).write_text(text.replace(self.old, self.new), encoding="utf-8")


def common(what: str, old: str, new: str, check: Check) -> Mutant:
    return Mutant(what, "common.cuh", old, new, check, "norm")


def norm(what: str, old: str, new: str, check: Check) -> Mutant:
    return Mutant(what, "norm.cu", old, new, check, "norm")


RESULTS = partial(test_norm.test_results, shape=(700, 64), aligned=True)
RESULTS_OF_TILES = partial(test_norm.test_results, shape=(130, 512), aligned=True)
RESULTS_FAR = partial(test_norm.test_results_far_from_0, shape=(1000, 12), ratio=1e6)
STATISTICS = partial(test_norm.test_statistics, shape=(700, 64), ratio=0.0, aligned=True)
STATISTICS_FAR = partial(test_norm.test_statistics, shape=(700, 64), ratio=1e6, aligned=True)
BAD_CHANNEL = partial(test_norm.test_one_bad_channel, shape=(700, 64), row=5, value=float("inf"))

NORM = [
    common(
        "no barrier between the threads' sums and the sum over lanes",
        "= value[v];\n        __syncthreads();",
        "= value[v];",
        STATISTICS,
    ),
    common(
        "no barrier between the halvings of the lanes",
        "sums[slot(lane + half, v)];\n            __syncthreads();",
        "sums[slot(lane + half, v)];",
        STATISTICS,
    ),
    common(
        "a barrier that only the lower half reaches",
        "if (lane < half)\n                for (int v = 0; v < V; v++) "
        "sums[slot(lane, v)] += sums[slot(lane + half, v)];\n            __syncthreads();",
        "if (lane < half) {\n                for (int v = 0; v < V; v++) "
        "sums[slot(lane, v)] += sums[slot(lane + half, v)];\n            __syncthreads(); }",
        STATISTICS,
    ),
    common(
        "no barrier between the parts' sums and the sum over them",
        "= total;\n    __syncthreads();",
        "= total;",
        STATISTICS,
    ),
    common(
        "no barrier between the halvings of the parts",
        "sums[threadIdx.x + 32 * half];\n        __syncthreads();",
        "sums[threadIdx.x + 32 * half];",
        STATISTICS,
    ),
    common(
        "places are swapped where sums are read, not where they are written",
        "sums[slot(lane, v)] = value[v]",
        "sums[(lane * groups + group) * V + v] = value[v]",
        STATISTICS,
    ),
    common("two channels in one place", "v ^ ((group >> 2) & 3)", "v | ((group >> 2) & 3)", STATISTICS),
    common(
        "halving begins a half too late",
        "for (int half = lanes / 2; half > 0; half /= 2) {\n            if",
        "for (int half = lanes / 4; half > 0; half /= 2) {\n            if",
        STATISTICS,
    ),
    common(
        "halving ends too early",
        "half > 0; half /= 2) {\n        if",
        "half > 1; half /= 2) {\n        if",
        STATISTICS,
    ),
    common("each lane adds up all parts from its own on", "p += lanes", "p++", STATISTICS),
    common("each lane reads the same rows", "blockIdx.x * rows + lane", "blockIdx.x * rows", STATISTICS),
    common("a part goes on to the last row", "last = (blockIdx.x + 1) * rows;", "last = M;", STATISTICS),
    common("a part ends a row too early", "(blockIdx.x + 1) * rows;", "(blockIdx.x + 1) * rows - 1;", RESULTS),
    common(
        "each tile has the first's channels",
        "(blockIdx.y * groups + group) * V",
        "group * V",
        RESULTS_OF_TILES,
    ),
    common("ReLU lets the gradient through at 0", "y <= 0.f ? 0.f : g", "y < 0.f ? 0.f : g", RESULTS),
    common("ReLU makes 0 of NaN", "x <= 0.f ? 0.f : x", "x > 0.f ? x : 0.f", test_norm.test_a_relu_keeps_nan),
    norm("another channel's shift", "mean = x[c] + d", "mean = x[0] + d", STATISTICS_FAR),
    norm("the first sum twice", "sum_lanes(squares, mine + C)", "sum_lanes(sum, mine + C)", STATISTICS),
    norm("squares of d, not of its deviation", "squares / M - d * d", "squares / M", STATISTICS),
    norm("a variance that is NaN becomes 0", "biased < 0 ? 0 : biased", "biased > 0 ? biased : 0", BAD_CHANNEL),
    norm("no second half of a mean", "(float)(mean - hi[c])", "0", STATISTICS_FAR),
    norm("y without it", "beta[c] - lo[c] * a.at[v]", "beta[c]", RESULTS_FAR),
    norm(
        "ReLU before the addition",
        "if (add) value += z.at[v];\n            here.at[v] = with_relu ? relu(value) : value;",
        "if (with_relu) value = relu(value);\n            here.at[v] = add ? value + z.at[v] : value;",
        RESULTS,
    ),
    norm("the weight's gradient without it", "(products - lo[i] * sum)", "products", RESULTS_FAR),
    norm("x's gradient without it", "- slope * lo[i]", "", RESULTS_FAR),
    norm("g before the ReLU is kept", "store(kept + at, g)", "store(kept + at, load(gy + at))", RESULTS),
]

EDGES = partial(test_norm.test_results, shape=(9, 20), aligned=True)
EDGE_STATISTICS = partial(test_norm.test_statistics, shape=(9, 20), ratio=0.0, aligned=True)

OUT_OF_BOUNDS = [
    common("rows behind the last are read", "last = last < M ? last : M;", "last += last < M ? 0 : 1;", EDGES),
    common("sums of channels that are none are written", "lane == 0 && inside", "lane == 0", EDGE_STATISTICS),
    common("sums of channels that are none are read", "if (inside)\n", "\n", EDGE_STATISTICS),
    norm(
        "statistics of channels that are none are written",
        "|| !inside) return;\n    double d",
        ") return;\n    double d",
        EDGE_STATISTICS,
    ),
    norm(
        "results of channels that are none are written",
        "if (!t.inside) return;\n    Floats mean = load(hi + t.channel), a",
        "Floats mean = load(hi + t.channel), a",
        EDGES,
    ),
]
