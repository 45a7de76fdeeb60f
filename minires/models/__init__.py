"""Residual networks."""

from .resnet import BUILDERS as BUILDERS
from .resnet import BasicBlock as BasicBlock
from .resnet import ResNet as ResNet
from .resnet import build as build
from .resnet import resnet18 as resnet18
