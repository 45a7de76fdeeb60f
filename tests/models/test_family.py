"""All nets: published parameters and MACs, and logits and gradients of the same nets in torchvision or PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, models, nn, no_grad
from minires.errors import ArgumentError
from minires.nn import functional as F
from minires.summary import summarize
from tests.models.twins import Keras, Net
from tests.oracle import hwio, nchw, torch, torchvision

IMAGENET = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
IMAGENET |= {"resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
CIFAR = {"20": 3, "32": 5, "44": 7, "56": 9, "110": 18}
# with option A: the paper's 0.27, 0.46, 0.66, 0.85, 1.7 and 19.4 million (table 6), to the last one
PUBLISHED = {"20": 269_722, "32": 464_154, "44": 658_586, "56": 853_018, "110": 1_727_962}


def parameters(net: Any) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", IMAGENET)
def test_parameters_and_macs_are_torchvisions(name: str) -> None:
    """Its `_ops` are billions of multiply-adds for one image, rounded to three decimals."""
    weights = torchvision().models.get_model_weights(name).IMAGENET1K_V1
    net = models.build(name)
    assert parameters(net) == weights.meta["num_params"]
    assert round(summarize(net, (224, 224, 3)).macs / 1e9, 3) == weights.meta["_ops"]


@pytest.mark.parametrize("depth", CIFAR)
def test_parameters_of_the_cifar_nets(depth: str) -> None:
    for kind in ("resnet", "plain", "preact_resnet"):
        assert parameters(models.build(kind + depth)) == PUBLISHED[depth]
    layers = [m for m in models.build(f"plain{depth}").modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == int(depth)


@pytest.mark.parametrize(
    ("name", "settings", "size", "millions"),
    [
        ("resnet20", {"shortcut": "B"}, 32, 40.8),  # of published CIFAR nets, which have projections
        ("resnet32", {"shortcut": "B"}, 32, 69.1),
        ("resnet44", {"shortcut": "B"}, 32, 97.4),
        ("resnet56", {"shortcut": "B"}, 32, 125.8),
        ("resnet18", {"stem": "cifar", "num_classes": 10}, 32, 555.4),
    ],
)
def test_macs_on_small_images(name: str, settings: dict[str, Any], size: int, millions: float) -> None:
    macs = summarize(models.build(name, **settings), (size, size, 3)).macs / 1e6
    assert macs == pytest.approx(millions, abs=0.06)  # published with one decimal, of which one was rounded up


def test_parameters_of_the_deepest() -> None:
    """19.4 million (2015, table 6); 1.7 and 10.2 million (2016, table 3, of 164 and 1001 layers; ours are 10.3)."""
    assert parameters(models.build("resnet1202")) == 19_421_274
    assert round(parameters(models.build("preact_resnet164")) / 1e6, 1) == 1.7
    assert round(parameters(models.build("preact_resnet1001")) / 1e6, 1) == 10.3
    for name, layers in (("resnet1202", 1202), ("preact_resnet164", 164), ("preact_resnet1001", 1001)):
        found = [n for n, m in models.build(name).named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        assert len([n for n in found if "downsample" not in n]) == layers


LIMIT, ABSOLUTE = 1e-10, 1e-12


def assert_equal(ours: Any, theirs: Any, images: np.ndarray, classes: int) -> None:
    """Logits in training and evaluation, and all gradients, within LIMIT of each tensor's largest entry.

    Where the last is nearly nothing the absolute limit holds: batch norm takes out a shift by the bias of an earlier
    one, if a ReLU between them lets all of a channel pass.
    """
    labels = np.random.default_rng(1).integers(0, classes, len(images))
    x, their_x = Tensor(images, requires_grad=True), nchw(images).requires_grad_()
    logits, expected = ours(x), theirs(their_x)
    F.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
    pairs = {"logits": (logits.data, expected.detach().numpy())}
    pairs["images"] = x.grad.data, their_x.grad.permute(0, 2, 3, 1).numpy()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    own = dict(ours.named_parameters())
    assert own.keys() == gradients.keys()
    for name, p in own.items():
        expected = gradients[name]
        pairs[name] = p.grad.data, hwio(expected) if expected.ndim == 4 else expected.numpy()
    ours.eval(), theirs.eval()
    with no_grad(), torch.no_grad():
        pairs["evaluation"] = ours(Tensor(images)).data, theirs(nchw(images)).numpy()
    errors = {name: abs(a - b).max() / (abs(b).max() + ABSOLUTE / LIMIT) for name, (a, b) in pairs.items()}
    worst = max(errors, key=errors.__getitem__)
    print(f"worst of {len(errors)}: {errors[worst]:.1e}, {worst}")
    assert all(error <= LIMIT for error in errors.values()), worst  # so that a NaN fails


def like(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Both in float64, with the weights of theirs: random ones, those of batch norm and all biases too."""
    with torch.no_grad():
        for p in theirs.parameters():
            if p.ndim == 1:
                p.uniform_(0.5, 1.5)
    ours.to("float64").load_state_dict(theirs.double().state_dict(), layout="OIHW")
    return ours, theirs


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_nets_are_torchvisions(name: str, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision().models, name)(num_classes=7)
    ours = models.build(name, num_classes=7)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_equal(*like(theirs, ours), rng.standard_normal((2, 64, 48, 3)), 7)


