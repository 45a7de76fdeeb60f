"""The optimizers' updates in blocks, on threads: a block goes through all steps of an update before the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...device import Array
from ..dispatch import Accepts, registry, variant
from ..portable.optim import adamw_, sgd_
from .blocks import flat_blocks, large, run

ON_CPU = Accepts("cpu")


@variant(sgd_, ON_CPU, suits=large)
def sgd__blocked(
    w: Array,
    g: Array,
    velocity: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """The portable kernel block by block: what it makes on its way stays in the cache."""
    _update("sgd_", (w, g, velocity), lr, momentum, dampening, weight_decay, nesterov, maximize)


@variant(adamw_, ON_CPU, suits=large)
def adamw__blocked(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    max_exp_avg_sq: Array | None = None,
) -> None:
    """The same."""
    _update(
        "adamw_", (w, g, exp_avg, exp_avg_sq), step, lr, betas, eps, weight_decay, amsgrad, maximize,
        last=(max_exp_avg_sq,),
    )  # fmt: skip


def _update(name: str, arrays: tuple[Array | None, ...], *settings: Any, last: tuple[Array | None, ...] = ()) -> None:
    portable = registry[name].portable.function

    def work(blocks: Iterator[tuple[Array | None, ...]]) -> None:
        for parts in blocks:
            portable(*parts[: len(arrays)], *settings, *parts[len(arrays) :])

    run(work, flat_blocks(*arrays, *last))
