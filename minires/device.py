"""Devices: which array library holds an array, and how arrays move. The one place that may import CuPy for the rest."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
import warnings
from typing import Any

import numpy as np

from .errors import DeviceError, OutOfMemoryError

Array = Any  # numpy.ndarray or cupy.ndarray: code above the kernels treats them alike


def array_module(array: Array) -> Any:
    """The library of an array: `numpy`, or `cupy` for an array on a GPU (and NumPy for Python numbers).

    CuPy is never imported here: an array of its own can only exist where it already is.
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    return sys.modules["cupy"] if type(array).__module__.partition(".")[0] == "cupy" else np


def device_of(array: Array) -> str:
    """The device that holds an array, as PyTorch writes it: "cpu" or "cuda:0"."""
    if type(array) is np.ndarray or array_module(array) is np:
        return "cpu"
    return f"cuda:{array.device.id}"


def check_one_device(op: str, arrays: list[Array]) -> None:
    """Raises DeviceError where arrays are on several devices."""
    devices = set(map(device_of, arrays))
    if len(devices) > 1:
        raise DeviceError(f"{op}: arrays on {' and '.join(sorted(devices))}; move them to one with .to(device)")


@functools.cache
def gpu_missing() -> str | None:
    """Why no GPU can be used, in one line, or None where one can be."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'minires[cuda13]', or 'minires[cuda12]' for CUDA 12)"
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # CuPy warns of what it can do without: no reason to go without CuPy
        try:
            import cupy
        except Exception as error:  # a broken CUDA installation raises whatever its loader does
            return f"CuPy does not import ({_told(error)}); pip install --force-reinstall 'minires[cuda13]'"
        if not cupy.cuda.is_available():
            try:
                cupy.cuda.runtime.getDeviceCount()
                reason = "there are 0"
            except Exception as error:
                reason = _told(error)
            return f"CuPy is installed, but finds no GPU ({reason}); drivers before CUDA 13 need 'minires[cuda12]'"
        try:  # one kernel and one product prove the compiler and cuBLAS
            ones = cupy.ones((2, 2), dtype=np.float32)
            float((ones @ (ones + 1)).sum())
        except Exception as error:
            return (
                f"a GPU is there, but unusable ({_told(error)}); pip install 'minires[cuda13]' brings CUDA's libraries"
            )
    return None


def _told(error: Exception) -> str:
    """An error in one line: the one that it was made of, where it quotes that, as CuPy's do."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    quoted = lines[lines.index("Original error:") + 1 :] if "Original error:" in lines else []
    return quoted[0] if quoted else ": ".join([type(error).__name__, *lines[:1]])


def resolve(device: str) -> str:
    """Turn "cpu", "cuda", "cuda:1" or "auto" into a device name that exists.

    Raises DeviceError for a name that is none of these, or a GPU that cannot be used, with the reason.
    """
    if device == "cpu":
        return device
    if device == "auto":
        return "cpu" if gpu_missing() else f"cuda:{_current_gpu()}"
    name = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if name is None:
        raise DeviceError(f"unknown device {device!r}: use 'cpu', 'cuda', 'cuda:1', ... or 'auto'")
    reason = gpu_missing()
    if reason:
        raise DeviceError(f"device {device!r} cannot be used: {reason}")
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    index = _current_gpu() if name[1] is None else int(name[1])
    if index >= count:
        raise DeviceError(f"device {device!r} cannot be used: this machine has {count} GPU(s), counted from cuda:0")
    return f"cuda:{index}"


def _current_gpu() -> int:
    import cupy

    return cupy.cuda.runtime.getDevice()


def use(device: str) -> str:
    """Make a GPU the current one, on which this thread's ops run from now on; returns the device's name.

    A thread works with one GPU at a time: moving arrays to another raises. For "cpu" nothing changes.
    """
    device = resolve(device)
    if device != "cpu":
        import cupy

        cupy.cuda.Device(int(device.partition(":")[2])).use()
    return device


def describe(device: str) -> str:
    """A device's name, and of a GPU also its maker's: "cuda:0 (NVIDIA H200)"."""
    if device == "cpu":
        return device
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(int(device.partition(":")[2]))["name"]
    return f"{device} ({name.decode() if isinstance(name, bytes) else name})"


def to_device(array: Array, device: str) -> Array:
    """The array on `device`: itself if it is there already, else a copy. Raises DeviceError for a GPU not in use."""
    if device_of(array) == device or device_of(array) == (device := resolve(device)):
        return array
    if device == "cpu":
        return array.get()
    import cupy

    if device != f"cuda:{_current_gpu()}":
        raise DeviceError(f"{device} is not the current GPU: call minires.device.use({device!r}) first")
    return cupy.asarray(array)


def reserved_memory() -> int:
    """Bytes that CuPy's pool took from the current GPU; it keeps them, so that it is the most that was ever in use."""
    import cupy

    return cupy.get_default_memory_pool().total_bytes()


def out_of_memory(op: str, device: str, error: MemoryError) -> OutOfMemoryError:
    """The error for an op that a device has no memory for, with what it has. What no array uses goes back to it."""
    left = ""
    if device != "cpu":
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
        free, total = cupy.cuda.runtime.memGetInfo()
        left = f", which has {free / 1e9:.2f} of {total / 1e9:.2f} GB free"
    reason = str(error).rstrip(".") or "no reason given"
    return OutOfMemoryError(
        f"{op}: out of memory on {device}{left} ({reason}); use a smaller batch, and no_grad() where nothing is trained"
    )


def synchronize(device: str) -> None:
    """Wait until all work queued on a device is done. A CPU has no queue."""
    if resolve(device) != "cpu":
        import cupy

        with cupy.cuda.Device(int(resolve(device).partition(":")[2])):
            cupy.cuda.get_current_stream().synchronize()
