"""What minires says of the machine, and of a GPU that is not there."""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minires
from minires import device, environment
from minires.errors import DataError, DeviceError
from minires.kernels.cuda import verified
from tests.data import cifar_files

PACKAGE_ROOT = Path(minires.__file__).parent.parent

FAKES = {
    "none": ("", "CuPy is not installed (pip install 'minires[cuda13]', or 'minires[cuda12]' for CUDA 12)"),
    "broken": (
        "raise OSError('libcuda.so: not found\\nmore')",
        "CuPy does not import (OSError: libcuda.so: not found); pip install --force-reinstall 'minires[cuda13]'",
    ),
    "half installed": (
        "raise ImportError('\\n===\\nOriginal error:\\n  ImportError: no libcudart\\n===')",
        "CuPy does not import (ImportError: no libcudart); pip install --force-reinstall 'minires[cuda13]'",
    ),
    "mute": (
        "raise ImportError",
        "CuPy does not import (ImportError); pip install --force-reinstall 'minires[cuda13]'",
    ),
    "warns, no device": (
        "import warnings\nwarnings.warn('CUDA path could not be detected')\n"
        "class runtime:\n    getDeviceCount = staticmethod(lambda: 0)\n"
        "class cuda:\n    runtime = runtime\n    is_available = staticmethod(lambda: False)",
        "CuPy is installed, but finds no GPU (there are 0); drivers before CUDA 13 need 'minires[cuda12]'",
    ),
    "old driver": (
        "def count(): raise RuntimeError('cudaErrorInsufficientDriver: too old')\n"
        "class runtime:\n    getDeviceCount = staticmethod(count)\n"
        "class cuda:\n    runtime = runtime\n    is_available = staticmethod(lambda: False)",
        "CuPy is installed, but finds no GPU (RuntimeError: cudaErrorInsufficientDriver: too old); "
        "drivers before CUDA 13 need 'minires[cuda12]'",
    ),
    "no compiler": (
        "class cuda:\n    is_available = staticmethod(lambda: True)\n"
        "def ones(*_, **__): raise RuntimeError('no NVRTC')",
        "a GPU is there, but unusable (RuntimeError: no NVRTC); pip install 'minires[cuda13]' brings CUDA's libraries",
    ),
}
DEVICE = """
import sys, time
import minires
from minires import device, environment
from minires.errors import DeviceError
assert "cupy" not in sys.modules, "import minires imported cupy"
start = time.perf_counter()
try:
    device.resolve("cuda")
except DeviceError as error:
    print(error)
assert time.perf_counter() - start < 1
print(device.resolve("auto"))
print(environment.devices())
"""
HIDE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "cupy" else find(name, *rest)
"""


def run(*command: str, path: Path | str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of Python's, with `path` before the package on the search path."""
    search = os.pathsep.join(str(p) for p in (path, PACKAGE_ROOT) if p)
    return subprocess.run(
        [sys.executable, "-W", "error", *command], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": search, **variables},
    )  # fmt: skip


@pytest.mark.parametrize("kind", FAKES)
def test_why_there_is_no_gpu(tmp_path, kind):
    source, reason = FAKES[kind]
    if kind != "none":
        (tmp_path / "cupy.py").write_text(source)
    process = run("-c", (HIDE if kind == "none" else "") + DEVICE, path=tmp_path)
    assert ("CUDA path could not be detected" in process.stderr) == (kind == "warns, no device")  # shown, not raised
    assert "Error" not in process.stderr
    assert process.stdout.splitlines() == [f"device 'cuda' cannot be used: {reason}", "cpu", f"cpu only: {reason}"]


def test_resolve(monkeypatch):
    monkeypatch.setattr(device, "gpu_missing", lambda: "a reason")
    assert device.resolve("cpu") == "cpu"
    assert device.resolve("auto") == "cpu"
    start = time.perf_counter()
    for name in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(DeviceError, match=f"device '{name}' cannot be used: a reason"):
            device.resolve(name)
    assert time.perf_counter() - start < 1
    for name in ("", "gpu", "CPU", "cuda:", "cuda:x", "cuda:²", "cuda:-1", "cuda 0", "cpu:0", "mps"):
        with pytest.raises(DeviceError, match=f"unknown device '{name}'"):
            device.resolve(name)


def described(process: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in process.stdout.splitlines())}


