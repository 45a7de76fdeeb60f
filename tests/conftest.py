"""What all tests share: fixed random draws, hypothesis' profile, and the folder of real data."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import minires

settings.register_profile("minires", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("minires")
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests may ignore Ctrl-C, as `nohup` does
minires.set_precision("exact")  # users begin with "fast"; what the tests compare with PyTorch is the exact engine


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts alike in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder that holds cifar-10-batches-py. The test is skipped where MINIRES_DATA does not name one."""
    root = os.environ.get("MINIRES_DATA")
    if not root or not (Path(root) / "cifar-10-batches-py").is_dir():
        pytest.skip("real CIFAR-10 needed: set MINIRES_DATA to the folder of cifar-10-batches-py")
    return Path(root)
