"""The cache of compiled kernels, and the check of what they are given."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.errors import DeviceError
from minires.kernels.cuda import compiler
from tests.cuda import fake_cuda

ROOT = Path(__file__).parents[2]
SOURCE = """#include "outer.cuh"
extern "C" __global__ void __launch_bounds__(THREADS) fill(
    float* y, const float* __restrict__ x, int size, double value, Pair pair
) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < size) y[i] = value + pair.one + (x ? x[i] : 0);
}
extern "C" __global__ void other(bool* mask, unsigned char* bytes, const long long *rows, unsigned n, long long m) {}
"""
HEADERS = {
    "outer.cuh": '#pragma once\n#include "inner.cuh"\nstruct Pair { long long one, two; };\n',
    "inner.cuh": "#define THREADS 32\n",
    "unused.cuh": "#error\n",
}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources of the tests' own."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in {"fill.cu": SOURCE, **HEADERS}.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(compiler, "FOLDER", folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("MINIRES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compiled: the arguments of each call."""
    calls, compile_cubin = [], compiler.compile_cubin

    def counting(*arguments: Any) -> Any:
        calls.append(arguments[1:])
        return compile_cubin(*arguments)

    monkeypatch.setattr(compiler, "compile_cubin", counting)
    return calls


def filled(size: int = 5, value: float = 2.0) -> list[float]:
    """What the kernel of SOURCE writes."""
    import cupy

    y = cupy.empty(size, np.float32)
    pair = np.array((1, 0), "i8,i8")
    compiler.launch("fill", "fill", (1,), 32, y, None, size, value, pair)
    return y.get().tolist()


@pytest.mark.parametrize("stem", compiler.stems())
def test_every_kernel_is_known(stem: str) -> None:
    """None is declared in a way that is not found, and each parameter is of a known type."""
    text = compiler.source(stem)
    kernels = compiler.parameters(text)
    whole = "\n".join([text, *compiler.headers(text).values()])
    assert len(kernels) == text.count("__global__") > 0
    assert whole.count("__global__") == text.count("__global__"), "a kernel in a header"
    for name, takes in kernels.items():
        assert len({p.name for p in takes}) == len(takes)
        declared = re.search(rf"\b{name}\(([^)]*)\)", text)[1].split(",")
        for p, declaration in zip(takes, declared, strict=True):
            if p.dtype is None:
                assert not p.is_pointer
                kind, _ = declaration.split()
                assert re.search(rf"\bstruct {kind}\b", whole), f"{name}: {declaration}"


def test_parameters() -> None:
    found = compiler.parameters(SOURCE)
    assert {name: [(p.name, p.dtype, p.is_pointer) for p in takes] for name, takes in found.items()} == {
        "fill": [
            ("y", np.float32, True), ("x", np.float32, True), ("size", np.int32, False), ("value", np.float64, False),
            ("pair", None, False),
        ],
        "other": [
            ("mask", np.bool_, True), ("bytes", np.uint8, True), ("rows", np.int64, True), ("n", np.uint32, False),
            ("m", np.int64, False),
        ],
    }  # fmt: skip


def test_headers_of_headers(sources: Path) -> None:
    """Each once, even those that include each other; what is not included is not among them."""
    (sources / "inner.cuh").write_text('#include "outer.cuh"\n' + HEADERS["inner.cuh"])
    found = compiler.headers(SOURCE)
    assert list(found) == ["inner.cuh", "outer.cuh"]
    assert found["outer.cuh"] == HEADERS["outer.cuh"]


def test_a_fingerprint_holds_source_and_headers(sources: Path) -> None:
    seen = {compiler.fingerprint("fill")}
    for name in ("fill.cu", "outer.cuh", "inner.cuh"):
        with (sources / name).open("a") as file:
            file.write("// changed\n")
        seen.add(compiler.fingerprint("fill"))
    assert len(seen) == 4
    (sources / "unused.cuh").write_text("// changed\n")
    assert compiler.fingerprint("fill") in seen


def test_architectures() -> None:
    assert [compiler.architecture(number) for number in ("80", "90", "120")] == ["sm_80", "sm_90a", "sm_120"]


