"""Bring your own kernel: a function from a file of the user's, checked on odd shapes before it is timed."""

from __future__ import annotations

import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checking import Error, reference, run, shapes, verified
from minires.errors import ArgumentError
from minires.kernels import registry


def load(where: str) -> Callable[..., Any]:
    """The function that FILE.py:function names. Raises ArgumentError where there is none."""
    path, _, name = where.rpartition(":")
    if not path or not name:
        raise ArgumentError(f"--kernel {where}: give a file and a function in it, such as mine.py:conv2d_mine")
    if not Path(path).is_file():
        raise ArgumentError(f"--kernel {where}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"--kernel {where}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ArgumentError(f"--kernel {where}: {path} cannot be imported: {_told(error, path)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(f"--kernel {where}: {path} has no function {name!r}")
    return function


def _told(error: Exception, path: str) -> str:
    """An exception in one line, with the deepest line of the user's file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == Path(path).name]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{place}"


def which(where: str, of: str | None, kernels: Sequence[str]) -> str:
    """The kernel that a user's function stands for: `of`, else the one that begins its name, else the first."""
    if of is None:
        name = where.rpartition(":")[2]
        fitting = [kernel for kernel in kernels if name.startswith(kernel)]
        return max(fitting, key=len) if fitting else kernels[0]
    if of not in kernels:
        raise ArgumentError(f"--of {of}: this benchmark times {', '.join(kernels)}")
    return of


def check_variants(names: Sequence[str], kernels: Sequence[str]) -> None:
    """Raise ArgumentError for a name that no variant of these kernels has."""
    known = {v.name for kernel in kernels for v in (registry[kernel].portable, *registry[kernel].variants)}
    for name in names:
        if name not in known:
            raise ArgumentError(f"--variants {name}: {', '.join(kernels)} have {', '.join(sorted(known))}")


def check(function: Callable[..., Any], where: str, kernel: str, cases: Iterable[Sequence[Any]]) -> Error:
    """Hold a user's function against the portable kernel in float64 on each of `cases`: the greatest error.

    Raises ArgumentError for another signature, a crash, another dtype, a write into an argument or a wrong result,
    with the arguments' shapes.
    """
    wanted = list(inspect.signature(registry[kernel].portable.function).parameters)
    mine = list(inspect.signature(function).parameters)
    if mine != wanted:
        raise ArgumentError(f"{where} takes ({', '.join(mine)}), but kernel {kernel} takes ({', '.join(wanted)})")
    worst = Error(0, 0)
    for args in cases:
        given = f"{where} for {shapes(args)}"
        print(f"checking for {shapes(args)}", flush=True)  # before the call: strides out of bounds end the process
        right = reference(kernel, args)
        try:
            result = run(function, kernel, args)
        except ArgumentError as error:
            raise ArgumentError(f"{given} {error}, so it was not timed") from None
        except Exception as error:
            told = _told(error, where.rpartition(":")[0])
            raise ArgumentError(f"{given} failed, so it was not timed: {told}") from error
        wide = [a.dtype for a, b in zip(result, right, strict=False) if b.dtype == np.float64 and a.dtype != np.float32]
        if wide:
            raise ArgumentError(f"{given} gives {wide[0]} instead of float32, so it was not timed")
        found = verified(given, result, right)
        worst = Error(max(worst.max, found.max), max(worst.rms, found.rms))
    print(f"checked: {where} is {kernel}, with an error of at most {worst.max:.1e}, {worst.rms:.1e} rms")
    return worst
