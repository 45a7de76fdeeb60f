"""A stand-in for CuPy over NumPy, strict where CuPy is, with kernels run by the emulator.

It refuses what CuPy refuses (NumPy arrays among its own, implicit conversions), has CuPy's layouts (what ufuncs make is
in C order) and its 0-d results, fills new arrays with NaN, and counts what makes a program wait for a GPU. Only what
minires uses is here; a test compares names and keywords with those of CuPy where that is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.machinery
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.cuda import emulator

counts: Counter[str] = Counter()  # "sync": the program waited; "upload": an array came from the host; "launch": of ours

# What CuPy has under NumPy's name and with NumPy's meaning.
UFUNCS = {
    "abs", "absolute", "add", "copysign", "cos", "divide", "equal", "exp", "expm1", "floor", "floor_divide", "fmod",
    "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log1p", "logical_and",
    "logical_not", "logical_or", "matmul", "maximum", "minimum", "multiply", "negative", "not_equal", "power",
    "remainder", "sign", "sin", "sqrt", "square", "subtract", "tanh", "true_divide",
}  # fmt: skip
FUNCTIONS = {
    "all", "any", "arange", "argsort", "argmax", "array_equal", "broadcast_to", "clip", "concatenate", "count_nonzero",
    "cumsum", "empty", "empty_like", "expand_dims", "full", "may_share_memory", "max", "mean", "min",
    "moveaxis", "ones", "ones_like", "pad", "repeat", "roll", "searchsorted", "stack", "sum", "take", "take_along_axis",
    "tile", "transpose", "where", "zeros", "zeros_like",
}  # fmt: skip
NUMBERS = {
    "bool_", "float16", "float32", "float64", "iinfo", "finfo", "inf", "int32", "int64", "nan", "newaxis", "pi", "uint8",
    "uint32", "uint64", "dtype", "promote_types", "result_type",
}  # fmt: skip
METHODS = {
    "all", "any", "argmax", "argsort", "astype", "copy", "max", "mean", "min", "ravel", "repeat", "reshape", "squeeze",
    "sum", "swapaxes", "take", "transpose", "view",
}  # fmt: skip


def waits(why: str) -> None:
    """The host waits for the device, which nothing in a training step may do."""
    counts["sync"] += 1
    counts[f"sync by {why}"] += 1


def _inside(value: Any) -> Any:
    """The NumPy array in an array of ours; also in tuples and lists."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)):
        return type(value)(map(_inside, value))
    return value


