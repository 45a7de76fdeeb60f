"""Measure minires on a GPU beside PyTorch, in one command; needs CuPy, and PyTorch for what stands beside it.

    python -m benchmarks.gpu_report
    python -m benchmarks.gpu_report --parts step --no-compile
    python -m benchmarks.gpu_report --epochs 20 --data-path DATA      and train on CIFAR-10

device: versions, the rates of a copy and of matrix products, what a launch costs. kernels: every CUDA kernel at the
shapes of ResNet-18 on CIFAR, beside CuPy's own functions. convolutions: each of its layers, beside cuDNN. step: the
whole training step. Every result is checked before it is timed; a wrong one is told, and makes the exit code 1. With
all parts, minires/kernels/cuda/verified.json notes which kernels gave right results: see `python -m minires`.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import gpu_cases, gpu_convolutions, gpu_device, gpu_peers, gpu_step, gpu_training
from benchmarks.gpu_run import QUICK, GpuReport, Run, Sizes, described
from benchmarks.report import fingerprint
from minires import device, environment, training
from minires.kernels.cuda import verified

RESULTS = Path(__file__).parent / "results" / "gpu_report.json"
PARTS = ("device", "kernels", "convolutions", "step")


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    add("--rounds", type=training.positive, default=7, help="turns of each contender (default %(default)s)")
    add("--quick", action="store_true", help="a small net on small images, once: shows that everything runs")
    add("--no-compile", action="store_true", help="without torch.compile")
    add("--epochs", type=training.natural, default=0, help="of training on CIFAR-10 (default: none)")
    add(
        "--data-path",
        default=os.environ.get("MINIRES_DATA", "data"),
        help="of CIFAR-10 (default: $MINIRES_DATA or data)",
    )
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="where all is written to (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    place = device.use("cuda")  # or the reason why not, and exit code 2
    gpu_peers.find()  # the fingerprint names what is loaded
    sizes = QUICK if args.quick else Sizes()
    report = GpuReport("gpu_report", fingerprint("exact and tf32"))
    run = Run(report, sizes, 1 if args.quick else args.rounds)
    print(environment.header(f"device {device.describe(place)}"), flush=True)
    parts: dict[str, Callable[[], None]] = {
        "device": functools.partial(gpu_device.part, run),
        "kernels": functools.partial(gpu_cases.part, run),
        "convolutions": functools.partial(gpu_convolutions.part, run),
        "step": functools.partial(gpu_step.part, run, not args.no_compile),
    }
    wanted = [name for name in PARTS if name in args.parts]
    parts = {name: parts[name] for name in wanted}
    if args.epochs:
        parts["training"] = functools.partial(gpu_training.part, run, args.epochs, args.data_path)
    for name, part in parts.items():
        first, began = len(report.rows), time.perf_counter()
        print(f"\n## {name}\n", flush=True)
        try:
            part()
            report.parts[name] = "done"
        except Exception as error:  # the others go on
            report.parts[name] = described(error)
            run.problem(f"part {name} failed: {described(error)}")
        print(f"\n{report.markdown(report.rows[first:])}\n\n{time.perf_counter() - began:.0f} s", flush=True)
        report.verified = run.verified()
        report.complete = name == list(parts)[-1]
        report.save(args.json)
    if wanted == list(PARTS) and report.device and not args.quick:
        verified.record(
            report.device["name"], report.fingerprint["date"][:10], report.fingerprint["commit"], run.verified()
        )
    print(f"\n{len(report.rows)} rows in {args.json}; CUDA {verified.status()}")
    if report.problems:
        print(f"{len(report.problems)} problems:", *report.problems, sep="\n  ")
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
