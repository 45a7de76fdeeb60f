"""Layers, and the Module that they are made of."""

from . import functional as functional
from . import init as init
from .layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from .layers import AvgPool2d as AvgPool2d
from .layers import BatchNorm2d as BatchNorm2d
from .layers import Conv2d as Conv2d
from .layers import CrossEntropyLoss as CrossEntropyLoss
from .layers import Flatten as Flatten
from .layers import Linear as Linear
from .layers import LogSoftmax as LogSoftmax
from .layers import MaxPool2d as MaxPool2d
from .layers import NLLLoss as NLLLoss
from .layers import ReLU as ReLU
from .layers import Sequential as Sequential
from .layers import Softmax as Softmax
from .module import Buffer as Buffer
from .module import Module as Module
from .module import Parameter as Parameter