def _ours(value: Any, order: str = "K") -> Any:
    """A NumPy result as CuPy would give it: an array also where it has no dimensions."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        return ndarray(array if order == "K" else np.ascontiguousarray(array).reshape(array.shape))
    if isinstance(value, tuple):
        return tuple(_ours(part, order) for part in value)
    return value


def _poisoned(array: np.ndarray) -> np.ndarray:
    """What nobody wrote must not be read: NaN, or the largest integers."""
    if array.dtype == bool:
        array[...] = True
    elif array.flags.c_contiguous:
        array.reshape(-1).view(np.uint8)[...] = 0xFF
    return array


class ndarray:
    """An array on the fake device."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

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
    data = property(lambda self: SimpleNamespace(ptr=self._array.__array_interface__["data"][0]))
    T = property(lambda self: ndarray(self._array.T))

    @property
    def base(self) -> Any:
        base = self._array.base
        return None if base is None else ndarray(base) if isinstance(base, np.ndarray) else base

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        return _run_ufunc(ufunc if method == "__call__" else getattr(ufunc, method), inputs, out, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} on CuPy's arrays: use array_module")

    def get(self, *, order: str = "C", blocking: bool = True) -> np.ndarray:
        waits("get()")
        return np.array(self._array, order="C")

    def item(self) -> Any:
        waits("item()")
        return self._array.item()

    def tolist(self) -> Any:
        waits("tolist()")
        return self._array.tolist()

    def _scalar(self, kind: Any) -> Any:
        waits(f"{kind.__name__}()")
        return kind(self._array)

    def __bool__(self) -> bool:
        return self._scalar(bool)

    def __float__(self) -> float:
        return self._scalar(float)

    def __int__(self) -> int:
        return self._scalar(int)

    def __index__(self) -> int:
        return self._scalar(int)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, place: Any) -> Any:
        _look_at(place)
        place = _inside(place)
        result = self._array[place]
        if isinstance(result, np.generic):  # CuPy gives a view without dimensions
            result = self._array[(*place, ...) if isinstance(place, tuple) else (place, ...)]
        return ndarray(result)

    def __setitem__(self, place: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._array[_inside(place)] = value if isinstance(value, np.ndarray) else _inside(value)

    def __repr__(self) -> str:
        return f"fake{self._array!r}"


def _look_at(place: Any) -> None:
    """Places by booleans have to be counted first, which waits."""
    for part in place if isinstance(place, tuple) else (place,):
        if isinstance(part, ndarray) and part.dtype == bool:
            waits("a boolean index")


def _method(name: str) -> Any:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if name == "copy":
            return ndarray(self._array.copy(*args, **kwargs))
        made = getattr(self._array, name)(*map(_inside, args), **{k: _inside(v) for k, v in kwargs.items()})
        order = "C" if name in ("sum", "max", "min", "mean", "argmax", "any", "all", "take", "repeat") else "K"
        return self if made is self._array else _ours(made, order)

    method.__name__ = name
    return method


for _name in METHODS:
    setattr(ndarray, _name, _method(_name))


def _run_ufunc(ufunc: Any, inputs: Any, out: Any, kwargs: Any) -> Any:
    if "order" in kwargs or "where" in kwargs:
        raise TypeError(f"Wrong arguments {kwargs}")
    if out is not None:
        outputs = out if isinstance(out, tuple) else (out,)
        ufunc(*_inside(tuple(inputs)), out=_inside(tuple(outputs)), **kwargs)
        return outputs[0]
    with np.errstate(all="ignore"):
        return _ours(ufunc(*_inside(tuple(inputs)), **kwargs), "C")


for _name, _symbol in {
    "add": "add", "subtract": "sub", "multiply": "mul", "true_divide": "truediv", "floor_divide": "floordiv",
    "remainder": "mod", "power": "pow", "matmul": "matmul", "bitwise_and": "and", "bitwise_or": "or",
    "bitwise_xor": "xor", "right_shift": "rshift", "left_shift": "lshift",
}.items():  # fmt: skip
    _u = getattr(np, _name)
    setattr(ndarray, f"__{_symbol}__", lambda self, other, u=_u: _run_ufunc(u, (self, other), None, {}))
    setattr(ndarray, f"__r{_symbol}__", lambda self, other, u=_u: _run_ufunc(u, (other, self), None, {}))
    setattr(ndarray, f"__i{_symbol}__", lambda self, other, u=_u: _run_ufunc(u, (self, other), self, {}))
for _name, _symbol in {
    "greater": "gt", "less": "lt", "greater_equal": "ge", "less_equal": "le", "equal": "eq", "not_equal": "ne",
}.items():  # fmt: skip
    _u = getattr(np, _name)
    setattr(ndarray, f"__{_symbol}__", lambda self, other, u=_u: _run_ufunc(u, (self, other), None, {}))
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

    def reduceat(self, array: ndarray, indices: ndarray, axis: int = 0) -> ndarray:
        return _ours(getattr(np, self.name).reduceat(array._array, indices._array, axis=axis), "C")


def _function(name: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        if name == "array_equal":
            waits("array_equal()")
        made = getattr(np, name)(*map(_inside, args), **{k: _inside(v) for k, v in kwargs.items()})
        if name.startswith("empty"):
            _poisoned(made)
        views = ("broadcast_to", "expand_dims", "moveaxis", "transpose", "empty_like", "zeros_like", "ones_like")
        return _ours(made, "K" if name in views else "C")

    function.__name__ = name
    return function


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """An array of ours; one of NumPy's, or numbers, are uploaded."""
    if isinstance(a, ndarray):
        return a if dtype in (None, a.dtype) else a.astype(dtype)
    counts["upload"] += 1
    return ndarray(np.array(a, dtype=dtype, order="C"))


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    return a if a.flags.c_contiguous and dtype in (None, a.dtype) else ndarray(np.array(a._array, dtype, order="C"))


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    np.copyto(dst._array, _inside(src), casting=casting, where=True if where is None else _inside(where))


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return ndarray(np.lib.stride_tricks.as_strided(x._array, shape, strides))


class Device:
    """The one fake device, of compute capability 9.0."""

    compute_capability = "90"

    def __init__(self, id: int | None = None) -> None:
        self.id = id or 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def use(self) -> None:
        pass


class NVRTCError(RuntimeError):
    """A failed compilation."""


class _Program:
    def __init__(self, text: str, name: str, headers: tuple[bytes, ...], names: tuple[bytes, ...]) -> None:
        self.text = text
        self.headers = {name.decode(): header.decode() for name, header in zip(names, headers, strict=True)}
        self.log, self.library = "", b""


def _compile(program: _Program, options: tuple[str, ...]) -> None:
    try:
        defines = tuple(option for option in options if option.startswith("-D"))
        program.library = emulator.build(program.text, program.headers, defines)
    except emulator.BuildError as error:
        program.log = str(error)
        raise NVRTCError("NVRTC_ERROR_COMPILATION (6)") from None


class RawModule:
    """A module from a file that the fake NVRTC made."""

    def __init__(self, *, path: str) -> None:
        self.module = emulator.Module(path)

    def get_function(self, name: str) -> Any:
        kernel = self.module.get_function(name)

        def launch(*args: Any) -> None:
            counts["launch"] += 1
            counts[f"launch of {name}"] += 1
            kernel(*args)

        return launch


def _matrix(pointer: int, rows: int, columns: int, leading: int) -> np.ndarray:
    """A view of column-major float32 memory."""
    size = leading * (columns - 1) + rows
    flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (size,))
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (4, 4 * leading))