def test_what_the_cache_depends_on(sources: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source, header, options, architecture, V and NVRTC's version: a change of one is another file."""
    monkeypatch.setattr(compiler, "compile_cubin", lambda *arguments: (b"code", ""))
    monkeypatch.setattr(compiler, "_version", lambda: "13.0")
    found = [compiler.cached_cubin("fill", "sm_80", 1)]
    assert found[0].read_bytes() == b"code"

    def look(arch: str = "sm_80", width: int = 1) -> None:
        found.append(compiler.cached_cubin("fill", arch, width))

    look("sm_86")
    look(width=4)
    (sources / "fill.cu").write_text(SOURCE + "// changed\n")
    look()
    (sources / "inner.cuh").write_text(HEADERS["inner.cuh"] + "// changed\n")
    look()
    monkeypatch.setattr(compiler, "OPTIONS", (*compiler.OPTIONS, "-lineinfo"))
    look()
    monkeypatch.setattr(compiler, "_version", lambda: "13.1")
    look()
    assert len(set(found)) == 7
    assert sorted(cache.iterdir()) == sorted(found)


def test_a_second_load_compiles_nothing(
    emulated: Counter[str], sources: Path, cache: Path, compiled: list[Any]
) -> None:
    for _ in range(2):
        assert filled() == filled() == [3.0] * 5
        compiler.clear()  # as in a new process
    assert compiled == [("fill.cu", "sm_90a", 1)]
    assert len(list(cache.iterdir())) == 1, "nothing is left beside it"
    (sources / "inner.cuh").write_text("#define THREADS 16\n")
    assert filled() == [3.0] * 5
    assert len(compiled) == 2


@pytest.mark.parametrize("damage", [b"", b"damaged", "cut"])
def test_a_damaged_file_is_made_anew(
    emulated: Counter[str], sources: Path, cache: Path, compiled: list[Any], damage: bytes | str
) -> None:
    path = compiler.cached_cubin("fill", "sm_90a", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] if damage == "cut" else damage)  # type: ignore[arg-type]
    assert filled() == [3.0] * 5
    assert len(compiled) == 2
    assert path.read_bytes() == whole


