"""Time the training step of ResNet-18 on 32x32 images beside Chainer's and DeZero's, each in an interpreter of its own.

    python -m benchmarks.bench_peers --peer chainer=old/bin/python --peer dezero=old/bin/python --batch 32

They need older versions of NumPy than minires: docs/benchmarks.md says how to install them. All start from the same
weights, and the losses of the first two steps must agree before anything is timed. Every step is forward, loss,
backward and SGD, in turns.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Contender
from benchmarks.steps import Minires, random_batch
from minires import models, threads, training
from minires.errors import ArgumentError

PEERS = ("chainer", "dezero")
BOUNDS = 1e-4, 2e-2  # relative, of the losses before the first step and after it: gradients in float32 move by 1e-2


def _peer(text: str) -> tuple[str, str]:
    """An argparse type: NAME=PYTHON."""
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PYTHON with a NAME of {', '.join(PEERS)}")
    return name, python


def arguments() -> argparse.Namespace:
    parser = harness.arguments(__doc__, batch=32, rounds=3)
    parser.add_argument(
        "--peer", type=_peer, action="append", required=True, metavar="NAME=PYTHON",
        help=f"{' or '.join(PEERS)}, and an interpreter that has it; may be repeated",
    )  # fmt: skip
    return parser.parse_args()


class Peer:
    """A process that trains in another library, a step for each line it gets."""

    def __init__(self, name: str, python: str, weights: Path) -> None:
        self.name = name
        count = str(threads.get_num_threads())
        environment = os.environ | {"OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OMP_NUM_THREADS": count}
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("peer_step.py")), name, str(weights)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def train(self) -> float:
        """One training step; the loss before it. Raises ArgumentError with the error of a process that failed."""
        to, answers = self.process.stdin, self.process.stdout
        assert to is not None
        assert answers is not None
        with contextlib.suppress(BrokenPipeError):  # it has failed: what it says of that follows
            to.write("\n")
            to.flush()
        answer = answers.readline()
        if not answer:
            said = self.process.communicate()[1]
            told = re.findall(r"^\w[\w.]*Error.*", said, re.MULTILINE)
            raise ArgumentError(f"{self.name} failed: {told[-1] if told else said.strip() or 'it said nothing'}")
        return float(answer)

    def close(self) -> None:
        self.process.kill()
        with contextlib.suppress(ValueError):  # a pipe that is closed already
            self.process.communicate()


def check(name: str, losses: Sequence[float], ours: Sequence[float]) -> None:
    """The losses of the first two steps are minires's. Raises ArgumentError."""
    for step, (theirs, mine, bound) in enumerate(zip(losses, ours, BOUNDS, strict=True), 1):
        if not abs(theirs - mine) <= bound * abs(mine):
            raise ArgumentError(f"the loss of {name} in step {step} is {theirs:.6g}, not {mine:.6g}: nothing was timed")
    print(f"checked: losses of {name} {losses[0]:.6f}, {losses[1]:.6f}; of minires {ours[0]:.6f}, {ours[1]:.6f}")


def main() -> None:
    args = arguments()
    images, labels = random_batch(args.batch)
    model = models.build("resnet18", num_classes=10, stem="cifar", generator=np.random.default_rng(0))
    arrays: dict[str, Any] = {key: value.numpy() for key, value in model.state_dict("OIHW").items()}
    arrays |= {"images": images.transpose(0, 3, 1, 2), "labels": labels.astype(np.int32)}
    peers: list[Peer] = []
    with tempfile.TemporaryDirectory() as folder, harness.Run("bench_peers", args, with_peaks=False) as run:
        weights = Path(folder, "weights.npz")
        np.savez(weights, **{key: np.ascontiguousarray(array) for key, array in arrays.items()})
        ours = Minires(model, images, labels, args.precision)
        try:
            first = ours.train(), ours.train()
            for name, python in args.peer:
                peers.append(Peer(name, python, weights))
                check(name, (peers[-1].train(), peers[-1].train()), first)
            contenders = {peer.name: Contender(peer.train) for peer in peers} | {"minires": Contender(ours.train)}
            run.measure("training step", f"resnet18, 32x32 images, batch {args.batch}", contenders, items=args.batch)
        finally:
            for peer in peers:
                peer.close()


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
