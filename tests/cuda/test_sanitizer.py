"""The kernels under the address sanitizer: they read and write nothing outside of their arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minires.kernels.cuda import compiler
from tests.cuda import emulator
from tests.cuda.mutants import OUT_OF_BOUNDS

ROOT = Path(__file__).parents[2]


def sanitized(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the sanitizer in it, arrays allocated by malloc, and kernels built for it in a cache apart."""
    if reason := emulator.missing():
        pytest.skip(reason)
    library = subprocess.check_output([emulator.COMPILER, "-print-file-name=libasan.so"], text=True).strip()
    if not os.path.isabs(library):
        pytest.skip("g++ has no address sanitizer")
    settings = {
        "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONMALLOC": "malloc", "MINIRES_SANITIZE": "1", "MINIRES_CACHE": str(folder),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *command], env=os.environ | settings, cwd=ROOT, capture_output=True, text=True
    )


KERNELS = [f"tests/cuda/test_{stem}.py" for stem in compiler.stems()]


def test_no_kernel_leaves_its_arrays(tmp_path: Path) -> None:
    """In the tests of each source's kernels, but for those that differ in values or in the order of threads alone."""
    which = "not schedule and not launch and not bad and not far"
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", which)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(sanitized, tmp_path, *command, *KERNELS[half::2]) for half in range(2)]
    for run in (running.result() for running in runs):
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def test_mistakes_are_stopped(tmp_path: Path) -> None:
    def run(place: int) -> subprocess.CompletedProcess[str]:
        OUT_OF_BOUNDS[place].plant(folder := tmp_path / str(place))
        return sanitized(tmp_path / "cache", "-m", "tests.cuda.sanitized", str(folder), str(place))

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, range(len(OUT_OF_BOUNDS))))
    for mutant, end in zip(OUT_OF_BOUNDS, runs, strict=True):
        assert "heap-buffer-overflow" in end.stderr, mutant.what
        assert "done" not in end.stdout, mutant.what


def test_without_a_mistake_nothing_is_stopped(tmp_path: Path) -> None:
    places = map(str, range(len(OUT_OF_BOUNDS)))
    run = sanitized(tmp_path, "-m", "tests.cuda.sanitized", str(compiler.FOLDER), *places)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr
