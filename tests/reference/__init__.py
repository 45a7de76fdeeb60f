"""Every op once more as loops over elements, to be obviously right. Images are (N, H, W, C), weights (KH, KW, I, O).

Sums are exact (`math.fsum`) and rounded once. Nothing of minires is used.
"""

from tests.reference.conv import col2im as col2im
from tests.reference.conv import conv2d as conv2d
from tests.reference.conv import conv_transpose2d as conv_transpose2d
from tests.reference.conv import im2col as im2col
from tests.reference.conv import output_size as output_size
from tests.reference.conv import windows as windows
from tests.reference.dropout import dropout_mask as dropout_mask
from tests.reference.dropout import philox as philox
from tests.reference.elementwise import elementwise as elementwise
from tests.reference.elementwise import gelu as gelu
from tests.reference.elementwise import gelu_tanh as gelu_tanh
from tests.reference.elementwise import held as held
from tests.reference.elementwise import places as places
from tests.reference.linear import linear as linear
from tests.reference.linear import matmul as matmul
from tests.reference.loss import bce_with_logits as bce_with_logits
from tests.reference.loss import cross_entropy as cross_entropy
from tests.reference.loss import log_softmax as log_softmax
from tests.reference.loss import nll as nll
from tests.reference.loss import reduced as reduced
from tests.reference.loss import softmax as softmax
from tests.reference.norm import batch_norm as batch_norm
from tests.reference.norm import batch_norm_grad as batch_norm_grad
from tests.reference.norm import group_norm as group_norm
from tests.reference.norm import layer_norm as layer_norm
from tests.reference.norm import moments as moments
from tests.reference.optim import adamw as adamw
from tests.reference.optim import sgd as sgd
from tests.reference.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from tests.reference.pool import adaptive_max_pool2d as adaptive_max_pool2d
from tests.reference.pool import avg_pool2d as avg_pool2d
from tests.reference.pool import max_pool2d as max_pool2d
from tests.reference.pool import pool as pool
from tests.reference.reduce import first_of as first_of
from tests.reference.reduce import logsumexp as logsumexp
from tests.reference.reduce import mean_over as mean_over
from tests.reference.reduce import over as over
from tests.reference.reduce import sum_over as sum_over
from tests.reference.reduce import variance as variance
from tests.reference.shape import concatenate as concatenate
from tests.reference.shape import expand as expand
from tests.reference.shape import pad as pad
from tests.reference.shape import permute as permute
from tests.reference.shape import pick as pick
from tests.reference.shape import reshape as reshape
from tests.reference.shape import take as take
