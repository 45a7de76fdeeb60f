"""The shape of the code, read with `ast`: who imports whom, how long files are, and what importing costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASES = {"cli", "errors", "files", "hooks", "modes", "pickles", "random"}  # import no layer, and may be imported by all
MAY_IMPORT = {
    "cli": set(),
    "errors": set(),
    "files": set(),
    "hooks": set(),
    "modes": set(),
    "pickles": set(),
    "random": set(),
    "device": set(),
    "memory": set(),
    "threads": set(),
    "anomaly": {"device"},
    "convert": {"device"},
    "kernels": {"memory", "threads", "device", "environment", "__version__"},  # the latter two name the machine
    "autograd": {"anomaly", "kernels", "memory", "device"},
    "ops": {"autograd", "kernels", "memory", "device"},
    "inplace": {"ops", "autograd", "kernels", "convert", "device"},
    "tensor": {"inplace", "ops", "autograd", "kernels", "convert", "device"},
    "nn": {"tensor", "ops", "autograd", "convert", "device"},
    "optim": {"kernels", "autograd", "convert", "device"},
    "data": {"kernels", "autograd", "threads", "device"},
    "models": {"nn", "ops", "tensor"},
}  # what is not named here (checkpoints, training, gradcheck) may import all
FOREIGN = {"torch", "torchvision", "tests", "examples", "benchmarks"}  # never imported
OPTIONAL = {"cupy", "matplotlib", "rich", "PIL"}  # imported where they are used, inside functions


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """The absolute dotted names that the source of `module` imports."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def bad_imports(tree: ast.AST, path: Path) -> list[str]:
    """The imports of a file of minires, given relative to the root, that its layer may not have."""
    is_package = path.name == "__init__.py"
    parts = path.parent.parts if is_package else path.with_suffix("").parts
    layer = parts[1] if len(parts) > 1 else ""
    allowed = MAY_IMPORT.get(layer)
    bad = []
    for name in imports(tree, ".".join(parts), is_package):
        first, *rest = name.split(".")
        ours = first == "minires" and rest and rest[0] not in {layer, *BASES}
        if first in FOREIGN or (ours and allowed is not None and rest[0] not in allowed):
            bad.append(f"{path}: {name}")
    return bad


def eager_imports(tree: ast.Module, path: Path) -> list[str]:
    """Imports of optional libraries at module level, and of CuPy anywhere but in device.py and kernels/cuda."""
    may_use_cupy = path == Path("minires/device.py") or path.parts[:3] == ("minires", "kernels", "cuda")
    lazy = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    return [
        f"{path}:{node.lineno}: {library}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for library in {name.split(".")[0] for name in imports(ast.Module([node], []), "minires.x", False)}
        if library in OPTIONAL and not (node in lazy and (library != "cupy" or may_use_cupy))
    ]


def test_layers() -> None:
    assert [bad for path in sources("minires") for bad in bad_imports(parse(path), path.relative_to(ROOT))] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("minires/kernels/portable/conv.py", "from ...autograd import Function"),
        ("minires/kernels/__init__.py", "from ..ops import conv"),
        ("minires/autograd.py", "from .tensor import Tensor"),
        ("minires/ops/conv.py", "from .. import tensor"),
        ("minires/ops/conv.py", "def late():\n    import minires.nn.layers"),
        ("minires/tensor.py", "from . import nn"),
        ("minires/optim/sgd.py", "from ..tensor import Tensor"),
        ("minires/data/__init__.py", "from ..nn import Module"),
        ("minires/models/resnet.py", "from ..optim import SGD"),
        ("minires/errors.py", "from .device import Array"),
        ("minires/checkpoint.py", "import torch"),
        ("minires/checkpoint.py", "def late():\n    from torchvision import models"),
        ("minires/training.py", "from tests.oracle import torch"),
        ("minires/__init__.py", "import examples.digits"),
    ],
)
def test_a_planted_import_is_caught(path: str, source: str) -> None:
    assert len(bad_imports(ast.parse(source), Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "minires/ops/conv.py",
            "from .checks import pair\nfrom ..kernels import conv2d\nfrom ..errors import ShapeError",
        ),
        ("minires/nn/__init__.py", "from . import functional\nfrom .layers import ReLU"),
        ("minires/checkpoint.py", "from .nn import Module\nfrom .optim import Optimizer"),
    ],
)
def test_a_fair_import_is_not(path: str, source: str) -> None:
    assert bad_imports(ast.parse(source), Path(path)) == []


def test_optional_libraries_are_imported_late() -> None:
    assert [bad for path in sources("minires") for bad in eager_imports(parse(path), path.relative_to(ROOT))] == []
    assert "import cupy" in (ROOT / "minires/device.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("minires/device.py", "import cupy"),
        ("minires/kernels/cuda/conv.py", "from cupy import RawKernel"),
        ("minires/tensor.py", "def late():\n    import cupy.cuda"),
        ("minires/plots.py", "from matplotlib import pyplot"),
        ("minires/training.py", "try:\n    import rich\nexcept ImportError:\n    rich = None"),
    ],
)
def test_a_planted_early_import_is_caught(path: str, source: str) -> None:
    assert len(eager_imports(ast.parse(source), Path(path))) == 1


def test_files_are_short() -> None:
    files = sources("minires", "tests", "benchmarks", "examples")
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert lengths["minires/autograd.py"] <= 300


def test_no_file_is_called_utils() -> None:
    assert [p for p in sources("minires", "tests", "benchmarks", "examples") if p.stem in ("util", "utils")] == []


def test_no_unbuffered_scatter_add() -> None:
    """`np.add.at` is slow, and CuPy's is not deterministic."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("minires")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute) and node.attr == "at" and ast.unparse(node).endswith("add.at")
    ]
    assert calls == []


def in_fresh_python(code: str) -> str:
    """What a script prints, with modules read from Python's cache of compiled ones, as users have them."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    return run.stdout.strip()


def test_importing_minires_imports_nothing_heavy() -> None:
    heavy = {"cupy", "torch", "torchvision", "matplotlib", "rich", "PIL", "sklearn", "scipy", "difflib"}
    loaded = in_fresh_python("import sys, minires; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "numpy" in loaded
    assert heavy & set(loaded) == set()


def test_importing_minires_is_quick() -> None:
    """At most 0.15 s after NumPy: the least of five tries, since other work on the machine only adds."""
    code = "import numpy, time; t = time.perf_counter(); import minires; print(time.perf_counter() - t)"
    assert min(float(in_fresh_python(code)) for _ in range(5)) <= 0.15
