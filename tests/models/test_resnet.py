"""ResNet-18 beside torchvision's: the same weights and batches give the same losses, gradients and statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Function, Tensor, models, nn, optim
from minires.errors import ArgumentError, ShapeError
from minires.nn import functional as F
from tests.oracle import hwio, nchw, torch, torchvision

SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 2e-4}  # at this rate rounding errors do not grow from step to step


def pair(stem: str, num_classes: int, seed: int) -> tuple[models.ResNet, Any]:
    """ResNet-18 in float64, and torchvision's with the same random weights."""
    torch.manual_seed(seed)
    theirs = torchvision().models.resnet18(num_classes=num_classes)
    if stem == "cifar":
        theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    ours = models.resnet18(num_classes, stem, np.random.default_rng(seed)).to("float64")
    ours.load_state_dict(theirs.double().state_dict(), layout="OIHW")
    return ours, theirs


def batch(rng: np.random.Generator, n: int, height: int, width: int, classes: int = 10) -> tuple[np.ndarray, ...]:
    return rng.standard_normal((n, height, width, 3)), rng.integers(0, classes, n)


def error(actual: Tensor, expected: Any) -> float:
    """The largest difference, beside the largest entry expected."""
    expected = hwio(expected) if expected.ndim == 4 else expected.detach().numpy()
    return float(abs(actual.data - expected).max() / max(abs(expected).max(), 1e-300))


def their_loss(net: Any, images: np.ndarray, labels: np.ndarray) -> Any:
    return torch.nn.functional.cross_entropy(net(nchw(images)), torch.from_numpy(labels))


@pytest.mark.parametrize("seed", range(3))
def test_ten_steps_equal_pytorchs(seed: int) -> None:
    """Every loss on the way, and in the end every parameter and running statistic."""
    ours, theirs = pair("cifar", 10, seed)
    rng = np.random.default_rng(seed)
    our_sgd, their_sgd = optim.SGD(ours.parameters(), **SGD), torch.optim.SGD(theirs.parameters(), **SGD)
    errors: dict[str, float] = {}
    for step in range(10):
        images, labels = batch(rng, 4, 32, 32)
        loss, expected = F.cross_entropy(ours(images), labels), their_loss(theirs, images, labels)
        errors[f"loss {step}"] = error(loss, expected)
        for sgd, value in ((our_sgd, loss), (their_sgd, expected)):
            sgd.zero_grad()
            value.backward()
            sgd.step()
    state, their_state = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(their_state)
    errors |= {name: error(state[name], value) for name, value in their_state.items()}
    worst = max(errors, key=errors.__getitem__)
    print(f"seed {seed}: worst of {len(errors)} values {errors[worst]:.1e}, {worst}")
    assert errors[worst] <= 1e-11


def first_step(net: models.ResNet, images: np.ndarray, labels: np.ndarray) -> tuple[float, list[Any], list[Any]]:
    """The loss, the gradients, and where each ReLU's output is positive."""
    masks: list[np.ndarray] = []
    relus = [m for name, m in net.named_modules() if name.endswith(("bn1", "bn2"))]  # each applies ReLU in its op
    handles = [m.register_forward_hook(lambda module, inputs, y: masks.append(y.data > 0)) for m in relus]
    loss = F.cross_entropy(net(images), labels)
    net.zero_grad()
    loss.backward()
    for handle in handles:
        handle.remove()
    assert len(masks) == 17
    return loss.item(), [p.grad.data for p in net.parameters()], masks


def test_the_first_step_in_float32() -> None:
    """Against float64: the loss, how many ReLUs switch, and, where none does, every gradient."""
    exact = models.resnet18(10, "cifar").to("float64")
    flips, loss_errors, gradient_errors = [], [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        net = models.resnet18(10, "cifar", rng)
        exact.load_state_dict(net.state_dict())
        images, labels = batch(rng, 4, 32, 32)
        images = images.astype(np.float32)
        loss, gradients, masks = first_step(net, images, labels)
        exact_loss, exact_gradients, exact_masks = first_step(exact, images.astype(np.float64), labels)
        assert sum(mask.size for mask in masks) == 4 * 557_056
        loss_errors.append(abs(loss - exact_loss) / exact_loss)
        flips.append(sum(int((a != b).sum()) for a, b in zip(masks, exact_masks, strict=True)))
        gradient_errors.append(
            max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(gradients, exact_gradients, strict=True))
        )
    calm = [e for e, n in zip(gradient_errors, flips, strict=True) if n == 0]
    print(f"ReLU signs that differ, by seed: {flips}; worst loss error {max(loss_errors):.1e}")
    print(f"worst relative L2 error of a gradient, by seed: {', '.join(f'{e:.1e}' for e in gradient_errors)}")
    assert max(loss_errors) <= 2e-6
    assert max(flips) <= 10
    assert len(calm) >= 2
    assert max(calm) <= 1e-5


