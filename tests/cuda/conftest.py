"""The device of these tests: the fake CuPy with emulated kernels, or with `-m gpu` a real one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from minires import device
from tests.cuda import emulator, fake_cupy


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled kernels go to a folder of this run's."""
    before = os.environ.get("MINIRES_CACHE")
    os.environ["MINIRES_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("MINIRES_CACHE")
    if before is not None:
        os.environ["MINIRES_CACHE"] = before


@pytest.fixture
def emulated() -> Iterator[Counter[str]]:
    """`import cupy` gives the fake. The value counts launches, uploads, and waits for the device."""
    if reason := emulator.missing():
        pytest.skip(reason)
    with fake_cupy.installed() as counts:
        yield counts


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest) -> Any:
    """CuPy, the fake one or, under `-m gpu`, the real one."""
    if request.param == "emulated":
        request.getfixturevalue("emulated")
    elif reason := device.gpu_missing():
        pytest.fail(f"-m gpu asks for a GPU: {reason}")  # green must not mean that nothing ran
    import cupy

    return cupy
