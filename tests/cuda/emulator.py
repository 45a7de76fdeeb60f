"""Builds `.cu` sources for the CPU, with emulator.h in the place of a GPU, and runs their kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SCHEDULES = ("forward", "backward", "random", "greedy", "greedy backward")  # as emulator.h numbers them
COMPILER = shutil.which("g++")
# no unique symbols: libraries would share what is inline, the fibers and the shared memory of another V
FLAGS = (
    "-std=c++17", "-O1", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w", "-fPIC", "-fno-gnu-unique",
    "-fsanitize=alignment",
)  # fmt: skip
SANITIZER = ("-fsanitize=address", "-g")

schedule, seed = "forward", 0  # of the launches to come


class BuildError(Exception):
    """What g++ said."""


@contextmanager
def scheduled(name: str, number: int = 0) -> Iterator[None]:
    """Run threads in another order."""
    global schedule, seed
    before = schedule, seed
    schedule, seed = name, number
    try:
        yield
    finally:
        schedule, seed = before


def build(text: str, headers: Mapping[str, str], defines: tuple[str, ...] = (), name: str = "kernels.cu") -> bytes:
    """A shared library of a source's kernels, `<kernel>__emulated`. Raises BuildError."""
    if reason := missing():
        raise BuildError(reason)
    text = _merged(name, text, dict(headers))
    text = re.sub(
        r"__shared__ ([\w ]+?) (\w+)((?:\[[^\]]*\])*);",
        r"static \1 \2\3; emulator::declare_shared((void*)&\2, sizeof \2);",
        text,
    )
    sources = [(HERE / "emulator.h").read_text(), text.replace("#pragma once", ""), *map(_entry, *_kernels(text))]
    sources.append('extern "C" const char* emulator_error() { return emulator::error; }')
    sanitizer = SANITIZER if "MINIRES_SANITIZE" in os.environ else ()
    flags = [*FLAGS, *sanitizer, *defines]
    code = "\n".join(sources)
    key = hashlib.sha256("\0".join([code, *flags]).encode()).hexdigest()[:24]
    library = builds() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            source, made, linked = (str(Path(folder) / f"kernels.{end}") for end in ("cpp", "o", "so"))
            Path(source).write_text(code)
            _run(COMPILER, *flags, "-c", source, "-o", made)
            _run(COMPILER, *sanitizer, "-shared", made, "-o", linked)
            os.replace(linked, library)
    return library.read_bytes()


@functools.cache
def missing() -> str | None:
    """Why nothing can be built here, or None."""
    if COMPILER is None:
        return "the emulator needs g++ (apt install g++)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cpp"
        source.touch()
        try:
            _run(COMPILER, *FLAGS, "-c", str(source), "-o", str(source.with_suffix(".o")))
        except BuildError as error:
            return f"the emulator needs GNU's g++: {COMPILER} says {str(error).strip().splitlines()[0]}"
    return None


@functools.cache
def builds() -> Path:
    """Where libraries are kept for the next run: a folder that nobody else can write to."""
    folder = Path(tempfile.gettempdir()) / f"minires-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    mine = folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if mine else Path(tempfile.mkdtemp())


def _run(*command: str) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise BuildError(run.stderr)


def _merged(name: str, text: str, headers: dict[str, str]) -> str:
    """A source with each header in the place of its first #include; errors name the files' own lines."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(text.splitlines(), 1):
        included = re.match(r'#include "([\w.]+)"', line)
        if included:
            header = headers.pop(included[1], "")
            lines += [_merged(included[1], header, headers), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _kernels(text: str) -> tuple[list[str], list[list[str]]]:
    found = re.findall(r'extern "C" __global__ void(?: __launch_bounds__\([\w, ]+\))? (\w+)\(([^)]*)\)', text)
    return [name for name, _ in found], [[part.strip() for part in arguments.split(",")] for _, arguments in found]


def _entry(name: str, parameters: list[str]) -> str:
    names = ", ".join(re.split(r"[\s*]+", parameter)[-1] for parameter in parameters)
    return (
        f'extern "C" int {name}__emulated(dim3 grid_, dim3 block_, int schedule_, unsigned seed_, '
        f"{', '.join(parameters)}) "
        f"{{ auto call = [=] {{ {name}({names}); }}; "
        "return emulator::run(grid_, block_, [](const void* f) { (*(decltype(call)*)f)(); }, "
        "&call, schedule_, seed_); }"
    )


class Dim3(ctypes.Structure):
    """CUDA's dim3."""

    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class Module:
    """The kernels of a library that `build` made."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.emulator_error.restype = ctypes.c_char_p

    def get_function(self, name: str) -> Any:
        """A kernel that is called as CuPy's are: grid, block, arguments."""
        entry = getattr(self.library, f"{name}__emulated")

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
            assert block[1:] in ((), (1,), (1, 1)), "the emulator's blocks are rows of threads"
            assert block[0] % 32 == 0, "and whole warps"
            assert block[0] <= 1024
            assert len(grid) == 1 or (grid[1] < 65536 and all(size < 65536 for size in grid[2:]))
            assert min(grid) > 0
            sizes = Dim3(*grid, *(1, 1)[: 3 - len(grid)]), Dim3(*block, 1, 1)
            values = [_value(argument) for argument in arguments]
            if entry(*sizes, SCHEDULES.index(schedule), ctypes.c_uint(seed), *values):
                raise RuntimeError(f"{name}: {self.library.emulator_error().decode()}")

        return launch


def _value(argument: Any) -> Any:
    """An argument as C takes it; of an array its address, of a struct its bytes."""
    if isinstance(argument, np.ndarray) and argument.dtype.kind == "V":  # a struct goes by value

        class Struct(ctypes.Structure):
            _fields_ = [("words", ctypes.c_uint64 * (argument.nbytes // 8))]

        assert argument.nbytes % 8 == 0
        return Struct.from_buffer_copy(argument.tobytes())
    if hasattr(argument, "data") and hasattr(argument.data, "ptr"):
        return ctypes.c_void_p(argument.data.ptr)
    types = {
        "int32": ctypes.c_int32, "uint32": ctypes.c_uint32, "int64": ctypes.c_int64, "uint64": ctypes.c_uint64,
        "float32": ctypes.c_float, "float64": ctypes.c_double,
    }  # fmt: skip
    return types[argument.dtype.name](argument.item())
