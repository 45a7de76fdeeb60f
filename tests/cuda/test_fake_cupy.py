"""The fake CuPy is as strict as CuPy: its names and keywords are CuPy's, and what CuPy refuses it refuses."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cuda import fake_cupy
from tests.cuda.fake_cupy import FUNCTIONS, METHODS, NUMBERS, UFUNC_KEYWORDS, UFUNCS

# Prints the parameters of each name in CuPy itself; null where there is no such name. Those of Cython's functions stand
# in the first line of their docstrings alone; for what has neither, none.
ASK = """
import importlib, inspect, json, re, sys

def parameters(path):
    module, *names = path.split("/")
    try:
        value = importlib.import_module(module)
        for name in names:
            value = getattr(value, name)
    except (ImportError, AttributeError):
        return None
    try:
        words = [str(p).partition(":")[0] for p in inspect.signature(value).parameters.values()]
    except (TypeError, ValueError):
        found = re.search(r"\\((.*)\\)", (value.__doc__ or "").partition("\\n")[0])
        words = found[1].replace("\\\\", "").split(",") if found else []
    words = [word.split("=")[0].strip() for word in words]
    return [word.split()[-1] for word in words if word not in ("self", "/", "*", "")]

print(json.dumps({path: parameters(path) for path in json.load(sys.stdin)}))
"""
SPECIAL = {
    "asarray",
    "array",
    "ascontiguousarray",
    "copyto",
    "asnumpy",
    "RawModule",
    "__version__",
    "get_default_memory_pool",
}


def ask_cupy(paths: list[str]) -> dict[str, Any]:
    """What ASK says, in a process where `cupy` is not the fake."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    run = subprocess.run([sys.executable, "-c", ASK], input=json.dumps(paths), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def public(space: Any) -> set[str]:
    """Names that a program may use."""
    pythons = {"__module__", "__doc__", "__dict__", "__weakref__", "__spec__", "__loader__", "__package__", "__name__"}
    return {name for name in vars(space) if name not in pythons and not (name[0] == "_" and name[1] != "_")}


def test_every_name_is_cupys() -> None:
    """But for cuBLAS's, which does not import where its library is missing."""
    spaces = {
        "": fake_cupy.cupy, "ndarray/": fake_cupy.ndarray, "lib/stride_tricks/": fake_cupy.cupy.lib.stride_tricks,
        "cuda/": fake_cupy.cuda, "cuda/nvrtc/": fake_cupy.nvrtc, "cuda/runtime/": fake_cupy.cuda.runtime,
        "cuda/device/": fake_cupy.cuda.device, "cuda/Device/": fake_cupy.cuda.Device,
    }  # fmt: skip
    paths = [f"cupy/{place}{name}" for place, space in spaces.items() for name in public(space)]
    assert len(paths) > 150
    answers = ask_cupy([*paths, "cupy/no_such_name"])
    assert [path for path, answer in answers.items() if answer is None] == ["cupy/no_such_name"]


def test_parameters_are_cupys() -> None:
    tables = {f"cupy/{name}": words for name, words in FUNCTIONS.items()}
    tables |= {f"cupy/ndarray/{name}": words for name, words in METHODS.items()}
    answers = ask_cupy([*tables])
    assert {path: words.split() for path, words in tables.items()} == answers


def test_keywords_of_ufuncs_are_cupys() -> None:
    answers = ask_cupy([f"cupy/{name}" for name in UFUNCS - {"matmul"}])  # whose docstring does not tell
    for path, words in answers.items():
        assert set(words) - {"x", "x1", "x2"} == UFUNC_KEYWORDS, path


def test_parameters_of_the_rest_are_among_cupys() -> None:
    functions = {
        f"cupy/{name}": getattr(fake_cupy, name) for name in ("asarray", "array", "ascontiguousarray", "copyto")
    }
    functions["cupy/lib/stride_tricks/as_strided"] = fake_cupy.as_strided
    functions["cupy/lib/stride_tricks/sliding_window_view"] = fake_cupy.sliding_window_view
    functions |= {
        f"cupy/ndarray/{name}": getattr(fake_cupy.ndarray, name) for name in ("get", "item", "tolist", "tobytes")
    }
    functions["cupy/cuda/Device"] = fake_cupy.cuda.Device
    functions["cupy/RawModule"] = fake_cupy.RawModule
    for path, answer in ask_cupy([*functions]).items():
        ours = [name for name in inspect.signature(functions[path]).parameters if name != "self"]
        assert set(ours) <= set(answer), path


def test_tables_hold_everything() -> None:
    names = {*FUNCTIONS, *UFUNCS, *NUMBERS, *SPECIAL, "ndarray", "cuda", "lib"}
    assert public(fake_cupy.cupy) == names


