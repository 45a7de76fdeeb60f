"""From a `.cu` file to a kernel that can be launched: NVRTC, a cache of what it made, and a check of the arguments.

NVRTC compiles for an architecture without asking for a device, so that tests compile every file for all of them. What
it made is kept on disk under a name that holds everything it depends on: sources, options, architecture, NVRTC's
version.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DeviceError
from ...files import publish

FOLDER = Path(__file__).parent
OPTIONS = ("-std=c++17", "--restrict", "--ptxas-options=-v")
THREADS = 256  # of a block, where a source says THREADS
COLUMNS = 65535 * 32  # that tiles cover at most: a grid has no more than 65535 of them side by side
PARTS = 512  # of the rows, at most: enough blocks to fill a GPU, and few enough sums for one block to add up
SCALARS = {
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
}
ELEMENTS = {**SCALARS, "unsigned char": np.uint8, "bool": np.bool_}

_KERNEL = re.compile(r'extern "C" __global__ void(?: __launch_bounds__\([\w, ]+\))? (\w+)\(([^)]*)\)')
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter: a pointer to elements of a type, a number of a type, or a struct (dtype None)."""

    name: str
    dtype: Any
    is_pointer: bool

    def argument(self, kernel: str, value: Any, device: int) -> Any:
        """A value as the launch takes it. Raises DeviceError for no array, or one of another type, layout or GPU."""
        if not self.is_pointer:
            return value if self.dtype is None else self.dtype(value)
        if value is None:
            return np.uint64(0)  # a null pointer
        place = getattr(getattr(value, "data", None), "device_id", None)  # CuPy does not look where arrays are
        if place is None:
            raise DeviceError(f"{kernel}: {self.name} must be an array on a GPU, not {type(value).__name__}")
        if place != device:
            raise DeviceError(
                f"{kernel}: {self.name} is on cuda:{place}, but cuda:{device} is in use in this thread; "
                f"call minires.device.use('cuda:{place}') first"
            )
        if value.dtype != self.dtype or not value.flags.c_contiguous:
            contiguous = "" if value.flags.c_contiguous else ", not contiguous"
            raise DeviceError(
                f"{kernel}: {self.name} must be contiguous {np.dtype(self.dtype)}, "
                f"not {value.dtype} {value.shape}{contiguous}"
            )
        return value


def stems() -> list[str]:
    """The names of all `.cu` files."""
    return sorted(path.stem for path in FOLDER.glob("*.cu"))


def source(stem: str) -> str:
    """The text of a `.cu` file."""
    return (FOLDER / f"{stem}.cu").read_text(encoding="utf-8")


def headers(text: str) -> dict[str, str]:
    """The headers that a source includes, and those that these include: name -> text."""
    found: dict[str, str] = {}
    waiting = _INCLUDE.findall(text)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = (FOLDER / name).read_text(encoding="utf-8")
            waiting += _INCLUDE.findall(found[name])
    return dict(sorted(found.items()))


def fingerprint(stem: str) -> str:
    """SHA-256 of a `.cu` file and its headers."""
    text = source(stem)
    return hashlib.sha256("\0".join([text, *headers(text).values()]).encode()).hexdigest()


def parameters(text: str) -> dict[str, list[Parameter]]:
    """The kernels of a source, and what each takes."""
    return {name: [_parameter(part) for part in arguments.split(",")] for name, arguments in _KERNEL.findall(text)}


def _parameter(declaration: str) -> Parameter:
    words = re.sub(r"\bconst\b|__restrict__", "", declaration).replace("*", " * ").split()
    is_pointer, name = "*" in words, words[-1]
    kind = " ".join(word for word in words[:-1] if word != "*")
    return Parameter(name, (ELEMENTS if is_pointer else SCALARS).get(kind), is_pointer)


def architecture(compute_capability: str) -> str:
    """The target for a device: "90" is compiled as sm_90a, for what only that generation has."""
    return f"sm_{compute_capability}{'a' if compute_capability == '90' else ''}"


def compile_cubin(text: str, name: str, arch: str, width: int) -> tuple[bytes, str]:
    """The machine code of a source for an architecture, and the compiler's log. `width` is the source's V.

    Raises DeviceError with the log.
    """
    from cupy.cuda import nvrtc

    included = {name.encode(): header.encode() for name, header in headers(text).items()}
    program = nvrtc.createProgram(text, name, tuple(included.values()), tuple(included))
    try:
        try:
            nvrtc.compileProgram(program, (*OPTIONS, f"-DV={width}", f"-arch={arch}"))
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            known = int("".join(filter(str.isdigit, arch))) in nvrtc.getSupportedArchs()
            remedy = "" if known else "; this GPU needs a newer CuPy and nvidia-cuda-nvrtc"
            raise DeviceError(
                f"{name} does not compile for {arch} with NVRTC {_version()} ({error}){remedy}\n{log}"
            ) from None
        # some versions of CuPy cut the last byte of what NVRTC made; one more does no harm
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)


