"""PyTorch on the GPU: cuDNN's convolutions, a residual net with minires's weights, its profiler."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import Contender
from benchmarks.steps import SGD
from minires.kernels import ConvGeometry

DEVICE = "cuda"


@functools.cache
def find() -> tuple[Any, str]:
    """torch, or None and the reason."""
    try:
        import torch
    except Exception as error:  # a broken installation raises whatever its loader does
        return None, f"PyTorch does not import: {error}"
    if not torch.cuda.is_available():
        return None, f"PyTorch {torch.__version__} has no CUDA here"
    torch.backends.cudnn.benchmark = True  # its fastest algorithm for each shape
    return torch, ""


def set_tf32(torch: Any, on: bool) -> None:
    """For convolutions and products alike; it holds for the whole process, so each call sets it."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on


def from_gpu(torch: Any, array: Any) -> Any:
    """An array of CuPy's as a tensor of the same memory. Both libraries queue on the default stream."""
    return torch.from_dlpack(array)


def convolution(
    torch: Any, what: str, x: np.ndarray, w: np.ndarray, gy: np.ndarray, geometry: ConvGeometry, tf32: bool
) -> Callable[[], Any]:
    """cuDNN's, channels-last, or its gradient with respect to x or w alone."""
    last = torch.channels_last

    def tensor(array: np.ndarray, *axes: int) -> Any:
        moved = torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))
        return moved.to(DEVICE).contiguous(memory_format=last)

    x2, gy2, w2 = tensor(x, 0, 3, 1, 2), tensor(gy, 0, 3, 1, 2), tensor(w, 3, 2, 0, 1)
    settings = list(geometry.stride), list(geometry.padding[::2]), list(geometry.dilation)
    mask = [what == "gx", what == "gw", False]

    def call() -> Any:
        set_tf32(torch, tf32)
        if what == "fwd":
            return torch.nn.functional.conv2d(x2, w2, None, *settings)
        return torch.ops.aten.convolution_backward(gy2, x2, w2, None, *settings, False, [0, 0], 1, mask)

    return call


def contender(torch: Any, what: str, operands: Sequence[Any], tf32: bool, bound: Any) -> Contender:
    """The same, with its results as minires's arrays."""

    def arrays(result: Any) -> list[np.ndarray]:
        tensor = result if what == "fwd" else result[what == "gw"]
        return [tensor.permute(*((2, 3, 1, 0) if what == "gw" else (0, 2, 3, 1))).cpu().numpy()]

    return Contender(convolution(torch, what, *operands, tf32), arrays, bound=bound)


def network(torch: Any, layers: Sequence[int], widths: Sequence[int], classes: int = 10) -> Any:
    """A ResNet of basic blocks with the stem for small images, its parts named as torchvision names them."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, i: int, o: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
            self.relu, self.downsample = nn.ReLU(inplace=True), None
            if stride != 1 or i != o:
                self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            y += x if self.downsample is None else self.downsample(x)
            return self.relu(y)

    first = widths[0]
    stem = nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
    parts = OrderedDict(zip(("conv1", "bn1", "relu"), stem, strict=True))
    for stage, (count, i, o) in enumerate(zip(layers, (first, *widths), widths, strict=False), start=1):
        blocks = [Block(o if j else i, o, 1 if j or stage == 1 else 2) for j in range(count)]
        parts[f"layer{stage}"] = nn.Sequential(*blocks)
    last = widths[len(layers) - 1]
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(last, classes)}
    return nn.Sequential(parts)


class Trainer:
    """PyTorch's training step at one setting, on images (N, H, W, C) and labels of CuPy's."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        state: Mapping[str, np.ndarray],
        tf32: bool = False,
        layout: str = "contiguous_format",
        bf16: bool = False,
        compiled: bool = False,
        dtype: str = "float32",
    ) -> None:
        self.torch, self.tf32, self.bf16, self.dtype = torch, tf32, bf16, getattr(torch, dtype)
        self.layout = getattr(torch, layout)
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
        self.model = model.to(DEVICE, self.dtype, memory_format=self.layout)
        self.call = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), **SGD, fused=True)

    def images(self, images: Any) -> Any:
        """As a tensor (N, C, H, W) of its own layout and type."""
        nchw = from_gpu(self.torch, images).permute(0, 3, 1, 2)
        return nchw.to(self.dtype).contiguous(memory_format=self.layout)

    def backward(self, images: Any, labels: Any) -> Any:
        """The loss, with gradients made anew."""
        set_tf32(self.torch, self.tf32)
        self.model.train()
        with self.torch.autocast(DEVICE, self.torch.bfloat16, enabled=self.bf16):
            logits = self.call(self.images(images))
            loss = self.torch.nn.functional.cross_entropy(logits, from_gpu(self.torch, labels))
        self.optimizer.zero_grad()
        loss.backward()
        return loss

    def step(self, images: Any, labels: Any) -> Any:
        """One step; the loss before it, which nobody waits for."""
        loss = self.backward(images, labels)
        self.optimizer.step()
        return loss.detach()

    def gradients(self) -> dict[str, np.ndarray]:
        """What `backward` left, on the CPU."""
        return {name: p.grad.double().cpu().numpy() for name, p in self.model.named_parameters()}

    def accuracy(self, batches: Any) -> float:
        """The share of right answers in percent."""
        set_tf32(self.torch, self.tf32)
        self.model.eval()
        right = total = 0
        with self.torch.no_grad():
            for images, labels in batches:
                found = self.model(self.images(images.data)).argmax(dim=1)
                right, total = right + (found == from_gpu(self.torch, labels.data)).sum(), total + len(labels)
        return 100 * float(right) / total


def memory(torch: Any, most: bool) -> int:
    """Bytes that its pool took from the device, as minires's are counted: now, or the most since then."""
    if most:
        return torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_reserved()


def profile(torch: Any, call: Callable[[], Any], wait: Callable[[], None]) -> tuple[int, float]:
    """How many kernels and copies a call queues on the device, of whatever library, and the seconds that these run."""
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        wait()
    events = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(events), 1e-6 * sum(e.time_range.elapsed_us() for e in events)
