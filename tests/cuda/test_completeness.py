"""What every CUDA source must have beside it. Each failure says what is missing, and where it goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_cases
from benchmarks.gpu_run import QUICK
from minires.kernels import cuda, registry
from minires.kernels.cuda import compiler
from tests.cuda.mutants import NORM
from tests.cuda.mutants_by_stem import BY_STEM

HERE = Path(__file__).parent


@pytest.mark.parametrize("stem", compiler.stems())
def test_a_source_has_all_that_belongs_to_it(stem: str) -> None:
    assert (compiler.FOLDER / f"{stem}.py").exists(), f"{stem}.cu needs its launchers in kernels/cuda/{stem}.py"
    assert hasattr(cuda, stem), f"import {stem} in kernels/cuda/__init__.py: else its variants are not registered"
    assert (HERE / f"test_{stem}.py").exists(), f"{stem}.cu needs tests in tests/cuda/test_{stem}.py"
    planted = sum(mutant.stem == stem for mutant in (*NORM, *BY_STEM))
    assert planted >= 3, f"plant three mistakes or more in {stem}.cu: tests/cuda/mutants_by_stem.py"


@pytest.mark.parametrize("stem", compiler.stems())
def test_every_kernel_is_launched_somewhere(stem: str) -> None:
    launcher = (compiler.FOLDER / f"{stem}.py").read_text(encoding="utf-8")
    for name in compiler.parameters(compiler.source(stem)):
        prefix = name.rpartition("_")[0]  # augment_uint8 is named by its type
        assert f'"{name}"' in launcher or f'"{prefix}_{{' in launcher, f"{stem}.cu: nobody launches {name}"


def test_every_variant_is_measured() -> None:
    convolutions = {"conv2d", "conv2d_grad_input", "conv2d_grad_weight"}  # benchmarks/gpu_convolutions.py has them
    variants = {k.name for k in registry.values() for v in k.variants if v.accepts and v.accepts.device == "cuda"}
    cases = {case.name for case in gpu_cases.build(QUICK, np.random.default_rng(0))}
    missing = variants - convolutions - cases
    assert not missing, f"benchmarks/gpu_cases.py needs a case of {', '.join(sorted(missing))}"
