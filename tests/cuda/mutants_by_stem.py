"""Planted mistakes in the other CUDA sources: `mutants.py` says what a mutant is, and has those of batch norm."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.cuda import test_augment, test_conv, test_loss, test_optim, test_pool, test_random, test_reduce
from tests.cuda.mutants import Check, Mutant

GATHERS, STRIDED, UNEVEN = (partial(test_conv.assert_gathers, case=case) for case in ("3x3", "stride 2", "uneven"))
PRODUCTS = partial(test_conv.assert_products, case="3x3")


def conv(what: str, old: str, new: str, check: Check) -> Mutant:
    return Mutant(what, "conv.cu", old, new, check, "conv")


CONV = [
    conv("columns as strides of rows", "(int)ow * g.sw - g.left", "(int)ow * g.sh - g.left", UNEVEN),
    conv("no mask at the right border", "w >= 0 && w < g.W)\n", "w >= 0)\n", GATHERS),
    conv("places of the window column by column", "(int)(place / g.KW) * g.dh", "(int)(place / g.KH) * g.dh", UNEVEN),
    conv("windows between two steps are taken", "down % g.sh || ", "", STRIDED),
    conv("output rows as columns", "(line / g.H * g.OH + oh) * g.OW", "(line / g.H * g.OW + oh) * g.OW", GATHERS),
    conv("a pixel has its last term", "sum.at[v] += value.at[v]", "sum.at[v] = value.at[v]", GATHERS),
    conv("the sum after the ReLU", "here.at[v] + b.at[v] + z.at[v];", "here.at[v] + b.at[v];", PRODUCTS),
    conv("bias of the first channels", "load(bias + t.channel)", "load(bias)", PRODUCTS),
]

SETTINGS = partial(test_optim.test_settings, settings=(0.9, 0.3, 0.1, True, True))


def optim(what: str, old: str, new: str, check: Check = SETTINGS) -> Mutant:
    return Mutant(what, "optim.cu", old, new, check, "optim", width=1)


OPTIM = [
    optim("the next parameter begins a block late", "block >= table.last[p]", "block > table.last[p]"),
    optim("every other element", "i += THREADS", "i += 2 * THREADS"),
    optim(
        "decay of the gradient's sign",
        "g = __fadd_rn(g, __fmul_rn(s.weight_decay",
        "g = __fsub_rn(g, __fmul_rn(s.weight_decay",
    ),
    optim(
        "Nesterov with the old velocity", "__fmul_rn(s.momentum, v)) : v", "__fmul_rn(s.momentum, velocity[i] - v)) : v"
    ),
    optim(
        "products that are not rounded",
        "__fadd_rn(__fmul_rn(velocity[i], s.momentum), __fmul_rn(s.undamped, g))",
        "(float)((double)velocity[i] * s.momentum + (double)s.undamped * g)",
    ),
]

SUMS = partial(test_reduce.assert_sums, shape=(100, 7, 36), axes=2)
REDUCE = [
    Mutant("parts over each other", "reduce.cu", "(long long)blockIdx.x * C", "0", SUMS, "reduce"),
    Mutant("the last row of a part twice", "reduce.cu", "r < t.last", "r <= t.last", SUMS, "reduce"),
    Mutant(
        "columns of the first block",
        "reduce.cu",
        "blockIdx.x * 32 + threadIdx.x % 32",
        "threadIdx.x % 32",
        SUMS,
        "reduce",
    ),
]

WORDS, MASK = test_random.assert_words, test_random.assert_mask
NONE = partial(test_random.assert_mask, p=1 - 2**-33)


def random(what: str, file: str, old: str, new: str, check: Check) -> Mutant:
    return Mutant(what, file, old, new, check, "random", width=1)


RANDOM = [
    random("halves exchanged", "philox.cuh", "high2 ^ c.at[1] ^ key0, low2", "low2 ^ c.at[1] ^ key0, high2", WORDS),
    random("the key does not grow", "philox.cuh", "key1 += 0xBB67AE85u;", "", WORDS),
    random("a round less", "philox.cuh", "round < rounds", "round < rounds - 1", MASK),
    random("a threshold that counts itself", "random.cu", "c.at[k] >= threshold", "c.at[k] < threshold", MASK),
    random("the last elements stay unwritten", "random.cu", "4 * i + k < size; k++", "4 * i + 3 < size; k++", NONE),
]

BATCHES, FLOATS = test_augment.assert_batches, partial(test_augment.assert_batches, dtype=np.float32)


def augment(what: str, old: str, new: str, check: Check = BATCHES) -> Mutant:
    return Mutant(what, "augment.cu", old, new, check, "augment", width=1)


AUGMENT = [
    augment("no barrier between the draw and its use", "    __syncthreads();\n", ""),
    augment("rows drawn from columns' word", "below(crop.at[0]", "below(crop.at[1]"),
    augment("crops of a smaller range", "p.W + 2 * p.padding - p.w + 1", "p.W + 2 * p.padding - p.w"),
    augment("mirrored where it should not be", "flip.at[0] < p.mirrored", "flip.at[0] >= p.mirrored"),
    augment("mirrored in the image, not in the window", "p.w - 1 - across", "p.W - 1 - across"),
    augment("examples instead of rows", "rows ? rows[image] : image;", "image;"),
    augment(
        "padding that is not normalised",
        "inside ? (float)from[c] : 0.f",
        "inside ? (float)from[c] : p.shift[c]",
        FLOATS,
    ),
    augment(
        "multiplied and subtracted in one",
        "__fsub_rn(__fmul_rn(value, p.factor[c]), p.shift[c])",
        "(float)((double)value * p.factor[c] - p.shift[c])",
        FLOATS,
    ),
]

POOLED = dict(zip(("shape", "window", "geometry"), test_pool.CASES[1], strict=True))
MAX = partial(test_pool.test_max_pool, **POOLED, kind="ties", aligned=True)
LOWEST = partial(test_pool.test_max_pool, **POOLED, kind="lowest", aligned=True)
DILATED = dict(zip(("shape", "window", "geometry"), test_pool.CASES[5], strict=True))
MAX_GRAD = partial(test_pool.test_max_pool_grad, **DILATED, kind="any", aligned=True)
SMALL = dict(zip(("shape", "window", "geometry"), test_pool.CASES[0], strict=True))
MEAN = partial(test_pool.test_avg_pool, **SMALL, kind="normal", aligned=True)
ADAPTIVE = partial(test_pool.test_adaptive_avg_pool, shape=(1, 7, 5, 3), size=(2, 3), kind="any", aligned=True)


def pool(what: str, old: str, new: str, check: Check) -> Mutant:
    return Mutant(what, "pool.cu", old, new, check, "pool", width=1)


POOL = [
    pool("the last of equals", "here.at[v] > best.at[v] ||", "here.at[v] >= best.at[v] ||", MAX),
    pool("padding wins where all are the lowest", "winner.at[v] = row * g.KW + column;", "winner.at[v] = 0;", LOWEST),
    pool("windows whose holes hold the pixel", "if (down % g.dh) continue;", "", MAX_GRAD),
    pool("windows that did not take the pixel", "if (winner.at[v] == tap) sum.at[v]", "sum.at[v]", MAX_GRAD),
    pool("a share by a product", "here.at[v] / places;", "here.at[v] * (1.f / places);", MEAN),
    pool("windows that end too early", "((i + 1) * size + count - 1) / count", "(i + 1) * size / count", ADAPTIVE),
    pool(
        "the pixel's own count",
        "(float)Span(oh, H, OH).places() * Span(ow, W, OW).places()",
        "(float)rows.places() * columns.places()",
        ADAPTIVE,
    ),
]

RESULTS = partial(test_loss.test_results, shape=(8, 33), spread=3, scaled=True)
NOT_FINITE = partial(test_loss.test_what_is_not_finite, shape=(4, 10), spread=3)


def loss(what: str, old: str, new: str, check: Check = RESULTS) -> Mutant:
    return Mutant(what, "loss.cu", old, new, check, "loss", width=1)


LOSS = [
    loss(
        "half a warp's sum",
        "int mask = 16; mask > 0; mask /= 2) value +=",
        "int mask = 8; mask > 0; mask /= 2) value +=",
    ),
    loss(
        "the maximum of a part",
        "for (int mask = 16; mask > 0; mask /= 2) {",
        "for (int mask = 16; mask > 1; mask /= 2) {",
    ),
    loss(
        "infinite maxima of two threads",
        " || (value == top && where < place)",
        "",
        partial(NOT_FINITE, value=-np.inf, spread=0),
    ),
    loss(
        "an infinite maximum counts as one",
        "c == place ? shifted",
        "c == place ? 0.f",
        partial(NOT_FINITE, value=np.inf),
    ),
    loss(
        "1 + small numbers",
        "log1pf((float)r.others)",
        "logf(1 + (float)r.others)",
        partial(test_loss.test_results, shape=(257, 7), spread=3, scaled=True),
    ),
    loss("each thread's own part of the others", "    sum = warp_sum(sum);\n    if (lane == 0", "    if (lane == 0"),
    loss(
        "p - 1, which cancels",
        "factor * (float)-sum",
        "factor * (float)(expf(z[t] - r.top) * share - 1)",
        partial(test_loss.test_one_logit_far_above_the_others, place=5),
    ),
]

BY_STEM = [*CONV, *OPTIM, *REDUCE, *RANDOM, *AUGMENT, *POOL, *LOSS]