def _truncated(matrix: np.ndarray) -> np.ndarray:
    """To TF32: 10 bits behind the point, rounded to the nearest."""
    bits = np.ascontiguousarray(matrix).view(np.uint32).astype(np.uint64)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def gemm_ex(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int, B: int,
    Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """cuBLAS's C = alpha * op(A) @ op(B) + beta * C of column-major matrices, from addresses."""
    assert Atype == Btype == Ctype == 0, "float32"
    counts["gemm"] += 1
    a = _matrix(A, *((k, m) if transa else (m, k)), lda)
    b = _matrix(B, *((n, k) if transb else (k, n)), ldb)
    c = _matrix(C, m, n, ldc)
    assert lda >= a.shape[0] and ldb >= b.shape[0] and ldc >= m
    a, b = (a.T if transa else a), (b.T if transb else b)
    if computeType == cublas.CUBLAS_COMPUTE_32F_FAST_TF32:
        a, b = _truncated(a), _truncated(b)
    one, old = (ctypes.cast(p, ctypes.POINTER(ctypes.c_float))[0] for p in (alpha, beta))
    product = np.float32(one) * (a @ b)
    c[...] = product if old == 0 else product + np.float32(old) * c


def _spec(name: str) -> Any:
    return importlib.machinery.ModuleSpec(name, None)


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = _spec(name)
    vars(module).update(members)
    return module


nvrtc = _module(
    "cupy.cuda.nvrtc",
    NVRTCError=NVRTCError,
    # as if a change of the emulator were another version of the compiler
    getVersion=lambda: (0, int(hashlib.sha256((Path(__file__).parent / "emulator.h").read_bytes()).hexdigest()[:6], 16)),
    createProgram=_Program,
    compileProgram=_compile,
    getProgramLog=lambda program: program.log,
    getCUBIN=lambda program: program.library,
    destroyProgram=lambda program: None,
)
runtime = SimpleNamespace(getDevice=lambda: 0, getDeviceCount=lambda: 1)
stream = SimpleNamespace(synchronize=lambda: waits("synchronize()"))
cuda = _module(
    "cupy.cuda", nvrtc=nvrtc, runtime=runtime, Device=Device, is_available=lambda: True,
    get_current_stream=lambda: stream, device=SimpleNamespace(get_cublas_handle=lambda: 1),
)  # fmt: skip
cublas = _module(
    "cupy_backends.cuda.libs.cublas", gemmEx=gemm_ex, CUBLAS_OP_N=0, CUBLAS_OP_T=1, CUBLAS_GEMM_DEFAULT=-1,
    CUBLAS_COMPUTE_32F=68, CUBLAS_COMPUTE_32F_FAST_TF32=77,
)  # fmt: skip
cupy = _module(
    "cupy", ndarray=ndarray, asarray=asarray, array=asarray, ascontiguousarray=ascontiguousarray, copyto=copyto,
    lib=SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided)), cuda=cuda, RawModule=RawModule,
    asnumpy=lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a), __version__="14.0 (fake)",
    **{name: _function(name) for name in FUNCTIONS}, **{name: Ufunc(name) for name in UFUNCS},
    **{name: getattr(np, name) for name in NUMBERS},
)  # fmt: skip
libs = _module("cupy_backends.cuda.libs", cublas=cublas)
MODULES = {
    "cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.nvrtc": nvrtc, "cupy_backends": _module("cupy_backends"),
    "cupy_backends.cuda": _module("cupy_backends.cuda", libs=libs), "cupy_backends.cuda.libs": libs,
    "cupy_backends.cuda.libs.cublas": cublas,
}  # fmt: skip


@contextlib.contextmanager
def installed() -> Iterator[Counter[str]]:
    """Within the block `import cupy` gives the fake, and minires finds one GPU. Yields the counts, from 0."""
    from minires import device
    from minires.kernels.cuda import compiler

    before = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    device.gpu_missing.cache_clear()
    compiler.clear()
    counts.clear()
    try:
        yield counts
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        device.gpu_missing.cache_clear()
        compiler.clear()
