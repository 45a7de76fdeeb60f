"""Threads in processes of their own: what the environment says, forks, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own: forks of this one would have pytest's threads."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", BEGIN + script],
        capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ, **variables},
    )  # fmt: skip


BEGIN = """
import os, sys, threading, time
import numpy as np
import minires
from minires import threads
from threadpoolctl import threadpool_info

def blas():
    return threadpool_info()[0]["num_threads"]

def work(blocks):
    for block in blocks:
        x = minires.memory.empty((300, 300), np.float32)
        x[...] = 1
        assert (x @ x)[0, 0] == 300
        time.sleep(0.001)
"""


@pytest.mark.parametrize("value", ["1", "3"])
def test_the_environment_sets_the_number(value: str) -> None:
    process = run("print(minires.get_num_threads(), blas())", MINIRES_NUM_THREADS=value)
    assert (process.stdout, process.stderr) == (f"{value} {value}\n", "")


def test_an_empty_variable_is_none() -> None:
    process = run("print(minires.get_num_threads() == threads.available())", MINIRES_NUM_THREADS="")
    assert (process.stdout, process.stderr) == ("True\n", "")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²"])
def test_a_wrong_variable_is_one_error(value: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "minires"], capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**os.environ, "MINIRES_NUM_THREADS": value},
    )  # fmt: skip
    told = f"MINIRES_NUM_THREADS must be a whole number of at least 1, not '{value}'"
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.splitlines() == [f"python -m minires: error: {told}"]
    assert run("minires.set_num_threads(1); print(blas())", MINIRES_NUM_THREADS=value).stdout == "1\n"


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

FORK = """
minires.set_num_threads(2)
threads.share(work, range(4))
stop = False

def busy():
    while not stop:
        threads.share(work, range(20))

other = threading.Thread(target=busy)
other.start()
for _ in range(20):
    time.sleep(0.003)
    child = os.fork()
    if child == 0:
        assert blas() == 2, blas()
        assert not threads.is_nested()
        ran = set()
        def note(blocks):
            for block in blocks:
                ran.add(threading.get_ident())
                time.sleep(0.02)
        threads.share(note, range(4))
        assert len(ran) == 2, ran
        assert blas() == 2, blas()
        work(range(3))
        EXIT
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop = True
other.join()
assert blas() == 2
print("done")
"""


@needs_fork
@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_forks_while_another_thread_shares(leave: str) -> None:
    process = run(FORK.replace("EXIT", leave))
    assert (process.stdout, process.stderr) == ("done\n", "")


@needs_fork
def test_multiprocessing_by_fork() -> None:
    script = """
import multiprocessing
minires.set_num_threads(2)

def task(n):
    threads.share(work, range(n))
    return minires.get_num_threads(), blas()

threads.share(work, range(4))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(set(pool.map(task, range(6))))
threads.share(work, range(4))
"""
    process = run(script)
    assert (process.stdout, process.stderr) == ("{(2, 2)}\n", "")


@pytest.mark.parametrize(
    "script",
    [
        "threads.share(work, range(9))",
        "import atexit; threads.share(work, range(9)); atexit.register(threads.share, work, range(9))",
        "import atexit; atexit.register(threads.share, work, range(9))",
        "class Late:\n    def __del__(self): self.share(self.work, self.items)\n"
        "late = Late(); Late.share, Late.work, Late.items = threads.share, work, range(9)\nimport sys; sys.late = late",
        "threading.Thread(target=threads.share, args=(work, range(200)), daemon=True).start()\ntime.sleep(0.05)",
        "x = minires.memory.empty((1000, 1000), 'float32')\nsys.x = [x, x[1:]]",
    ],
    ids=["plain", "atexit", "first at exit", "in a finaliser", "daemon", "memory"],
)
def test_a_process_ends_in_silence(script: str) -> None:
    start = time.monotonic()
    process = run(f"minires.set_num_threads(2)\n{script}\nprint('done')")
    assert (process.returncode, process.stdout, process.stderr) == (0, "done\n", "")
    assert time.monotonic() - start < 20
