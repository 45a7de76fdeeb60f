"""Optimizers, learning-rate schedules, and the clipping of gradients."""

from . import lr_scheduler as lr_scheduler
from .adamw import AdamW as AdamW
from .clip import clip_grad_norm_ as clip_grad_norm_
from .clip import clip_grad_value_ as clip_grad_value_
from .groups import decay_groups as decay_groups
from .optimizer import Optimizer as Optimizer
from .sgd import SGD as SGD
