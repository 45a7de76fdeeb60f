"""The real NVRTC compiles every kernel for every architecture, without a GPU, and well."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minires.kernels.cuda import compiler

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120")
REGISTERS = 65_536  # of a multiprocessor, for all threads of a block at least

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NVRTC comes from the wheels for Linux")


def compile_all(folder: Path, archs: tuple[str, ...], *lots: list[str]) -> list[dict[str, Any]]:
    """What was made of the stems of a folder, each lot in a process. Skips the test where there is no NVRTC."""
    command = [sys.executable, "-m", "tests.cuda.nvrtc", str(folder), ",".join(archs)]
    processes = [subprocess.Popen([*command, *lot], cwd=ROOT, stdout=subprocess.PIPE, text=True) for lot in lots]
    made = [json.loads(line) for process in processes for line in process.communicate()[0].splitlines()]
    assert not any(process.returncode for process in processes)
    if missing := next((one["missing"] for one in made if "missing" in one), None):
        pytest.skip(f"NVRTC needed (pip install 'minires[dev]'): {missing}")
    return made


def faults(made: dict[str, Any], kernels: set[str]) -> list[str]:
    """What is wrong with a compilation: that there is none, what the compiler warns of, what does not fit."""
    log = made["log"]
    if not made["elf"]:
        return [f"no machine code: {log}"]
    found = [line for line in log.splitlines() if re.search(r"warning|performance loss", line, re.IGNORECASE)]
    found += [f"{number} bytes of spill" for number in re.findall(r"(\d+) bytes spill", log) if number != "0"]
    used = dict(re.findall(r"entry function '(\w+)'.*?Used (\d+) registers", log, re.DOTALL))
    found += [f"{name}: {n} registers" for name, n in used.items() if int(n) * compiler.THREADS > REGISTERS]
    return found + [f"no word of {name}" for name in kernels - used.keys()]


@pytest.fixture(scope="module")
def compilations() -> dict[tuple[str, str, int], dict[str, Any]]:
    stems = compiler.stems()
    made = compile_all(compiler.FOLDER, ARCHITECTURES, stems[::2], stems[1::2])
    return {(one["stem"], one["arch"], one["width"]): one for one in made}


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("stem", compiler.stems())
def test_compiles(compilations: dict[tuple[str, str, int], dict[str, Any]], stem: str, arch: str, width: int) -> None:
    """Without a warning, and with all variables in registers."""
    found = faults(compilations[stem, arch, width], set(compiler.parameters(compiler.source(stem))))
    assert not found


PLANTED = {
    "syntax": ("nonsense();", "nonsense"),
    "warning": ("int unused = 1 / 0; y[0] = 1;", "warning"),
    "spill": (  # 100 numbers at once, where a thread can have 64
        "float a[100];\n#pragma unroll\nfor (int k = 0; k < 100; k++) a[k] = y[k * 977];\n__syncthreads();\n"
        "#pragma unroll\nfor (int k = 0; k < 100; k++) y[k * 977] = a[99 - k] * a[(k * 7 + 3) % 100];",
        "bytes of spill",
    ),
}


def test_faults_are_found(tmp_path: Path) -> None:
    """In sources with one fault each, by the same check."""
    kernel = 'extern "C" __global__ void __launch_bounds__(1024) planted(float* y) {{\n{}\n}}\n'
    for name, (statement, _) in PLANTED.items():
        (tmp_path / f"{name}.cu").write_text(kernel.format(statement))
    (tmp_path / "good.cu").write_text(kernel.format("y[threadIdx.x] = V;"))
    made = compile_all(tmp_path, ("sm_80", "sm_90a"), ["good", "spill"], ["syntax", "warning"])
    assert len(made) == 4 * 2 * 2
    for one in made:
        found = faults(one, {"planted"})
        if one["stem"] == "good":
            assert not found
            assert faults(one, {"planted", "another"}) == ["no word of another"]
        else:
            assert PLANTED[one["stem"]][1] in "\n".join(found), one["stem"]