def _version() -> str:
    from cupy.cuda import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def cache_folder() -> Path:
    """Where compiled kernels are kept: MINIRES_CACHE, or minires in the user's folder for caches."""
    given = os.environ.get("MINIRES_CACHE")
    try:
        return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minires"
    except RuntimeError:  # a user without a home, as in containers
        return _own_folder()


def cached_cubin(stem: str, arch: str, width: int, folder: Path | None = None) -> Path:
    """The file in the cache, or in `folder`, that holds a stem's machine code, compiled now if it is not there.

    Where that cannot be written to, it goes to a folder of this process.
    """
    key = "\0".join([fingerprint(stem), *OPTIONS, arch, str(width), _version()])
    path = (folder or cache_folder()) / f"{stem}-{width}-{arch}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.cubin"
    if not os.access(path, os.R_OK):
        code, _ = compile_cubin(source(stem), f"{stem}.cu", arch, width)
        try:
            _keep(code, path)
        except OSError:  # a home that cannot be written to must not stop a run
            path = _own_folder() / path.name
            _keep(code, path)
    return path


def _keep(code: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, delete=False) as file:
        try:
            file.write(code)
            os.chmod(file.name, 0o644)  # a cache may be shared; temporary files are their owner's alone
            publish(file, path)  # type: ignore[arg-type]
        except OSError:
            os.unlink(file.name)
            raise


@functools.cache
def _own_folder() -> Path:
    """A folder that ends with this process."""
    folder = tempfile.mkdtemp(prefix="minires-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def _functions(stem: str, device: int, width: int) -> dict[str, tuple[Any, list[Parameter]]]:
    """A stem's kernels on a device, and what each takes."""
    import cupy

    arch, folder = architecture(cupy.cuda.Device(device).compute_capability), None
    for attempt in range(2):
        path = cached_cubin(stem, arch, width, folder)
        try:
            module = cupy.RawModule(path=str(path))
            return {name: (module.get_function(name), takes) for name, takes in parameters(source(stem)).items()}
        except Exception as error:  # something has damaged the file: make it anew, once
            if attempt:
                raise DeviceError(f"{stem}.cu was compiled into {path}, but cannot be loaded: {error}") from error
            try:
                path.unlink()
            except OSError:  # another user's
                folder = _own_folder()
    raise AssertionError


@functools.cache
def _current_device() -> Callable[[], int]:
    import cupy

    return cupy.cuda.runtime.getDevice


def launch(stem: str, name: str, grid: Sequence[int], threads: int, *arguments: Any, width: int = 1) -> None:
    """Queue a kernel of a `.cu` file: `grid` blocks of `threads` threads. `width` is the source's V.

    Raises DeviceError for arguments that are not the kernel's.
    """
    device = _current_device()()
    function, takes = _functions(stem, device, width)[name]
    if len(takes) != len(arguments):
        raise DeviceError(f"{name} takes {', '.join(p.name for p in takes)}, not {len(arguments)} arguments")
    values = tuple(p.argument(name, value, device) for p, value in zip(takes, arguments, strict=True))
    function(tuple(grid), (threads,), values)


def clear() -> None:
    """Forget what was loaded: the next launch looks at the files again."""
    _functions.cache_clear()
    _current_device.cache_clear()


def vector(channels: int, *arrays: Any) -> int:
    """How many floats a thread loads at once, a source's V: 4 where rows and addresses allow it, else 1."""
    aligned = all(a is None or a.data.ptr % 16 == 0 for a in arrays)
    return 4 if channels % 4 == 0 and aligned else 1


def blocks(work: int, threads: int = THREADS) -> int:
    """Blocks of `threads` threads for `work` items, one each."""
    return -(-work // threads)


def tiles(rows: int, channels: int, width: int) -> tuple[int, int, tuple[int, int]]:
    """How common.cuh's tiles cover (rows, channels): groups of `width` channels, rows of a part, and the grid.

    It depends on the shape alone, not on the device: sums are the same to the bit on each.
    """
    across = -(-channels // width)
    groups = min(32, 1 << (across - 1).bit_length())
    columns = -(-across // groups)
    parts = max(1, min(blocks(rows, 4 * THREADS // groups), PARTS // columns))
    each = -(-rows // parts)
    return groups, each, (-(-rows // each), columns)
