"""Time a whole training step (forward, loss, backward, SGD) beside PyTorch's, in both of its memory layouts.

    python -m benchmarks.bench_step --model resnet18 --batch 128

All start from the same weights. Before anything is timed, one step of both must agree in float64. Needs torch==2.13.0.
"""

import argparse
import copy
import functools
import sys

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.timing import interleaved, spread
from minires import Tensor, environment, models, optim, training
from minires.errors import ArgumentError
from minires.nn import functional as F

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    parser.add_argument(
        "--model", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)"
    )
    parser.add_argument("--batch", type=training.positive, default=128, help="images a step (default %(default)s)")
    parser.add_argument(
        "--rounds", type=training.positive, default=5, help="timed steps of each contender (default %(default)s)"
    )
    parser.add_argument(
        "--threads", type=training.positive, help="threads for BLAS and for PyTorch (default: all cores)"
    )
    return parser.parse_args()


class Minires:
    """A training step of minires."""

    def __init__(self, model: models.ResNet, images: np.ndarray, labels: np.ndarray) -> None:
        self.model, self.images, self.labels = model, Tensor(images), labels
        self.optimizer = optim.SGD(model.parameters(), **SGD)

    def __call__(self) -> float:
        loss = F.cross_entropy(self.model(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def weights(self) -> dict[str, np.ndarray]:
        """All parameters, in PyTorch's layout."""
        trained = {name for name, _ in self.model.named_parameters()}
        return {name: t.numpy() for name, t in self.model.state_dict("OIHW").items() if name in trained}


class PyTorch:
    """The same step of PyTorch: torchvision's net, with the 3x3 stem for small images."""

    def __init__(
        self, name: str, model: models.ResNet, images: np.ndarray, labels: np.ndarray, channels_last: bool
    ) -> None:
        torch, torchvision, _ = import_torch()
        self.functional = torch.nn.functional
        self.model = getattr(torchvision.models, name)(num_classes=10)
        self.model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.model.maxpool = torch.nn.Identity()
        arrays = {key: np.array(value.numpy()) for key, value in model.state_dict("OIHW").items()}
        self.model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = self.model.to(memory_format=layout, dtype=getattr(torch, images.dtype.name))
        nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        self.images, self.labels = torch.from_numpy(nchw).to(memory_format=layout), torch.from_numpy(labels)
        self.optimizer = torch.optim.SGD(self.model.parameters(), **SGD)

    def __call__(self) -> float:
        loss = self.functional.cross_entropy(self.model(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def weights(self) -> dict[str, np.ndarray]:
        """All parameters."""
        return {name: p.detach().numpy() for name, p in self.model.named_parameters()}


@functools.cache
def import_torch():
    """torch, torchvision, and declarations of torchvision's compiled ops, which cannot load beside a CPU-only torch."""
    try:
        import torch

        library = torch.library.Library("torchvision", "DEF")  # its declarations live as long as it does
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError as error:
        raise ArgumentError(f"{error}: pip install torch==2.13.0 torchvision==0.28.0") from None
    return torch, torchvision, library


def check(name: str, model: models.ResNet, images: np.ndarray, labels: np.ndarray) -> None:
    """Both take one step in float64, from the same weights: the loss and every weight's change must agree to 1e-9.

    In float64, since a ReLU input near 0 that rounds to the other side moves float32 gradients by up to a hundredth.
    """
    model = copy.deepcopy(model).to("float64")
    before = {key: array.copy() for key, array in Minires(model, images, labels).weights().items()}
    theirs = PyTorch(name, model, images.astype(np.float64), labels, channels_last=True)
    ours = Minires(model, images.astype(np.float64), labels)
    losses = ours(), theirs()
    worst = abs(losses[0] - losses[1]) / abs(losses[1])
    mine = ours.weights()
    for key, other in theirs.weights().items():
        worst = max(worst, float(np.abs(mine[key] - other).max() / np.abs(other - before[key]).max()))
    if not worst <= 1e-9:
        raise ArgumentError(f"one step from the same weights differs by {worst:.1e}, so nothing was timed")
    print(f"checked: one float64 step on {len(images)} images differs by at most {worst:.1e}, relative to the step")


def main() -> None:
    args = arguments()
    torch, *_ = import_torch()
    threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch, 32, 32, 3), dtype=np.float32)
    labels = rng.integers(0, 10, args.batch)
    with threadpool_limits(threads):
        torch_version = f"PyTorch {torch.__version__}, {threads} threads"
        print(environment.header(torch_version, environment.processor(), "precision exact"))
        model = models.build(args.model, num_classes=10, stem="cifar", generator=rng)
        check(args.model, model, images[:4], labels[:4])
        contenders = {
            "PyTorch NCHW": PyTorch(args.model, model, images, labels, channels_last=False),
            "PyTorch channels-last": PyTorch(args.model, model, images, labels, channels_last=True),
            "minires": Minires(model, images, labels),
        }
        times = interleaved(contenders, args.rounds)
    print(f"{args.model}, 32x32 images, batch {args.batch}, training step, median (least, greatest) of {args.rounds}:")
    for name, seconds in times.items():
        median, least, greatest = spread(seconds)
        print(f"  {name:<22} {args.batch / median:7.1f} images/s   {median:.3f} s ({least:.3f}, {greatest:.3f})")
    theirs = min(spread(times[name])[0] for name in times if name != "minires")
    print(f"  minires / the better of PyTorch's layouts: {theirs / spread(times['minires'])[0]:.2f}")


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
