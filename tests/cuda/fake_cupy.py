"""A stand-in for CuPy over NumPy, strict where CuPy is, with kernels run by the emulator.

It refuses what CuPy refuses (NumPy arrays and lists among its own, implicit conversions, keywords that CuPy has not),
has CuPy's layouts (what is new is in C order), its bases and its 0-d results, fills new arrays with NaN, and counts
what makes a program wait for a GPU. Only what minires uses is here; test_fake_cupy.py compares its names and keywords
with those of CuPy where that is installed.

Stricter than CuPy: NumPy's functions are no way to its own, an index out of range raises, and so does a write into what
was broadcast.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.cuda import emulator
from tests.cuda.fake_cuda import RawModule, counts, cublas, cuda, module, nvrtc, waits

# What CuPy has under NumPy's name and with NumPy's meaning; of functions and methods the parameters that CuPy has.
UFUNCS = {
    "abs", "absolute", "add", "arctanh", "copysign", "cos", "divide", "equal", "exp", "expm1", "floor", "floor_divide",
    "fmod", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log1p",
    "logical_and", "logical_not", "logical_or", "matmul", "maximum", "minimum", "multiply", "negative", "not_equal",
    "power", "remainder", "sign", "sin", "sqrt", "square", "subtract", "tanh", "true_divide",
}  # fmt: skip
UFUNC_KEYWORDS = {"out", "dtype", "casting"}
FUNCTIONS = {
    "all": "a axis out keepdims",
    "any": "a axis out keepdims",
    "arange": "start stop step dtype",
    "argmax": "a axis dtype out keepdims",
    "argsort": "a axis kind",
    "array_equal": "a1 a2 equal_nan",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concatenate": "tup axis out dtype casting",
    "count_nonzero": "a axis",
    "cumsum": "a axis dtype out",
    "empty": "shape dtype order",
    "empty_like": "prototype dtype order subok shape",
    "expand_dims": "a axis",
    "full": "shape fill_value dtype order",
    "max": "a axis out keepdims",
    "may_share_memory": "a b max_work",
    "mean": "a axis dtype out keepdims",
    "min": "a axis out keepdims",
    "moveaxis": "a source destination",
    "ones": "shape dtype order",
    "ones_like": "a dtype order subok shape",
    "repeat": "a repeats axis",
    "roll": "a shift axis",
    "searchsorted": "a v side sorter",
    "stack": "tup axis out dtype casting",
    "sum": "a axis dtype out keepdims",
    "take": "a indices axis out",
    "take_along_axis": "a indices axis",
    "tile": "A reps",
    "transpose": "a axes",
    "where": "condition x y",
    "zeros": "shape dtype order",
    "zeros_like": "a dtype order subok shape",
}
METHODS = {
    "all": "axis out keepdims",
    "any": "axis out keepdims",
    "argmax": "axis out dtype keepdims",
    "argmin": "axis out dtype keepdims",
    "argsort": "axis kind",
    "astype": "dtype order casting subok copy",
    "copy": "order",
    "max": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "min": "axis out keepdims",
    "ravel": "order",
    "repeat": "repeats axis",
    "reshape": "*shape order copy",
    "squeeze": "axis",
    "sum": "axis dtype out keepdims",
    "swapaxes": "axis1 axis2",
    "take": "indices axis out",
    "transpose": "*axes",
    "view": "dtype type",
}
NUMBERS = {
    "bool_", "float16", "float32", "float64", "iinfo", "finfo", "inf", "int32", "int64", "nan", "newaxis", "pi",
    "uint8", "uint32", "uint64", "dtype", "promote_types", "result_type",
}  # fmt: skip


def _check_parameters(name: str, parameters: str, args: tuple[Any, ...], kwargs: Any) -> None:
    """Raises TypeError for arguments that CuPy's function has not."""
    names = parameters.split()
    unknown = set(kwargs) - set(names)
    if unknown or (len(args) > len(names) and not parameters.startswith("*")):
        raise TypeError(f"{name}() got unexpected arguments: {', '.join(unknown) or args[len(names) :]}")


