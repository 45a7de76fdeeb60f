"""One way to declare what is timed: a call of a kernel, and the call of PyTorch that does the same."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import checking, harness, peers
from benchmarks.harness import Cases, Contender, Run
from benchmarks.report import Work
from minires import kernels, training


class Case(NamedTuple):
    """A kernel, or an op that calls several kernels, with its arguments.

    `bytes` is what must be read and written at least. `peer` is PyTorch's call for it, of `given`: images (N, H, W, C)
    reach it as tensors (N, C, H, W) of each memory layout, other arrays and numbers as they are. It returns what the
    kernel returns; `back` maps what it returns otherwise, as arrays of channels-last images.
    """

    name: str  # the kernel's, or with `op` what that computes
    args: Sequence[Any]
    bytes: float
    peer: Callable[..., Any] | None = None
    given: Sequence[Any] = ()
    back: Callable[..., Any] | None = None
    op: Callable[..., Any] | None = None
    note: str = ""  # what tells it from others of its name


def measure(run: Run, case: Case, shape: str) -> None:
    """Check and time a case: every variant of a kernel; or an op, by portable kernels and by those that are taken."""
    work, shape = Work(bytes=case.bytes), f"{shape}, {case.note}" if case.note else shape
    if case.op is None:
        run.kernel(case.name, shape, case.args, work, others(case))
        return
    with kernels.use("portable"):
        wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in case.args]
        right = checking.outputs(case.op(*wide))
    call = functools.partial(case.op, *case.args)
    ours = {"portable": Contender(kernels.use("portable")(call)), "minires": Contender(call, chosen=True)}
    run.measure(case.name, shape, others(case) | ours, work, lambda: right)


def others(case: Case) -> dict[str, Contender]:
    """PyTorch in both layouts, or once where no image is given to it; nothing without PyTorch."""
    if case.peer is None:
        return {}
    rows = next(a for a in case.args if isinstance(a, np.ndarray)).ndim == 2  # the kernel has images as (N*H*W, C)

    def contender(torch: Any, layout: str) -> Contender:
        tensors = [_tensor(torch, value, layout) for value in case.given]
        return Contender(functools.partial(case.peer, *tensors), lambda result: _arrays(result, rows, case.back))

    made = peers.in_both_layouts(contender)
    if not any(getattr(value, "ndim", 0) == 4 for value in case.given):
        return {"PyTorch": next(iter(made.values()))} if made else {}
    return dict(made)


def _tensor(torch: Any, value: Any, layout: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    own = value.copy()  # some calls write into what they are given
    return peers.images(own, layout) if own.ndim == 4 else torch.from_numpy(own)


def _arrays(result: Any, rows: bool, back: Callable[..., Any] | None) -> list[np.ndarray]:
    tensors = result if isinstance(result, (tuple, list)) else (result,)
    arrays = [peers.from_images(t) if t.ndim == 4 else t.numpy() for t in tensors if t is not None]
    if back is not None:
        arrays = back(*arrays)
    return [a.reshape(-1, a.shape[-1]) if rows and a.ndim == 4 else a for a in arrays]


Build = Callable[[tuple[int, ...], np.random.Generator], Iterable[Case]]


def odd(build: Build, shapes: Sequence[tuple[int, ...]]) -> dict[str, Cases]:
    """For each kernel that `build` has cases of: its arguments at small odd shapes, to check a user's kernel on."""

    def of(name: str) -> Cases:
        def cases(rng: np.random.Generator) -> Iterator[Sequence[Any]]:
            return (case.args for shape in shapes for case in build(shape, rng) if case.name == name)

        return cases

    some = build(shapes[0], np.random.default_rng(0))
    return {name: of(name) for name in dict.fromkeys(case.name for case in some if case.op is None)}


def parser(
    description: str | None, build: Build, shape: tuple[int, ...], batch: int | None = None, ops: Iterable[str] = ()
) -> training.ArgumentParser:
    """The options of a benchmark that times `ops` and the cases that `build` makes, such as those of `shape`."""
    made = harness.arguments(description, batch=batch)
    some = list(build(shape, np.random.default_rng(0)))
    names = list(dict.fromkeys([*ops, *(case.name for case in some)]))
    made.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    harness.add_kernel_options(made, dict.fromkeys(case.name for case in some if case.op is None))
    return made


def wanted(args: argparse.Namespace, name: str) -> bool:
    """Whether --only leaves this in."""
    return not args.only or name in args.only


def start(benchmark: str, args: argparse.Namespace, build: Build, small: Sequence[tuple[int, ...]]) -> Run:
    """The run of a benchmark; `small` shapes are for checking a user's kernel."""
    peers.find_torch()
    return Run(benchmark, args, odd(build, small))


def measure_all(run: Run, build: Build, shapes: Iterable[tuple[int, ...]]) -> None:
    """Measure the cases that are wanted at all shapes."""
    rng, shapes = np.random.default_rng(0), list(shapes)
    run.total = run.done + len(shapes) * sum(wanted(run.args, case.name) for case in build((1, *shapes[0][1:]), rng))
    for shape in shapes:
        for case in build(shape, rng):
            if wanted(run.args, case.name):
                measure(run, case, "x".join(map(str, shape)))
