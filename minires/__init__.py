"""minires: a deep-learning engine to read and to use, on NumPy and CuPy arrays."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

import numpy as _np

from . import autograd as autograd
from . import models as models
from . import nn as nn
from . import optim as optim
from .autograd import Function as Function
from .autograd import enable_grad as enable_grad
from .autograd import is_grad_enabled as is_grad_enabled
from .autograd import no_grad as no_grad
from .errors import MiniresError as MiniresError
from .gradcheck import gradcheck as gradcheck
from .kernels import get_precision as get_precision
from .kernels import get_tuning as get_tuning
from .kernels import precision as precision
from .kernels import set_precision as set_precision
from .kernels import set_tuning as set_tuning
from .ops import abs as abs
from .ops import add as add
from .ops import amax as amax
from .ops import amin as amin
from .ops import argmax as argmax
from .ops import argmin as argmin
from .ops import cat as cat
from .ops import chunk as chunk
from .ops import clamp as clamp
from .ops import clip as clip
from .ops import concatenate as concatenate
from .ops import div as div
from .ops import exp as exp
from .ops import flatten as flatten
from .ops import log as log
from .ops import log_softmax as log_softmax
from .ops import logsumexp as logsumexp
from .ops import matmul as matmul
from .ops import max as max
from .ops import maximum as maximum
from .ops import mean as mean
from .ops import min as min
from .ops import minimum as minimum
from .ops import mul as mul
from .ops import neg as neg
from .ops import permute as permute
from .ops import pow as pow
from .ops import relu as relu
from .ops import reshape as reshape
from .ops import sigmoid as sigmoid
from .ops import softmax as softmax
from .ops import split as split
from .ops import sqrt as sqrt
from .ops import squeeze as squeeze
from .ops import stack as stack
from .ops import std as std
from .ops import sub as sub
from .ops import sum as sum
from .ops import tanh as tanh
from .ops import transpose as transpose
from .ops import unflatten as unflatten
from .ops import unsqueeze as unsqueeze
from .ops import var as var
from .ops import where as where
from .random import get_rng_state as get_rng_state
from .random import manual_seed as manual_seed
from .random import set_rng_state as set_rng_state
from .tensor import Tensor as Tensor
from .tensor import tensor as tensor
from .threads import get_num_threads as get_num_threads
from .threads import set_num_threads as set_num_threads

float16, float32, float64, int64 = _np.float16, _np.float32, _np.float64, _np.int64
__version__ = "0.1.0"

if _TYPE_CHECKING:
    from . import checkpoint as checkpoint
    from . import data as data
    from . import onnx as onnx
    from . import summary as summary
    from . import training as training
    from . import weights as weights


def __getattr__(name: str) -> _Any:
    """`minires.data` and others, imported when they are first asked for, as they are much of all there is to import."""
    if name in ("checkpoint", "data", "onnx", "summary", "training", "weights"):
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
