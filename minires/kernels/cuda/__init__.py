"""Variants for CuPy arrays: our own CUDA kernels, `.cu`, with the launchers beside them. Importing registers them.

CuPy is imported at the first launch, never before.
"""

from . import conv as conv
from . import norm as norm
from . import optim as optim
