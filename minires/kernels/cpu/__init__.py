"""Variants for NumPy arrays, where blocks that fit in the cache pay. Importing this package registers them."""

from . import activation as activation
from . import conv as conv
from . import conv_im2col as conv_im2col
from . import conv_pointwise as conv_pointwise
from . import conv_rows as conv_rows
from . import conv_small as conv_small
from . import conv_winograd as conv_winograd
from . import elementwise as elementwise
from . import linear as linear
from . import norm as norm
from . import optim as optim
from . import pool as pool
from . import reduce as reduce