def test_what_never_loads_is_an_error(
    emulated: Counter[str], sources: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(compiler, "compile_cubin", lambda *arguments: (calls.append(0) or b"code", ""))
    with pytest.raises(DeviceError, match=r"fill\.cu was compiled into .*\.cubin, but cannot be loaded: "):
        filled()
    assert len(calls) == 2


@pytest.mark.parametrize("place", ["file", "below a file", "system"])
def test_a_cache_that_cannot_be_written_to(
    emulated: Counter[str],
    sources: Path,
    tmp_path: Path,
    compiled: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """The kernels are compiled and run all the same, once a process."""
    (tmp_path / "file").write_text("kept")
    folder = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "cache", "system": Path("/proc/cache")}[
        place
    ]
    monkeypatch.setenv("MINIRES_CACHE", str(folder))
    for _ in range(2):
        assert filled() == [3.0] * 5
    assert len(compiled) == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRES_CACHE", "here")
    assert compiler.cache_folder() == Path("here")
    monkeypatch.delenv("MINIRES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert compiler.cache_folder() == Path("/caches/minires")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/someone")
    assert compiler.cache_folder() == Path("/someone/.cache/minires")


def test_a_write_that_fails_leaves_no_part(
    sources: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full: the cache has the whole file or none, and the run goes on."""

    def full(file: Any, path: Path) -> None:
        if path.parent == cache:
            raise OSError(28, "No space left on device")
        os.replace(file.name, path)

    monkeypatch.setattr(compiler, "compile_cubin", lambda *arguments: (b"code", ""))
    monkeypatch.setattr(compiler, "_version", lambda: "13.0")
    monkeypatch.setattr(compiler, "publish", full)
    path = compiler.cached_cubin("fill", "sm_80", 1)
    assert list(cache.iterdir()) == []
    assert path.parent != cache
    path.unlink()


def test_two_processes_at_once(emulated: Counter[str], sources: Path, cache: Path) -> None:
    """Both compile into an empty cache, and both run what is in it."""
    script = f"""
import sys
from pathlib import Path
from tests.cuda import fake_cupy, test_compiler
from minires.kernels.cuda import compiler

compiler.FOLDER = Path({str(sources)!r})
with fake_cupy.installed():
    print("ready", flush=True)
    sys.stdin.readline()
    assert test_compiler.filled() == [3.0] * 5
"""
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
    assert [process.returncode for process in processes] == [0, 0]
    assert len(list(cache.iterdir())) == 1


def test_what_the_compiler_says(emulated: Counter[str], sources: Path, cache: Path) -> None:
    (sources / "fill.cu").write_text(SOURCE.replace("if (i <", "nonsense (i <"))
    with pytest.raises(DeviceError, match=r"(?s)fill\.cu does not .*\nfill\.cu:\d+:.*nonsense") as error:
        filled()
    assert "newer" not in str(error.value)
    assert not cache.exists()


def test_an_architecture_that_the_compiler_does_not_know(emulated: Counter[str]) -> None:
    with pytest.raises(DeviceError, match=r"for sm_130 .*; this GPU needs a newer CuPy and nvidia-cuda-nvrtc"):
        compiler.compile_cubin("nonsense", "new.cu", "sm_130", 1)


def test_arguments_are_checked(emulated: Counter[str], sources: Path, cache: Path) -> None:
    """Before anything is launched: their number, and the arrays' types and layouts."""
    import cupy

    y, pair = cupy.ones(6, np.float32), np.array((1, 0), "i8,i8")

    def launch(*arguments: Any) -> None:
        compiler.launch("fill", "fill", (1,), 32, *arguments)

    for wrong, message in (
        ((y,), r"fill takes y, x, size, value, pair, not 1 arguments"),
        ((y.astype(np.float64), None, 3, 1.0, pair), r"fill: y must be contiguous float32, not float64 \(6,\)$"),
        ((y, y.astype(np.int32), 3, 1.0, pair), r"fill: x must be contiguous float32, not int32 \(6,\)$"),
        ((y[::2], None, 3, 1.0, pair), r"fill: y must be contiguous float32, not float32 \(3,\), not contiguous$"),
        ((3, None, y, 1.0, pair), r"fill: y must be an array on a GPU, not int$"),
        ((np.ones(1, np.float32), None, 3, 1.0, pair), r"fill: y must be an array on a GPU, not ndarray$"),
    ):
        with pytest.raises(DeviceError, match=message):
            launch(*wrong)
    with pytest.MonkeyPatch.context() as patch:  # as in a thread that has not said which GPU it works with
        patch.setattr(fake_cuda.runtime, "getDevice", lambda: 1)
        compiler.clear()
        message = r"fill: y is on cuda:0, but cuda:1 is in use in this thread; .*use\('cuda:0'\) first"
        with pytest.raises(DeviceError, match=message):
            launch(y, y, 3, 1.0, pair)
    compiler.clear()
    assert emulated["launch"] == 0
    launch(y, y, 3, 1.0, pair)
    assert y.get().tolist() == [3, 3, 3, 1, 1, 1]


def test_numbers_reach_the_kernel_whole(emulated: Counter[str], sources: Path, cache: Path) -> None:
    """In their own types: a double is no float, and an address or a count is 64 bits wide."""
    (sources / "fill.cu").write_text("""
extern "C" __global__ void fill(double* y, int a, unsigned b, long long c, float d, double e) {
    y[0] = a; y[1] = b; y[2] = c; y[3] = d; y[4] = e;
}
""")
    import cupy

    y = cupy.empty(5, np.float64)
    numbers = (-(2**31), 2**32 - 1, 2**52 + 1, 0.1, 0.1)
    compiler.launch("fill", "fill", (1,), 32, y, *numbers)
    assert y.get().tolist() == [*numbers[:3], float(np.float32(0.1)), 0.1]
    with pytest.raises(OverflowError):
        compiler.launch("fill", "fill", (1,), 32, y, 2**31, *numbers[1:])


def test_vector(emulated: Counter[str]) -> None:
    """Four floats at once where the rows and all addresses allow it."""
    import cupy

    aligned = cupy.empty(16, np.float32)
    assert compiler.vector(8, aligned, None, aligned) == 4
    assert compiler.vector(6, aligned) == 1
    assert compiler.vector(8, aligned, aligned[1:]) == 1
    assert compiler.vector(8, aligned, aligned[4:]) == 4


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("channels", [4, 12, 64, 260, 4096])
@pytest.mark.parametrize("rows", [1, 2, 63, 1000, 131_072])
def test_tiles_cover_all(rows: int, channels: int, width: int) -> None:
    """Each row of each channel is in one tile; the parts are no more than one block can add up."""
    groups, each, (parts, columns) = compiler.tiles(rows, channels, width)
    assert groups & (groups - 1) == 0
    assert 1 <= groups <= 32
    assert (columns - 1) * groups * width < channels <= columns * groups * width
    assert (parts - 1) * each < rows <= parts * each
    assert parts * columns <= max(compiler.PARTS, columns)


def test_a_cache_can_be_shared(emulated: Counter[str], sources: Path, cache: Path) -> None:
    filled()
    assert [path.stat().st_mode & 0o777 for path in cache.iterdir()] == [0o644]


def test_a_user_without_a_home(emulated: Counter[str], sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers that run under a number."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MINIRES_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert compiler.cache_folder() == compiler._own_folder()
    filled()


def test_a_damaged_file_of_another_users(
    emulated: Counter[str], sources: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays where it is; the process makes its own."""
    filled()
    (path,) = cache.iterdir()
    path.unlink()  # the fake has what it loaded in memory
    path.write_bytes(b"damaged")
    compiler.clear()

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "unlink", refused)
    filled()
    assert path.read_bytes() == b"damaged"
