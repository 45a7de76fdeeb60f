"""The ops under the names of torch.nn.functional."""

from ..ops import adaptive_avg_pool2d as adaptive_avg_pool2d
from ..ops import adaptive_max_pool2d as adaptive_max_pool2d
from ..ops import avg_pool2d as avg_pool2d
from ..ops import batch_norm as batch_norm
from ..ops import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from ..ops import conv2d as conv2d
from ..ops import conv_transpose2d as conv_transpose2d
from ..ops import cross_entropy as cross_entropy
from ..ops import dropout as dropout
from ..ops import gelu as gelu
from ..ops import group_norm as group_norm
from ..ops import l1_loss as l1_loss
from ..ops import layer_norm as layer_norm
from ..ops import leaky_relu as leaky_relu
from ..ops import linear as linear
from ..ops import log_softmax as log_softmax
from ..ops import max_pool2d as max_pool2d
from ..ops import mse_loss as mse_loss
from ..ops import nll_loss as nll_loss
from ..ops import pad as pad
from ..ops import relu as relu
from ..ops import sigmoid as sigmoid
from ..ops import silu as silu
from ..ops import softmax as softmax
from ..ops import tanh as tanh
