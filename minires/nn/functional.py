"""The ops under the names of torch.nn.functional."""

from ..ops import adaptive_avg_pool2d as adaptive_avg_pool2d
from ..ops import avg_pool2d as avg_pool2d
from ..ops import batch_norm as batch_norm
from ..ops import conv2d as conv2d
from ..ops import cross_entropy as cross_entropy
from ..ops import linear as linear
from ..ops import log_softmax as log_softmax
from ..ops import max_pool2d as max_pool2d
from ..ops import nll_loss as nll_loss
from ..ops import relu as relu
from ..ops import softmax as softmax