Refused = Callable[[Any, Any, np.ndarray], Any]  # of the module, an array of 3 x 4 of its own, and one of NumPy
TYPE_ERRORS: dict[str, Refused] = {
    "asarray": lambda xp, x, a: np.asarray(x),
    "float-of-many": lambda xp, x, a: float(x),
    "add": lambda xp, x, a: x + a,
    "radd": lambda xp, x, a: a + x,
    "iadd": lambda xp, x, a: x.__iadd__(a),
    "into-numpy": lambda xp, x, a: a.__iadd__(x),
    "compare": lambda xp, x, a: x == a,
    "compare-list": lambda xp, x, a: x == [1, 2, 3, 4],
    "matmul": lambda xp, x, a: x @ a.T,
    "maximum": lambda xp, x, a: xp.maximum(x, a),
    "numpys-maximum": lambda xp, x, a: np.maximum(x, a),
    "where": lambda xp, x, a: xp.where(x > 0, x, a),
    "stack": lambda xp, x, a: xp.stack([x, a]),
    "numpys-stack": lambda xp, x, a: np.stack([x, x]),
    "numpys-sum": lambda xp, x, a: np.sum(x),
    "numpys-reduce": lambda xp, x, a: np.add.reduce(x),
    "assign-list": lambda xp, x, a: x.__setitem__(0, [1, 2, 3, 4]),
    "into-numpy-place": lambda xp, x, a: a.__setitem__(..., x),
    "ufunc-where": lambda xp, x, a: xp.add(x, x, where=x > 0),
    "ufunc-order": lambda xp, x, a: xp.exp(x, order="C"),
    "out-numpy": lambda xp, x, a: xp.exp(x, out=a),
    "sum-where": lambda xp, x, a: x.sum(where=x > 0),
    "sum-initial": lambda xp, x, a: xp.sum(x, initial=0),
    "max-initial": lambda xp, x, a: x.max(initial=0),
    "max-where": lambda xp, x, a: xp.max(x, where=x > 0),
    "zeros-like": lambda xp, x, a: xp.zeros(3, like=x),
    "arange-like": lambda xp, x, a: xp.arange(3, like=x),
    "where-out": lambda xp, x, a: xp.where(x > 0, x, x, x),
    "argsort-order": lambda xp, x, a: x.argsort(order="C"),
    "sqrt-of-strings": lambda xp, x, a: xp.sqrt("2"),
    "index": lambda xp, x, a: [1, 2].__getitem__(x.argmax()),
    "copyto": lambda xp, x, a: xp.copyto(x, a),
    "cast": lambda xp, x, a: (x > 0).__iadd__(x),
}
VALUE_ERRORS: dict[str, Refused] = {
    "assign": lambda xp, x, a: x.__setitem__(..., a),
    "assign-part": lambda xp, x, a: x.__setitem__((0, slice(1, 3)), a[0, :2]),
    "largest-of-nothing": lambda xp, x, a: x[:0].max(),
    "largest-of-empty-rows": lambda xp, x, a: x[:, :0].max(axis=1),
    "bool-of-many": lambda xp, x, a: bool(x),
    "shapes": lambda xp, x, a: x + x[:, :3],
}
ATTRIBUTE_ERRORS: dict[str, Refused] = {
    "errstate": lambda xp, x, a: xp.errstate(all="ignore"),
    "add-at": lambda xp, x, a: xp.add.at(x, 0, 1),
    "writeable": lambda xp, x, a: x.flags.writeable,
    "maximum-reduceat": lambda xp, x, a: xp.maximum.reduceat(x, x),
}


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        pytest.param(error, function, id=f"{error.__name__}-{name}")
        for error, table in (
            (TypeError, TYPE_ERRORS), (ValueError, VALUE_ERRORS), (AttributeError, ATTRIBUTE_ERRORS),
        )
        for name, function in table.items()
    ],
)  # fmt: skip
def test_refuses(error: type[Exception], refused: Refused, emulated: Counter[str]) -> None:
    xp = fake_cupy.cupy
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    with pytest.raises(error):
        refused(xp, xp.asarray(a), a)


