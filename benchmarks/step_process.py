"""One contender alone in a process: it trains, then tells what that took, as JSON. `bench_step --memory` starts it.

python -m benchmarks.step_process "minires fast" resnet18 128 2
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.steps import LAYOUTS, Minires, PyTorch, random_batch, set_threads

FIRST, STEPS = 3, 8  # the steady state begins after the third step


def peak() -> int:
    """Bytes that this process had resident at most.

    Linux's own count of this program: getrusage's ru_maxrss starts at that of the process that started this one.
    """
    try:
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def faults() -> int:
    """Pages that were mapped without reading a disk, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def contend(name: str, model: str, batch: int) -> Any:
    """The contender of a name: "minires exact", or one of LAYOUTS."""
    images, labels = random_batch(batch)
    if name in LAYOUTS:
        return PyTorch(model, None, images, labels, LAYOUTS[name])
    from minires import models

    net = models.build(model, num_classes=10, stem="cifar", generator=np.random.default_rng(0))
    return Minires(net, images, labels, name.removeprefix("minires "))


def blocks() -> int:
    """How many blocks minires's pool of memory ever mapped; 0 without minires."""
    return sys.modules["minires.memory"].stats().mapped if "minires.memory" in sys.modules else 0


def main() -> None:
    name, model, batch, threads = sys.argv[1:]
    contender = contend(name, model, int(batch))
    set_threads(int(threads))
    before, seconds = peak(), []
    for step in range(STEPS):
        if step == FIRST:
            faulted, mapped = faults(), blocks()
        start = time.perf_counter()
        contender.train()
        seconds.append(time.perf_counter() - start)
    result = {"peak": peak(), "before": before, "faults": (faults() - faulted) / (STEPS - FIRST)}
    print(json.dumps(result | {"blocks": blocks() - mapped, "seconds": seconds[FIRST:]}))


if __name__ == "__main__":
    main()