def _inside(value: Any) -> Any:
    """The NumPy array in an array of ours; also in tuples and lists."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)):
        return type(value)(map(_inside, value))
    return value


def _operand(value: Any) -> Any:
    """What a ufunc may take: an array of ours, or a number."""
    if not isinstance(value, (ndarray, np.generic, bool, int, float)):
        raise TypeError(f"Unsupported type {type(value)}")
    return _inside(value)


def _ours(made: Any, *sources: Any, order: str = "C") -> Any:
    """A NumPy result as CuPy would give it: an array also where it has no dimensions, in C order if it is no view."""
    if not isinstance(made, (np.ndarray, np.generic)):
        return made
    array = np.asarray(made)
    for source in sources:
        if isinstance(source, ndarray):
            if array is source._array:
                return source
            if np.may_share_memory(array, source._array):
                return ndarray(array, source if source.base is None else source.base)
    return ndarray(array if order == "K" else np.asarray(array, order="C"))


def _poisoned(array: np.ndarray) -> np.ndarray:
    """What nobody wrote must not be read: NaN, -1, or the largest of what has no sign."""
    array[...] = np.nan if array.dtype.kind == "f" else np.array(-1).astype(array.dtype)
    return array


class ndarray:
    """An array on the fake device."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, array: np.ndarray, base: ndarray | None = None) -> None:
        self._array, self._base = array, base

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    strides = property(lambda self: self._array.strides)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._array.flags.c_contiguous,
                                                  f_contiguous=self._array.flags.f_contiguous))  # fmt: skip
    device = property(lambda self: SimpleNamespace(id=0))
    data = property(lambda self: SimpleNamespace(ptr=self._array.__array_interface__["data"][0], device_id=0))
    base = property(lambda self: self._base)
    T = property(lambda self: _ours(self._array.T, self))

    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"numpy.{ufunc.__name__}.{method} on CuPy's arrays: use array_module")
        return _run_ufunc(ufunc, inputs, out, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} on CuPy's arrays: use array_module")

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        waits("get()")
        return np.array(self._array, order="C")

    def item(self) -> Any:
        waits("item()")
        return self._array.item()

    def tolist(self) -> Any:
        waits("tolist()")
        return self._array.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        waits("tobytes()")
        return self._array.tobytes(order)

    def _scalar(self, kind: Any) -> Any:
        waits(f"{kind.__name__}()")
        return kind(self._array)

    def __bool__(self) -> bool:
        return self._scalar(bool)

    def __float__(self) -> float:
        return self._scalar(float)

    def __int__(self) -> int:
        return self._scalar(int)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, slices: Any) -> Any:
        place = _place(slices)
        result = self._array[place]
        if isinstance(result, np.generic):  # CuPy gives a view without dimensions
            result = self._array[(*place, ...)]
        return _ours(result, self)

    def __setitem__(self, slices: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            if value.ndim:
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            value = value.item()
        self._array[_place(slices)] = _operand(value)

    def __repr__(self) -> str:
        return f"fake{self._array!r}"


def _place(slices: Any) -> tuple[Any, ...]:
    """An index for NumPy's array. Places by booleans have to be counted first, which waits; lists are uploaded."""
    place = slices if isinstance(slices, tuple) else (slices,)
    for part in place:
        if isinstance(part, ndarray) and part.dtype == bool:
            waits("a boolean index")
        counts["upload"] += isinstance(part, (list, np.ndarray))
    return tuple(part._array if isinstance(part, ndarray) else part for part in place)


def _method(name: str, parameters: str) -> Any:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        _check_parameters(name, parameters, args, kwargs)
        made = getattr(self._array, name)(*map(_inside, args), **{k: _inside(v) for k, v in kwargs.items()})
        return _ours(made, self, kwargs.get("out"), order="K" if name in ("astype", "copy") else "C")

    method.__name__ = name
    return method


for _name, _parameters in METHODS.items():
    setattr(ndarray, _name, _method(_name, _parameters))


def _run_ufunc(ufunc: Any, inputs: Any, out: Any, kwargs: Any) -> Any:
    if not set(kwargs) <= UFUNC_KEYWORDS:
        raise TypeError(f"Wrong arguments {kwargs}")
    operands = tuple(map(_operand, inputs))
    with np.errstate(all="ignore"):
        if out is None:
            return _ours(ufunc(*operands, **kwargs))
        (target,) = out if isinstance(out, tuple) else (out,)
        ufunc(*operands, out=_operand(target), **kwargs)
        return target


def _operator(ufunc: Any) -> Any:
    def operator(self: ndarray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", ufunc) is None:  # it is the other's business
            return NotImplemented
        return _run_ufunc(ufunc, (self, other), None, {})

    return operator


for _name, _symbol in {
    "add": "add", "subtract": "sub", "multiply": "mul", "true_divide": "truediv", "floor_divide": "floordiv",
    "remainder": "mod", "power": "pow", "matmul": "matmul", "bitwise_and": "and", "bitwise_or": "or",
    "bitwise_xor": "xor", "right_shift": "rshift", "left_shift": "lshift",
}.items():  # fmt: skip
    _u = getattr(np, _name)
    setattr(ndarray, f"__{_symbol}__", _operator(_u))
    setattr(ndarray, f"__r{_symbol}__", lambda self, other, u=_u: _run_ufunc(u, (other, self), None, {}))
    if _symbol != "matmul":
        setattr(ndarray, f"__i{_symbol}__", lambda self, other, u=_u: _run_ufunc(u, (self, other), self, {}))
for _name, _symbol in {
    "greater": "gt", "less": "lt", "greater_equal": "ge", "less_equal": "le", "equal": "eq", "not_equal": "ne",
}.items():  # fmt: skip
    setattr(ndarray, f"__{_symbol}__", _operator(getattr(np, _name)))
for _name, _symbol in {"negative": "neg", "absolute": "abs", "invert": "invert"}.items():
    _u = getattr(np, _name)
    setattr(ndarray, f"__{_symbol}__", lambda self, u=_u: _run_ufunc(u, (self,), None, {}))
ndarray.__module__ = "cupy"


class Ufunc:
    """A ufunc of CuPy's: no `where`, no `order`, no NumPy arrays."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        return _run_ufunc(getattr(np, self.name), inputs, out, kwargs)


def _function(name: str, parameters: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        _check_parameters(name, parameters, args, kwargs)
        with np.errstate(all="ignore"):
            made = getattr(np, name)(*map(_inside, args), **{k: _inside(v) for k, v in kwargs.items()})
        if name.startswith("empty"):
            _poisoned(made)
        made = np.asarray(made) if name == "array_equal" else made
        return _ours(made, *args, kwargs.get("out"), order="K" if name.endswith("_like") else "C")

    function.__name__ = name
    return function


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """An array of ours; one of NumPy's, or numbers, are uploaded."""
    if isinstance(a, ndarray):
        return a if dtype in (None, a.dtype) else a.astype(dtype)
    counts["upload"] += 1
    return ndarray(np.array(a, dtype=dtype, order="A"))


def array(obj: Any, dtype: Any = None) -> ndarray:
    """A copy as an array of ours."""
    return asarray(obj.copy() if isinstance(obj, ndarray) else obj, dtype)


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    return a if a.flags.c_contiguous and dtype in (None, a.dtype) else ndarray(np.array(a._array, dtype, order="C"))


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    np.copyto(dst._array, _operand(src), casting=casting, where=True if where is None else _operand(where))


def sliding_window_view(x: ndarray, window_shape: Any, axis: Any = None) -> ndarray:
    return _ours(np.lib.stride_tricks.sliding_window_view(x._array, window_shape, axis), x)


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return _ours(np.lib.stride_tricks.as_strided(x._array, shape, strides), x)


cupy = module(
    "cupy", ndarray=ndarray, asarray=asarray, array=array, ascontiguousarray=ascontiguousarray, copyto=copyto,
    lib=SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided, sliding_window_view=sliding_window_view)),
    cuda=cuda, RawModule=RawModule,
    get_default_memory_pool=lambda: POOL,
    asnumpy=lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a), __version__="14.0 (fake)",
    **{name: _function(name, parameters) for name, parameters in FUNCTIONS.items()},
    **{name: Ufunc(name) for name in UFUNCS}, **{name: getattr(np, name) for name in NUMBERS},
)  # fmt: skip
libs = module("cupy_backends.cuda.libs", cublas=cublas)
MODULES = {
    "cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.nvrtc": nvrtc, "cupy_backends": module("cupy_backends"),
    "cupy_backends.cuda": module("cupy_backends.cuda", libs=libs), "cupy_backends.cuda.libs": libs,
    "cupy_backends.cuda.libs.cublas": cublas,
}  # fmt: skip


POOL = SimpleNamespace(free_all_blocks=lambda: counts.update(freed=1), total_bytes=lambda: 3 << 30)


@contextlib.contextmanager
def installed() -> Iterator[Counter[str]]:
    """Within the block `import cupy` gives the fake, and minires finds one GPU. Yields the counts, from 0."""
    from minires import device
    from minires.kernels.cuda import compiler

    before = {name: sys.modules.get(name) for name in MODULES}
    with_cache = os.environ.get("MINIRES_CACHE")
    if with_cache is None:  # the user's is for a GPU's
        os.environ["MINIRES_CACHE"] = str(emulator.builds() / "cache")
    sys.modules.update(MODULES)
    device.gpu_missing.cache_clear()
    compiler.clear()
    counts.clear()
    try:
        yield counts
    finally:
        if with_cache is None:
            os.environ.pop("MINIRES_CACHE", None)
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        device.gpu_missing.cache_clear()
        compiler.clear()
