"""A mistake planted in a CUDA source makes a test fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minires.kernels.cuda import compiler
from tests.cuda import emulator
from tests.cuda.mutants import NORM, OUT_OF_BOUNDS, Check, Mutant
from tests.cuda.mutants_by_stem import BY_STEM

MUTANTS = [*NORM, *BY_STEM]


def named(mutants: list[Mutant]) -> Any:
    return pytest.mark.parametrize("mutant", mutants, ids=lambda mutant: f"{mutant.stem}: {mutant.what}")


@contextmanager
def sources(folder: Path) -> Iterator[None]:
    """Kernels are compiled from another folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "FOLDER", folder)
        yield


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[Mutant, Path]:
    """The folder of each mutant's sources. They are built here, two at a time; the tests find what was built."""
    if reason := emulator.missing():
        pytest.skip(reason)
    folders = {mutant: tmp_path_factory.mktemp("mutant") / "sources" for mutant in MUTANTS}
    texts = []
    for mutant, folder in folders.items():
        mutant.plant(folder)
        with sources(folder):
            text = compiler.source(mutant.stem)
            texts.append((text, compiler.headers(text), (f"-DV={mutant.width}",)))
    with ThreadPoolExecutor(2) as pool:
        for building in [pool.submit(emulator.build, *text) for text in texts]:
            building.result()
    return folders


def failure(check: Check) -> str | None:
    """The first schedule under which a check fails, if there is one."""
    import cupy

    for schedule in emulator.SCHEDULES:
        with emulator.scheduled(schedule, 1):
            try:
                check(cupy)
            except (AssertionError, RuntimeError, RuntimeWarning):
                return schedule
    return None


@named(MUTANTS)
def test_a_mistake_is_found(emulated: Counter[str], planted: dict[Mutant, Path], mutant: Mutant) -> None:
    with sources(planted[mutant]):
        assert failure(mutant.check)
    assert emulated["launch"] > 0


@pytest.mark.parametrize(
    "check", {m.check: m for m in (*MUTANTS, *OUT_OF_BOUNDS)}, ids=lambda check: getattr(check, "func", check).__name__
)
def test_without_a_mistake_none_is_found(emulated: Counter[str], check: Check) -> None:
    assert failure(check) is None
