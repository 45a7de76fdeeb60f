"""A training step and an inference, of minires and of PyTorch, on the same weights and images.

Each library is imported where it is used, so that a process that measures one of them holds nothing of the other.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
LAYOUTS = {"PyTorch NCHW": "contiguous_format", "PyTorch channels-last": "channels_last"}


class Minires:
    """minires at one setting of its precision."""

    def __init__(self, model: Any, images: np.ndarray, labels: np.ndarray, precision: str) -> None:
        from minires import Tensor, optim

        self.model, self.precision = model, precision
        self.images, self.labels = Tensor(images), labels
        self.optimizer = optim.SGD(self.model.parameters(), **SGD)

    def train(self) -> float:
        """One training step; the loss before it."""
        import minires
        from minires.nn import functional as F

        with minires.precision(self.precision):
            self.model.train()
            loss = F.cross_entropy(self.model(self.images), self.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return loss.item()

    def infer(self) -> np.ndarray:
        """Logits in evaluation mode."""
        import minires

        with minires.precision(self.precision), minires.no_grad():
            self.model.eval()
            return self.model(self.images).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all parameters, in PyTorch's layout."""
        trained = {name for name, _ in self.model.named_parameters()}
        return {name: np.array(t.numpy()) for name, t in self.model.state_dict("OIHW").items() if name in trained}


class PyTorch:
    """torchvision's net, with the 3x3 stem for small images. Without a state dict it draws weights of its own."""

    def __init__(
        self,
        name: str,
        state: Mapping[str, np.ndarray] | None,
        images: np.ndarray,
        labels: np.ndarray,
        layout: str = "contiguous_format",
        compiled: bool = False,
    ) -> None:
        self.torch, torchvision, _ = import_torch()
        build = getattr(torchvision.models, name, None)
        if build is None:
            from minires.errors import ArgumentError  # only now: this process is measured without minires

            raise ArgumentError(f"torchvision has no {name!r} to compare with; it has resnet18, 34, 50, 101 and 152")
        model = build(num_classes=10)
        model.conv1 = self.torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = self.torch.nn.Identity()
        if state is not None:
            model.load_state_dict({key: self.torch.from_numpy(np.array(array)) for key, array in state.items()})
        memory_format = getattr(self.torch, layout)
        self.model = model.to(memory_format=memory_format, dtype=getattr(self.torch, images.dtype.name))
        self.call = self.torch.compile(self.model, dynamic=False) if compiled else self.model
        nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        self.images = self.torch.from_numpy(nchw).to(memory_format=memory_format)
        self.labels = self.torch.from_numpy(labels)
        self.optimizer = self.torch.optim.SGD(self.model.parameters(), **SGD)

    def train(self) -> float:
        """One training step; the loss before it."""
        self.model.train()
        loss = self.torch.nn.functional.cross_entropy(self.call(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def infer(self) -> np.ndarray:
        """Logits in evaluation mode."""
        self.model.eval()
        with self.torch.no_grad():
            return self.call(self.images).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all parameters."""
        return {name: np.array(p.detach().numpy()) for name, p in self.model.named_parameters()}


@functools.cache
def import_torch():
    """torch, torchvision, and declarations of torchvision's compiled ops, which cannot load beside a CPU-only torch."""
    try:
        import torch

        library = None
        if torch.version.cuda is None:  # else they load, and declare themselves
            library = torch.library.Library("torchvision", "DEF")  # its declarations live as long as it does
            for op in ("nms", "qnms"):
                library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError as error:
        from minires.errors import ArgumentError

        raise ArgumentError(f"{error}: pip install torch==2.13.0 torchvision==0.28.0") from None
    return torch, torchvision, library


def set_threads(count: int) -> None:
    """As many threads for minires' kernels, for BLAS and for PyTorch, as far as they are loaded."""
    if "minires" in sys.modules:
        from minires import threads

        threads.set_num_threads(count)
    for library in _libraries():
        library.set_num_threads(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


@functools.cache
def _libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def random_batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 images (size, 32, 32, 3) and labels of 10 classes, always the same."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, 32, 32, 3), dtype=np.float32), rng.integers(0, 10, size)
