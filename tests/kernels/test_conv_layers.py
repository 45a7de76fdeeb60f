"""Every variant of convolution in float32, at each layer of ResNet-18 and ResNet-50, beside float64."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.layers import walk
from tests.helpers import f32_errors
from tests.kernels.convolutions import KERNELS, Convolution

# (model, rows of its images) -> images at a time
BATCHES = {("resnet18", 32): 2, ("resnet50", 224): 1}
LAYERS = {
    f"{model}-{layer.names[0]}": Convolution(layer.x_shape(batch), layer.w_shape, layer.geometry)
    for (model, size), batch in BATCHES.items()
    for layer in walk(model, size)
}

# At these batches the weight's gradient has the longest sums that are not cut anyway.
LONG_SUMS = {
    f"{name}, batch {batch}": replace(LAYERS[name], x=(batch, *LAYERS[name].x[1:]))
    for name, batch in (("resnet18-conv1", 8), ("resnet50-layer2.1.conv2", 4), ("resnet50-layer3.1.conv2", 16))
}
ALL = LAYERS | LONG_SUMS


def test_all_layers_are_walked() -> None:
    """Stem and stages: 1 + 1 + 3*3; and 1 + 4 + 3*6, whose first stage has a projection of stride 1."""
    counts = [sum(name.startswith(model) for name in LAYERS) for model, _ in BATCHES]
    assert counts == [11, 23]


@pytest.mark.parametrize("shift", [None, 3.0], ids=["relu", "mean 3"])
@pytest.mark.parametrize("layer", ALL)
def test_within_the_stated_error(layer: str, shift: float | None) -> None:
    convolution = ALL[layer]
    arrays = convolution.draw("float32", shift)
    rights = {kernel: convolution.right(kernel, arrays) for kernel in KERNELS}
    bad = []
    for call in convolution.calls(arrays):
        result = call()
        assert result.dtype == "float32", call.name
        largest, rms = f32_errors(result, rights[call.kernel])
        if not (largest <= call.stated.f32_max and rms <= call.stated.f32_rms):
            bad.append(f"{call.name}: {largest:.1e} / {rms:.1e}")
    assert not bad
