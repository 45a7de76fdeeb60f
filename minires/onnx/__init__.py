"""Models from and to ONNX files. Needs the package onnx: pip install 'minires[onnx]'."""

from .export import OPSET as OPSET
from .export import export as export
from .load import OnnxModel as OnnxModel
from .load import load as load
