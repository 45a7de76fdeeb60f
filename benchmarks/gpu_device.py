"""The GPU itself: its name and libraries, and what it can do at most."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks import gpu_peers
from benchmarks.gpu_run import TF32, Run, product, to_gpu, to_host
from benchmarks.harness import Contender
from benchmarks.peaks import Peaks
from benchmarks.report import Work
from minires.kernels.cuda import blas, compiler


def describe() -> dict[str, Any]:
    """The device, its driver, and the libraries that use it."""
    import cupy
    from cupy.cuda import nvrtc

    runtime, (torch, reason) = cupy.cuda.runtime, gpu_peers.find()
    index = runtime.getDevice()
    properties = runtime.getDeviceProperties(index)
    return {
        "name": name if isinstance(name := properties["name"], str) else name.decode(),
        "memory": properties["totalGlobalMem"],
        "compute capability": cupy.cuda.Device(index).compute_capability,
        "driver": runtime.driverGetVersion(),
        "CUDA runtime": runtime.runtimeGetVersion(),
        "CuPy": cupy.__version__,
        "NVRTC": ".".join(map(str, nvrtc.getVersion())),
        "PyTorch": torch.__version__ if torch else reason,
        "PyTorch's CUDA": torch.version.cuda if torch else None,
        "cuDNN": torch.backends.cudnn.version() if torch else None,
    }


def rates(run: Run) -> None:
    """What the device can do at most: the rates of a copy and of products; and what a launch costs the CPU."""
    import cupy

    side, rng = run.sizes.gemm, np.random.default_rng(0)
    source = cupy.ones(run.sizes.copied // 4, np.float32)
    target = cupy.zeros_like(source)
    copy = Contender(lambda: cupy.copyto(target, source))
    run.measure("copy", f"{source.nbytes:,} bytes", {"CuPy": copy}, Work(bytes=2 * source.nbytes))
    a, b = (rng.standard_normal((side, side), np.float32) for _ in range(2))
    right, rows = [a[:8].astype(np.float64) @ b.astype(np.float64)], slice(8)
    a, b, out = to_gpu(a), to_gpu(b), cupy.empty((side, side), np.float32)
    products = {
        name: Contender(functools.partial(blas.gemm, a, b, out, tf32=tf32), lambda _: to_host(out[rows]), bound=bound)
        for name, tf32, bound in (("cuBLAS strict", False, product(side)), ("cuBLAS TF32", True, TF32))
    }
    run.measure("matrix product", f"{side} x {side}", products, Work(2 * side**3), right)
    medians = {row.contender: row for row in run.report.rows}
    if set(medians) == {"CuPy", *products}:
        run.report.peaks = Peaks(1e9 * medians["cuBLAS strict"].gflops, 1e9 * medians["CuPy"].gbytes)
        run.report.tf32 = 1e9 * medians["cuBLAS TF32"].gflops
    mask, small = cupy.empty(32, bool), cupy.ones((32, 32), np.float32)
    launches = {
        "minires": lambda: compiler.launch("random", "dropout_mask", (1,), compiler.THREADS, mask, 32, 1, 2, 5),
        "CuPy's add": lambda: cupy.add(small, small, out=small),
        "cuBLAS": functools.partial(
            blas.gemm, small, cupy.ones((32, 32), np.float32), cupy.empty((32, 32), np.float32)
        ),
    }
    run.measure("launch", "next to no work", {name: Contender(call) for name, call in launches.items()})


def part(run: Run) -> None:
    """Versions and rates."""
    run.report.device = describe()
    for name, value in run.report.device.items():
        print(f"  {name}: {value}", flush=True)
    rates(run)