def test_the_papers_bottleneck_has_its_stride_in_the_first_convolution(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    theirs = torchvision().models.resnet50(num_classes=7)
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert_equal(
        *like(theirs, models.build("resnet50", num_classes=7, stride_in_1x1=True)),
        rng.standard_normal((3, 64, 48, 3)),
        7,
    )


@pytest.mark.parametrize("kind", ["resnet", "plain", "preact_resnet"])
@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_nets_are_their_twins(kind: str, depth: str, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    shortcut = None if kind == "plain" else "A"
    theirs = Net((CIFAR[depth],) * 3, (16, 32, 64), 10, preact=kind == "preact_resnet", shortcut=shortcut)
    assert_equal(*like(theirs, models.build(kind + depth)), rng.standard_normal((4, 16, 12, 3)), 10)


@pytest.mark.parametrize(
    ("name", "twin", "settings"),
    [
        ("resnet20", {}, {"shortcut": "B"}),
        ("resnet20", {}, {"shortcut": "C"}),
        ("resnet20", {}, {"shortcut": "maxpool"}),
        ("resnet20", {}, {"shortcut": "A", "batch_norm": False}),
        ("resnet20", {}, {"shortcut": "maxpool", "batch_norm": False}),
        ("plain20", {"shortcut": None}, {"batch_norm": False}),
        ("preact_resnet20", {"preact": True}, {"shortcut": "C"}),
        ("preact_resnet20", {"preact": True}, {"shortcut": "B", "batch_norm": False}),
        ("preact_resnet164", {"preact": True, "bottleneck": True}, {"shortcut": "B"}),
        ("preact_resnet164", {"preact": True, "bottleneck": True}, {"shortcut": "A"}),
        ("plain18", {"shortcut": None}, {"stem": "imagenet"}),
        ("resnet18", {}, {"shortcut": "A", "stem": "imagenet"}),
        ("resnet50", {"bottleneck": True}, {"shortcut": "A", "stem": "cifar"}),
        ("preact_resnet18", {"preact": True}, {"stem": "imagenet", "shortcut": "B"}),
        ("preact_resnet50", {"preact": True, "bottleneck": True}, {"stem": "imagenet", "shortcut": "B"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "as-is",
)
def test_settings_are_their_twins(
    name: str, twin: dict[str, Any], settings: dict[str, Any], rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    ours = models.build(name, num_classes=10, **settings)
    layers = tuple(len(getattr(ours, stage)) for stage in ours.stages)
    widths = (16, 32, 64) if len(layers) == 3 else (64, 128, 256, 512)
    images = rng.standard_normal((3, *((64, 48) if settings.get("stem") == "imagenet" else (16, 12)), 3))
    assert_equal(*like(Net(layers, widths, 10, **twin, **settings), ours), images, 10)


@pytest.mark.parametrize("corrected", [False, True])
def test_the_keras_net_is_its_twin(corrected: bool, rng: np.random.Generator) -> None:
    """Padding "same" on sizes that do not halve evenly, softmax on demand."""
    name = "keras_resnet34_corrected" if corrected else "keras_resnet34"
    ours = models.build(name, num_classes=6, generator=rng).to("float64")
    for p in ours.parameters():
        if p.ndim == 1:
            p.data = rng.uniform(0.1, 0.5, p.shape)
    images, labels = rng.standard_normal((3, 75, 58, 3)), np.array([0, 5, 2])
    weights = {k: torch.from_numpy(v.numpy().copy()) for k, v in ours.state_dict("OIHW").items()}
    own = dict(ours.named_parameters())
    for training in (True, False):
        leaves = {k: v.clone().requires_grad_(k in own) for k, v in weights.items()}
        expected = Keras(leaves, corrected, training)(nchw(images))
        torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
        for module in ours.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean[...], module.running_var[...] = 0.0, 1.0
        logits = ours.train(training)(images)
        ours.zero_grad()
        F.cross_entropy(logits, labels).backward()
        np.testing.assert_allclose(
            logits.data, expected.detach().numpy(), rtol=0, atol=1e-10 * abs(expected).max().item()
        )
        for key, p in own.items():
            want = leaves[key].grad
            want = hwio(want) if want.ndim == 4 else want.numpy()
            assert abs(p.grad.data - want).max() <= 1e-10 * abs(want).max(), key
    ours.softmax = True
    with no_grad():
        np.testing.assert_allclose(ours(images).data, torch.softmax(expected, 1).detach().numpy(), atol=1e-12)


def test_ten_units_of_the_keras_net_see_one_pixel() -> None:
    """As published on 224x224 images; not so where it is corrected."""
    published = summarize(models.build("keras_resnet34"), (224, 224, 3))
    units = {layer.name.split(".")[1] for layer in published.layers if layer.wasted and "units" in layer.name}
    assert units == {"5", *map(str, range(6, 16))}  # of unit 5 only the second convolution
    assert "224x224 images are 1x1 before units.5.conv2" in published.warnings[0]
    assert not summarize(models.build("keras_resnet34_corrected"), (224, 224, 3)).warnings


def test_a_zero_last_gamma_makes_each_block_its_shortcut(rng: np.random.Generator) -> None:
    for name, last in (("resnet20", "bn2"), ("resnet50", "bn3")):
        net = models.build(name, num_classes=3, stem="cifar", zero_init_residual=True, generator=rng)
        zero = [n for n, p in net.named_parameters() if p.ndim == 1 and n.endswith(".weight") and not p.data.any()]
        assert zero == [f"{n}.{last}.weight" for n, m in net.named_modules() if isinstance(m, models.Block)]
        block = net.layer1[1]
        x = Tensor(abs(rng.standard_normal((2, 5, 4, block.bn1.num_features * block.expansion)).astype(np.float32)))
        assert (block(x).data == x.data).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.build("resnet19"), r"unknown model 'resnet19' \(nearest: 'resnet"),
        (lambda: models.build("resnet20", shortcut="D"), "shortcut must be 'A', 'B', 'C' or 'maxpool', or None"),
        (lambda: models.build("plain20", shortcut="B"), "plain20 has no shortcuts"),
        (lambda: models.build("resnet20", depth=3), "resnet20: .*unexpected keyword argument 'depth'"),
        (lambda: models.build("resnet20", stride_in_1x1=True), "stride_in_1x1 is for bottlenecks, BasicBlock"),
        (lambda: models.build("plain20", zero_init_residual=True), "zero_init_residual is for blocks of version 1"),
        (lambda: models.build("preact_resnet20", zero_init_residual=True), "zero_init_residual is for"),
        (lambda: models.build("resnet20", zero_init_residual=True, batch_norm=False), "zero_init_residual is for"),
        (lambda: models.ResNet((1, 0), 10), r"every stage has at least one block, but layers=\(1, 0\)"),
        (lambda: models.ResNet((1, 1), 10, widths=(8, 4), shortcut="A"), "shortcut 'A' adds channels of zeros"),
        (lambda: models.build("keras_resnet34", corrected=True), "unexpected keyword argument 'corrected'"),
        (lambda: models.build("keras_resnet34", stem="mnist"), "stem must be 'cifar' or 'imagenet', not 'mnist'"),
    ],
)
def test_settings_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_builders_are_public_names_that_say_what_they_make() -> None:
    for name, builder in models.BUILDERS.items():
        assert getattr(models, name) is builder
        assert name == builder.__name__
        assert builder.__doc__
