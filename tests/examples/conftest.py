"""What the tests of the examples share: miniature pictures, and runs on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data import cifar_files
from tests.examples.running import log, train


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A miniature CIFAR-10: 20 training and 10 test images."""
    root = tmp_path_factory.mktemp("data")
    cifar_files.write(root, np.random.default_rng(0), train=20, test=10)
    return root


@pytest.fixture(scope="session")
def first_epoch(pictures, tmp_path_factory) -> Path:
    """A folder in which a run of one epoch was made, under runs/."""
    cwd = tmp_path_factory.mktemp("first")
    train(cwd, "--data-path", pictures, "--epochs", 1)
    return cwd


@pytest.fixture(scope="session")
def straight(pictures, tmp_path_factory) -> Path:
    """A run of two epochs without a stop."""
    cwd = tmp_path_factory.mktemp("straight")
    train(cwd, "--data-path", pictures, "--epochs", 2, "--output-dir", "run")
    assert len(log(cwd / "run")) == 2
    return cwd / "run"


@pytest.fixture
def begun(first_epoch, tmp_path) -> Path:
    """A copy of that folder to go on in."""
    return Path(shutil.copytree(first_epoch, tmp_path / "begun"))
