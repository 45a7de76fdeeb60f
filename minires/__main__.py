"""What there is to work with here, line by line; which kernels a model would run on; and the commands below.

minires
minires --choices resnet18 --batch 32 --tune times.json
minires summary resnet50 --input 224x224x3
minires convert resnet50.pth resnet50.safetensors

`python -m minires` is the same.
"""

from __future__ import annotations

import argparse
import collections
import os
import platform
import sys

import numpy as np

from . import Tensor, __version__, device, environment, models, summary, training, weights
from .data import CIFAR10, cifar
from .errors import DataError
from .kernels import choices, registry, setting
from .kernels.cuda import verified

COMMANDS = {
    "summary": (summary, "show what each layer of a model makes and costs: shapes, parameters, MACs, bytes"),
    "convert": (
        weights,
        "write the weights of one file into another: PyTorch's formats, safetensors, npz",
    ),
}


def data_found() -> str:
    """Where CIFAR-10 was found, or what was missing."""
    root = os.environ.get("MINIRES_DATA", "data")
    try:
        return f"{CIFAR10(root, train=False).name} in {cifar.find(root)[1]}"
    except (DataError, OSError) as error:
        return f"{error} (searched in MINIRES_DATA, else ./data)"


def show_machine() -> None:
    """Print versions, BLAS, devices, data and kernels."""
    devices = collections.Counter(v.accepts.device for k in registry.values() for v in k.variants if v.accepts)
    lines = {
        "minires": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "NumPy": np.__version__,
        "BLAS": environment.blas(),
        "threads": environment.threads(),
        "processor": environment.processor(),
        "devices": environment.devices(),
        "data": f"Digits (comes with minires); {data_found()}",
        "kernels": f"{len(registry)} portable; {devices['cpu']} variants for a CPU, {devices['cuda']} for a GPU",
        "CUDA": verified.status(),
        "choice": f"{setting()}; `--choices resnet18` shows which variants run",
    }
    for name, value in lines.items():
        print(f"{name:<10} {value}")


def show_choices(args: argparse.Namespace, place: str) -> None:
    """Run a model forward and backward, and print which variant each kind of call took, and why."""
    rng = np.random.default_rng(0)
    model = models.build(args.choices, num_classes=10, stem="cifar", generator=rng).to(place)
    model(Tensor(rng.standard_normal((args.batch, 32, 32, 3), np.float32)).to(place)).sum().backward()
    what = f"{args.choices}, 32x32 images, batch {args.batch}"
    print(environment.header(f"device {device.describe(place)}", setting(place), what))
    for row in choices():
        if registry[row.kernel].variants:
            known = [f"{name} {1e3 * seconds:.3g} ms" for name, seconds in row.seconds.items()]
            why = ", ".join([row.how, *known])
            print(f"{row.kernel:<21} {row.variant:<10} {why:<9} {row.arguments.replace(f' on {place}', '')}")


def main() -> None:
    parser = training.ArgumentParser(__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (module, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    parser.add_argument("--choices", choices=models.BUILDERS, metavar="MODEL", help="show which kernels it runs on")
    parser.add_argument(
        "--batch", type=training.positive, default=32, help="images for --choices (default %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="for --choices: cpu, cuda, cuda:1 or auto (default %(default)s)"
    )
    training.add_kernel_options(parser)
    args = parser.parse_args()
    if args.command and args.choices:
        parser.error(f"--choices and {args.command} are two commands")
    if args.command:
        args.run(args)
        return
    training.set_kernel_options(args)
    if args.choices:
        show_choices(args, device.use(args.device))
    else:
        show_machine()


def run() -> None:
    """The console command."""
    sys.exit(training.exit_code(main))


if __name__ == "__main__":
    run()
