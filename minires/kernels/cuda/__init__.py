"""Variants for CuPy arrays: our own CUDA kernels, `.cu`, with the launchers beside them. Importing registers them.

CuPy is imported at the first launch, never before.
"""

from . import augment as augment
from . import conv as conv
from . import loss as loss
from . import norm as norm
from . import optim as optim
from . import pool as pool
from . import random as random
from . import reduce as reduce
