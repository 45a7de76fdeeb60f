"""What a run runs on: versions, BLAS and its threads, devices. Printed in every run's header."""

from __future__ import annotations

import platform

import numpy as np

from . import __version__
from .device import gpu_missing


def blas() -> str:
    """The BLAS that NumPy's matrix products run on, and its threads: "OpenBLAS 0.3.30 SkylakeX, 2 threads"."""
    from threadpoolctl import threadpool_info

    _ = np.ones((2, 2)) @ np.ones((2, 2))  # the library is loaded now at the latest
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    if not pools:
        return "BLAS unknown"
    names = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}
    pool = pools[0]
    parts = [names.get(pool["internal_api"], pool["internal_api"]), pool.get("version"), pool.get("architecture")]
    return f"{' '.join(p for p in parts if p)}, {pool['num_threads']} threads"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return f"{len(names)} x {names[0]}"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def devices() -> str:
    """The devices that can be used, and why no GPU is among them."""
    reason = gpu_missing()
    return f"cpu only: {reason}" if reason else "cpu, cuda"


def header(*parts: str) -> str:
    """The first line of a run's log: versions and BLAS, then `parts`."""
    versions = f"minires {__version__} | Python {platform.python_version()}, NumPy {np.__version__}, {blas()}"
    return " | ".join((versions, *parts))
