"""Optimizers and learning-rate schedules."""

from . import lr_scheduler as lr_scheduler
from .optimizer import Optimizer as Optimizer
from .sgd import SGD as SGD
