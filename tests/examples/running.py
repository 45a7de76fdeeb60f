"""The examples as a user runs them: in a process of their own, in an empty folder, on very few pictures."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import minires
from minires import checkpoint

ROOT = Path(minires.__file__).parent.parent
EXAMPLES = ROOT / "examples"
SETTINGS = ["-b", "5", "--print-freq", "1"]  # of every training run here


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), *map(str, arguments)]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "MINIRES_DATA"}
    return {**kept, "PYTHONPATH": str(ROOT)}


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )


def train(cwd: Path, *arguments: object) -> str:
    """A training run that must succeed: what it printed."""
    process = run("train_cifar10.py", *SETTINGS, *arguments, cwd=cwd)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def log(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for record in records for key, value in record.items() if key != "data")
    return records


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def trained_alike(one: Path, other: Path) -> bool:
    """Whether two runs have the same weights, momentum, rates and losses, bit for bit."""

    def state(folder: Path) -> tuple:
        tensors, values = checkpoint.load_tensors(folder / "last.safetensors")
        for record in values["info"]["history"]:
            record.pop("images_per_second")  # the one thing that may differ
        return {name: array.tobytes() for name, array in tensors.items()}, values

    return state(one) == state(other)


def only_run(cwd: Path) -> Path:
    (folder,) = (cwd / "runs").iterdir()
    return folder


def refused(script: str, *arguments: object, cwd: Path) -> str:
    """The one line with which an example refuses to run, having changed nothing."""
    before = contents(cwd)
    process = run(script, *arguments, cwd=cwd)
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith(f"{script}: error: ")
    assert process.stderr.count("\n") == 1
    assert contents(cwd) == before
    return process.stderr


def killed_in_epoch_2(cwd: Path, *arguments: object) -> None:
    """A training run that is killed amid its second epoch, as nothing can foresee."""
    process = subprocess.Popen(
        command("train_cifar10.py", *SETTINGS, *arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    reached = any(line.startswith("Epoch: [2][2/") for line in process.stdout)
    process.kill()
    process.communicate(timeout=30)
    assert reached
    assert process.returncode == -signal.SIGKILL
