"""Variants for NumPy arrays, where blocks that fit in the cache pay. Importing this package registers them."""

from . import activation as activation
from . import conv as conv
from . import norm as norm
from . import reduce as reduce
