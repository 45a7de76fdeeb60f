"""`python -m minires`: what there is to work with here, line by line."""

from __future__ import annotations

import os
import platform

import numpy as np

from . import __version__, environment
from .cli import ArgumentParser
from .data import CIFAR10, cifar
from .errors import DataError
from .kernels import registry


def data_found() -> str:
    """Where CIFAR-10 was found, or what was missing."""
    root = os.environ.get("MINIRES_DATA", "data")
    try:
        return f"{CIFAR10(root, train=False).name} in {cifar.find(root)[1]}"
    except (DataError, OSError) as error:
        return f"{error} (searched in MINIRES_DATA, else ./data)"


def main() -> None:
    """Print versions, BLAS, devices, data and kernels."""
    parser = ArgumentParser(__doc__)
    parser.prog = "python -m minires"
    parser.parse_args()  # --help; there is nothing else to say
    kernels = [f"{k.name} ({', '.join(v.name for v in k.variants)})" for k in registry.values() if k.variants]
    lines = {
        "minires": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "NumPy": np.__version__,
        "BLAS": environment.blas(),
        "processor": environment.processor(),
        "devices": environment.devices(),
        "data": f"Digits (comes with minires); {data_found()}",
        "kernels": f"{len(registry)} portable; faster variants of {', '.join(kernels)}",
    }
    for name, value in lines.items():
        print(f"{name:<10} {value}")


if __name__ == "__main__":
    main()
