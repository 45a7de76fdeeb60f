"""What a run runs on: versions, BLAS, threads, devices; printed in every run's header. And what memory it took."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from . import __version__, memory
from .device import describe, gpu_missing, reserved_memory, resolve
from .threads import get_num_threads, numpy_blas


def _blas() -> dict[str, Any]:
    """What threadpoolctl tells of the BLAS that NumPy's matrix products run on; nothing if it knows none."""
    return next((library.info() for library in numpy_blas()), {})


def blas() -> str:
    """The BLAS that NumPy's matrix products run on: "OpenBLAS 0.3.30 SkylakeX"."""
    pool, names = _blas(), {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}
    if not pool:
        return "BLAS unknown"
    parts = [names.get(pool["internal_api"], pool["internal_api"]), pool.get("version"), pool.get("architecture")]
    return " ".join(part for part in parts if part)


def threads() -> str:
    """The threads of kernels, and BLAS's where they are others: "2 threads", or "2 threads (BLAS: 1)"."""
    kernels = get_num_threads()
    others = _blas().get("num_threads", kernels)
    return f"{kernels} threads" + (f" (BLAS: {others})" if others != kernels else "")


def peak_memory(device: str = "cpu") -> str:
    """The most memory that this process had so far: "peak memory 0.90 GB"; with a GPU's, "..., 2.31 GB on cuda:0"."""
    peak = memory.peak_rss()
    known = "peak memory unknown" if peak is None else f"peak memory {peak / 1e9:.2f} GB"
    return known if device == "cpu" else f"{known}, {reserved_memory() / 1e9:.2f} GB on {device}"


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
    return f"cpu only: {reason}" if reason else f"cpu, {describe(resolve('cuda'))}"


def header(*parts: str) -> str:
    """The first line of a run's log: versions, BLAS and threads, then `parts`."""
    versions = f"minires {__version__} | Python {platform.python_version()}, NumPy {np.__version__}"
    return " | ".join((f"{versions}, {blas()}, {threads()}", *parts))
