"""Layers, and the Module that they are made of."""

from . import functional as functional
from . import init as init
from .containers import Sequential as Sequential
from .conv import Conv2d as Conv2d
from .elementwise import ReLU as ReLU
from .linear import Linear as Linear
from .loss import CrossEntropyLoss as CrossEntropyLoss
from .loss import LogSoftmax as LogSoftmax
from .loss import NLLLoss as NLLLoss
from .loss import Softmax as Softmax
from .module import Buffer as Buffer
from .module import Module as Module
from .module import Parameter as Parameter
from .norm import BatchNorm2d as BatchNorm2d
from .pool import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from .pool import AvgPool2d as AvgPool2d
from .pool import MaxPool2d as MaxPool2d
from .shape import Flatten as Flatten
