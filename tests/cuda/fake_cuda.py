"""The fake CuPy's device: its kernels from NVRTC and its cuBLAS, and the counts of what a program asked of it."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.machinery
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.cuda import emulator

counts: Counter[str] = Counter()  # "sync": the program waited; "upload": an array came from the host; "launch": of ours


def waits(why: str) -> None:
    """The host waits for the device, which nothing in a training step may do."""
    counts["sync"] += 1
    counts[f"sync by {why}"] += 1


class Device:
    """The one fake device, of compute capability 9.0."""

    compute_capability = "90"

    def __init__(self, device: int | None = None) -> None:
        self.id = device or 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def use(self) -> None:
        pass


class NVRTCError(RuntimeError):
    """A failed compilation."""


class _Program:
    def __init__(self, text: str, name: str, headers: tuple[bytes, ...], names: tuple[bytes, ...]) -> None:
        self.text, self.name = text, name
        self.headers = {name.decode(): header.decode() for name, header in zip(names, headers, strict=True)}
        self.log, self.library = "", b""


def _compile(program: _Program, options: tuple[str, ...]) -> None:
    try:
        defines = tuple(option for option in options if option.startswith("-D"))
        program.library = emulator.build(program.text, program.headers, defines, program.name)
    except emulator.BuildError as error:
        program.log = str(error)
        raise NVRTCError("NVRTC_ERROR_COMPILATION (6)") from None


class RawModule:
    """A module from a file that the fake NVRTC made."""

    def __init__(self, *, path: str) -> None:
        self.module = emulator.Module(path)

    def get_function(self, name: str) -> Any:
        kernel = self.module.get_function(name)

        def launch(*args: Any) -> None:
            counts["launch"] += 1
            counts[f"launch of {name}"] += 1
            kernel(*args)

        return launch


def _matrix(pointer: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """A view of column-major float32 memory."""
    size = leading * (columns - 1) + rows
    flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (size,))
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (4, 4 * leading))


def _truncated(matrix: np.ndarray) -> np.ndarray:
    """To TF32: 10 bits behind the point, the others cut off, as tensor cores may do."""
    return (np.ascontiguousarray(matrix).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def gemm_ex(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int, B: int,
    Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """cuBLAS's C = alpha * op(A) @ op(B) + beta * C of column-major matrices, from addresses."""
    assert Atype == Btype == Ctype == 0, "float32"
    counts["gemm"] += 1
    a = _matrix(A, *((k, m) if transa else (m, k)), lda)
    b = _matrix(B, *((n, k) if transb else (k, n)), ldb)
    c = _matrix(C, m, n, ldc)
    assert lda >= a.shape[0]
    assert ldb >= b.shape[0]
    assert ldc >= m
    a, b = (a.T if transa else a), (b.T if transb else b)
    if computeType == cublas.CUBLAS_COMPUTE_32F_FAST_TF32:
        a, b = _truncated(a), _truncated(b)
    one, old = (ctypes.cast(p, ctypes.POINTER(ctypes.c_float))[0] for p in (alpha, beta))
    product = np.float32(one) * (a @ b)
    c[...] = product if old == 0 else product + np.float32(old) * c


def module(name: str, **members: Any) -> ModuleType:
    """A module that is in no file."""
    made = ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(made).update(members)
    return made


nvrtc = module(
    "cupy.cuda.nvrtc",
    NVRTCError=NVRTCError,
    # as if a change of the emulator were another version of the compiler
    getVersion=lambda: (
        0,
        int(hashlib.sha256((Path(__file__).parent / "emulator.h").read_bytes()).hexdigest()[:6], 16),
    ),
    getSupportedArchs=lambda: [80, 90],
    createProgram=_Program,
    compileProgram=_compile,
    getProgramLog=lambda program: program.log,
    getCUBIN=lambda program: program.library,
    destroyProgram=lambda program: None,
)
runtime = SimpleNamespace(
    getDevice=lambda: 0, getDeviceCount=lambda: 1, memGetInfo=lambda: (1 << 30, 4 << 30),
    getDeviceProperties=lambda index: {"name": b"Fake GPU", "totalGlobalMem": 4 << 30},
)  # fmt: skip
stream = SimpleNamespace(synchronize=lambda: waits("synchronize()"))
cuda = module(
    "cupy.cuda", nvrtc=nvrtc, runtime=runtime, Device=Device, is_available=lambda: True,
    get_current_stream=lambda: stream, device=SimpleNamespace(get_cublas_handle=lambda: 1),
)  # fmt: skip
cublas = module(
    "cupy_backends.cuda.libs.cublas", gemmEx=gemm_ex, CUBLAS_OP_N=0, CUBLAS_OP_T=1, CUBLAS_GEMM_DEFAULT=-1,
    CUBLAS_COMPUTE_32F=68, CUBLAS_COMPUTE_32F_FAST_TF32=77,
)  # fmt: skip