def test_python_m_minires(tmp_path, rng):
    cifar_files.write(tmp_path, rng, 5, 1)
    lines = described(run("-m", "minires", MINIRES_DATA=str(tmp_path)))
    assert list(lines) == [
        "minires", "Python", "NumPy", "BLAS", "threads", "processor", "devices", "data", "kernels", "CUDA",
        "choice",
    ]  # fmt: skip
    assert lines["minires"] == minires.__version__
    assert lines["Python"].startswith(platform.python_version())
    assert lines["NumPy"] == np.__version__
    assert lines["BLAS"] == environment.blas()
    assert lines["threads"] == f"{minires.get_num_threads()} threads"
    assert lines["devices"] == environment.devices()
    name = "unrecognised CIFAR-10 files (1 images)"
    assert lines["data"] == f"Digits (comes with minires); {name} in {tmp_path / cifar_files.FOLDER}"
    assert "portable" in lines["kernels"]
    assert lines["CUDA"] == verified.status()
    assert lines["choice"].startswith("precision ")


def test_python_m_minires_shows_what_a_model_runs_on():
    process = run("-m", "minires", "--choices", "resnet18", "--batch", "1", "--precision", "exact", "--threads", "1")
    assert (process.returncode, process.stderr) == (0, "")
    header, *rows = process.stdout.splitlines()
    assert header.endswith(", 1 threads | device cpu | precision exact | resnet18, 32x32 images, batch 1")
    kernels, whys = ([line.split()[column] for line in rows] for column in (0, 2))
    assert {"conv2d", "conv2d_grad_input", "conv2d_grad_weight"} <= set(kernels)
    assert {why.rstrip(",") for why in whys} <= {"only", "estimated"}
    assert any("x=float32 (1, 32, 32, 3), w=float32 (3, 3, 3, 64), geometry=ConvGeometry(" in row for row in rows)


def test_python_m_minires_without_data(tmp_path):
    lines = described(run("-m", "minires", MINIRES_DATA=str(tmp_path)))
    assert f"no CIFAR-10 in {tmp_path}" in lines["data"]
    assert "MINIRES_DATA" in lines["data"]


def test_python_m_minires_with_a_folder_that_cannot_be():
    assert "File name too long" in described(run("-m", "minires", MINIRES_DATA="a" * 300))["data"]


def test_python_m_minires_has_commands():
    shown = run("-m", "minires", "--help").stdout
    assert "What there is to work with here" in shown
    assert re.findall(r"^    (\w+) ", shown, re.MULTILINE) == ["summary", "convert"]
    refused = run("-m", "minires", "cifar10")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch(
        r"python -m minires: error: argument COMMAND: invalid choice: 'cifar10' \(choose from .*\) \(see --help\)\n",
        refused.stderr,
    )


def test_python_m_minires_with_a_file_missing(tmp_path, rng):
    cifar_files.write(tmp_path, rng, 5, 1)
    (tmp_path / cifar_files.FOLDER / "data_batch_4").unlink()
    assert "data_batch_4 missing" in described(run("-m", "minires", MINIRES_DATA=str(tmp_path)))["data"]


def test_python_m_minires_names_the_reason(tmp_path):
    source, reason = FAKES["old driver"]
    (tmp_path / "cupy.py").write_text(source)
    assert described(run("-m", "minires", path=tmp_path))["devices"] == f"cpu only: {reason}"


def test_header_is_one_line():
    line = environment.header("device cpu", "seed 3")
    assert line.startswith(f"minires {minires.__version__} | Python {platform.python_version()}, NumPy ")
    assert line.endswith(" threads | device cpu | seed 3")
    assert environment.blas() in line
    assert "\n" not in line


def test_processor(monkeypatch):
    lines = "processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nprocessor\t: 1\nmodel name\t: A Processor @ 2 GHz\n"
    monkeypatch.setattr(environment, "open", lambda path: io.StringIO(lines), raising=False)
    assert environment.processor() == "2 x A Processor @ 2 GHz"
    lines = "Hardware\t: another kind\n"
    assert environment.processor() == (platform.processor() or platform.machine())


def test_threads_of_kernels_and_of_blas():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = minires.get_num_threads()
    try:
        minires.set_num_threads(3)
        assert environment.threads() == "3 threads"
        assert environment.header().endswith(f", {environment.blas()}, 3 threads")
        with threadpoolctl.threadpool_limits(1, "blas"):
            assert environment.threads() == "3 threads (BLAS: 1)"
    finally:
        minires.set_num_threads(before)


def test_peak_memory(monkeypatch):
    monkeypatch.setattr(minires.memory, "peak_rss", lambda: 1_234_567_890)
    assert environment.peak_memory() == "peak memory 1.23 GB"
    monkeypatch.setattr(minires.memory, "peak_rss", lambda: None)
    assert environment.peak_memory() == "peak memory unknown"


def test_errors_share_a_base():
    assert issubclass(DeviceError, minires.MiniresError)
    assert issubclass(DataError, minires.MiniresError)