WAITS: dict[str, Callable[[Any], Any]] = {
    "bool": lambda x: bool(x[0, 0]),
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "if": lambda x: 1 if x.sum() > 0 else 2,
    "item": lambda x: x[0, 0].item(),
    "tolist": lambda x: x.tolist(),
    "tobytes": lambda x: x.tobytes(),
    "get": lambda x: x.get(),
    "mask": lambda x: x[x > 3],
    "mask-of-rows": lambda x: x[:, x[0] > 1],
    "write-to-mask": lambda x: x.__setitem__(x > 3, 0),
    "synchronize": lambda x: fake_cupy.cuda.get_current_stream().synchronize(),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_are_counted(name: str, emulated: Counter[str]) -> None:
    x = fake_cupy.asarray(np.arange(12.0).reshape(3, 4))
    assert emulated == {"upload": 1}
    WAITS[name](x)
    assert emulated["sync"] == 1


def test_uploads_are_counted(emulated: Counter[str]) -> None:
    x = fake_cupy.asarray(np.arange(12.0).reshape(3, 4))
    assert x[[0, 2]].shape == x[np.array([0, 2])].shape == (2, 4)
    fake_cupy.asarray([1, 2])
    assert fake_cupy.asarray(x) is x
    assert fake_cupy.array(x) is not x
    assert emulated == {"upload": 4}


def test_work_on_the_device_neither_waits_nor_uploads(emulated: Counter[str]) -> None:
    x = fake_cupy.asarray(np.arange(12.0).reshape(3, 4))
    emulated.clear()
    places = fake_cupy.cupy.arange(3)[::-1]
    y = fake_cupy.cupy.where(x > 1, x * 2.0, 0)[places] @ x.T + x.sum() / x.max(axis=1)
    y[0, 1:] += 1
    y[places] = 3
    fake_cupy.copyto(y, 2, where=y > 3)
    assert not +emulated


def test_new_arrays_are_in_c_order_and_views_keep_theirs(emulated: Counter[str]) -> None:
    xp, x = fake_cupy.cupy, fake_cupy.asarray(np.arange(24.0).reshape(2, 3, 4)).transpose(2, 0, 1)
    assert not x.flags.c_contiguous
    places = xp.arange(2)
    for made in (
        x + 1, -x, xp.exp(x), xp.where(x > 1, x, 0), x.sum(axis=2), x[:, :, places], x.take(places, axis=1), x.copy(),
        xp.concatenate([x, x]), x.reshape(8, 3), xp.maximum(x, x), x @ x.swapaxes(1, 2),
    ):  # fmt: skip
        assert made.flags.c_contiguous
        assert made.base is None
    assert x.astype("float32").strides == tuple(s // 2 for s in x.strides)  # order="K"
    assert xp.zeros_like(x).strides == x.strides
    assert fake_cupy.asarray(np.asfortranarray(np.zeros((2, 3)))).flags.f_contiguous


def test_views_know_whose_memory_they_see(emulated: Counter[str]) -> None:
    xp, x = fake_cupy.cupy, fake_cupy.asarray(np.arange(24.0).reshape(2, 3, 4))
    assert x.base is None
    views = [
        x[0], x[0, 0, 0], x[:, None], x.T, x.reshape(6, 4), x.ravel(), x.transpose(0, 2, 1), x.view("int64"), x[0].T,
        xp.broadcast_to(x, (2, 2, 3, 4)), xp.expand_dims(x, 0), xp.moveaxis(x, 0, 1),
    ]  # fmt: skip
    assert all(view.base is x for view in views)
    assert xp.ascontiguousarray(x) is x is x.astype("float64", copy=False)
    y = x
    y += 1
    assert y is x
    assert all(xp.may_share_memory(x, view) for view in views)


def test_results_without_dimensions_stay_on_the_device(emulated: Counter[str]) -> None:
    x = fake_cupy.asarray(np.arange(12.0).reshape(3, 4))
    for made in (x.sum(), x.max(), x.mean(), x.argmax(), (x > 1).all(), x[1, 2], x.sum() * 2, fake_cupy.cupy.sum(x)):
        assert isinstance(made, fake_cupy.ndarray)
        assert made.shape == ()
    assert (x > 1).sum().dtype == np.int64
    assert emulated["sync"] == 0


def test_what_nobody_wrote_is_no_number(emulated: Counter[str]) -> None:
    xp = fake_cupy.cupy
    like = xp.zeros((2, 3), "float32").T
    for made in (
        xp.empty((2, 3), "float32"),
        xp.empty(4, "float16"),
        xp.empty_like(like),
        xp.empty_like(like, "float64"),
    ):
        assert xp.isnan(made).all()
    assert xp.empty(3, "int32").tolist() == [-1] * 3
    assert xp.empty(3, "uint8").tolist() == [255] * 3
    assert xp.empty(3, "bool").tolist() == [True] * 3


def test_float16_products(emulated: Counter[str]) -> None:
    x = fake_cupy.cupy.ones((2, 3), "float16")
    assert (x @ x.T).dtype == np.float16