@pytest.mark.parametrize(("n", "height", "width"), [(2, 64, 48), (3, 33, 64)])
def test_imagenet_stem_equals_torchvisions(n: int, height: int, width: int, rng: np.random.Generator) -> None:
    """Logits and all gradients, in training mode."""
    ours, theirs = pair("imagenet", 20, seed=0)
    images, labels = batch(rng, n, height, width, 20)
    x, their_x = Tensor(images, requires_grad=True), nchw(images).requires_grad_()
    logits, their_logits = ours(x), theirs(their_x)
    F.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(their_logits, torch.from_numpy(labels)).backward()
    their_gradient = their_x.grad.permute(0, 2, 3, 1).flatten()
    errors = {"logits": error(logits, their_logits), "images": error(x.grad.flatten(), their_gradient)}
    their_parameters = dict(theirs.named_parameters())
    errors |= {name: error(p.grad, their_parameters[name].grad) for name, p in ours.named_parameters()}
    worst = max(errors, key=errors.__getitem__)
    print(f"{n}x{height}x{width}: logits {errors['logits']:.1e}, worst {errors[worst]:.1e}, {worst}")
    assert len(errors) == 2 + 62
    assert errors[worst] <= 1e-10


def test_evaluation_equals_torchvisions(rng: np.random.Generator) -> None:
    ours, theirs = pair("imagenet", 20, seed=1)
    images, _ = batch(rng, 2, 48, 32)
    ours(images), theirs(nchw(images))
    assert error(ours.eval()(images), theirs.eval()(nchw(images))) <= 1e-11


@pytest.mark.parametrize(("stem", "num_classes", "count"), [("cifar", 10, 11_173_962), ("imagenet", 1000, 11_689_512)])
def test_keys_and_parameters(stem: str, num_classes: int, count: int) -> None:
    ours, theirs = pair(stem, num_classes, seed=0)
    assert sum(p.numel() for p in ours.parameters()) == count
    assert {k: tuple(v.shape) for k, v in theirs.state_dict().items()} == {
        k: v.shape for k, v in ours.state_dict("OIHW").items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


def test_initial_weights_are_torchvisions(rng: np.random.Generator) -> None:
    """He's normal with fan out, of deviation sqrt(2 / (KH*KW*O)): mean and deviation within five standard errors."""
    net = models.resnet18(10, "cifar", rng)
    for name, p in net.named_parameters():
        if p.ndim == 4:
            std = np.sqrt(2 / (p.shape[0] * p.shape[1] * p.shape[3]))
            assert abs(p.data.mean()) < 5 * std / np.sqrt(p.numel()), name
            assert p.data.std() == pytest.approx(std, rel=5 / np.sqrt(2 * p.numel())), name
    assert all((m.weight.data == 1).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    twin = models.resnet18(10, "cifar", np.random.default_rng(0))
    assert all((a.data == b.data).all() for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def arrays_of(node: Function | None) -> list[np.ndarray]:
    """Everything that the graph behind `node` saved."""
    found, stack, seen = [], [node], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Function) and id(node) not in seen:
            seen.add(id(node))
            found += [a for a in node.saved if isinstance(a, np.ndarray)]
            stack += [edge.source for edge in node.inputs if edge is not None]
    return found


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_float32_stays_float32(stem: str, rng: np.random.Generator) -> None:
    """In two steps of training: graph, gradients of results and parameters, momentum, statistics."""
    net = models.ResNet((1, 1), 10, stem, widths=(4, 8), generator=rng)
    sgd = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    results: list[Tensor] = []
    for module in net.modules():
        module.register_forward_hook(lambda module, inputs, y: (y.retain_grad(), results.append(y))[0])
    for _ in range(2):
        loss = F.cross_entropy(net(rng.standard_normal((4, 32, 24, 3)).astype(np.float32)), rng.integers(0, 10, 4))
        saved = [a.dtype for a in arrays_of(loss.node)]
        assert {d for d in saved if d.kind == "f"} == {np.dtype("float32")}
        assert len(saved) > 30
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    tensors = [*results, *(y.grad for y in results), *net.parameters(), *(p.grad for p in net.parameters())]
    tensors += [b for name, b in net.named_buffers() if "running" in name]
    arrays = [loss.data, *(t.data for t in tensors), *(s["momentum_buffer"] for s in sgd.state.values())]
    assert {a.dtype for a in arrays} == {np.dtype("float32")}
    assert len(results) == 2 * len(list(net.modules()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.build("resnet19"), "unknown model 'resnet19'.*resnet18"),
        (lambda: models.resnet18(stem="mnist"), "stem must be 'cifar' or 'imagenet', not 'mnist'"),
        (lambda: models.ResNet((), 10), r"0 stages"),
        (lambda: models.ResNet((1, 1, 1), 10, widths=(4, 8)), r"3 stages in layers=\(1, 1, 1\)"),
        (lambda: models.ResNet((1,), 0, widths=(4,)), "out_features must be an int of at least 1, not 0"),
    ],
)
def test_settings_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_build_passes_settings_on(rng: np.random.Generator) -> None:
    net = models.build("resnet18", num_classes=7, stem="cifar", generator=rng)
    assert net.fc.out_features == 7
    assert net.maxpool is None


def test_images_of_the_wrong_layout_are_refused(rng: np.random.Generator) -> None:
    net = models.ResNet((1,), 10, widths=(4,), generator=rng)
    with pytest.raises(ShapeError, match=r"looks like \(N, C, H, W\)"):
        net(np.zeros((2, 3, 32, 32), np.float32))
