"""What minires raises. Each error is also the built-in that a PyTorch user would catch."""


class MiniresError(Exception):
    """Base of every error that minires raises on purpose."""


class ShapeError(MiniresError, ValueError, RuntimeError):
    """Shapes do not fit each other or the op."""


class DTypeError(MiniresError, TypeError, RuntimeError):
    """An element type that the op does not take."""


class RangeError(MiniresError, IndexError):
    """An index, a dimension or a class label outside its range."""


class ArgumentError(MiniresError, ValueError):
    """An argument that is not one of the admitted values."""


class GraphError(MiniresError, RuntimeError):
    """Backward cannot go on: no graph, a used graph, overwritten arrays, a NaN."""


class CheckpointError(MiniresError, RuntimeError):
    """A checkpoint or state dict that is damaged, or of another model."""


class DataError(MiniresError, RuntimeError):
    """Data files that are missing, damaged or not what they should be."""


class DeviceError(MiniresError, RuntimeError):
    """A device that is not there, or arrays of two devices in one op."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device, or the machine, has no memory left for what an op makes."""


class DivergedError(MiniresError, RuntimeError):
    """A training whose loss is no finite number any more."""
