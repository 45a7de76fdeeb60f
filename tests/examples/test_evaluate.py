"""evaluate.py on checkpoints, on weights from elsewhere, and on a published net, whose score is known."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from minires import Tensor, data, models, weights
from minires.errors import ArgumentError, CheckpointError
from minires.nn import functional as F
from tests.examples.running import EXAMPLES, log, only_run, run

PUBLISHED = "resnet20-12fca82f.th"  # github.com/akamaster/pytorch_resnet_cifar10: 91.73 % of the test images


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Run evaluate.py in this process: the lines that it printed."""

    def evaluate(*arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / "evaluate.py"))["main"]()
        return capsys.readouterr().out.splitlines()

    return evaluate


@pytest.fixture
def net(rng, tmp_path) -> tuple[models.ResNet, Path]:
    """A net and the file of its weights."""
    net = models.build("resnet20", num_classes=7, shortcut="B", generator=rng)
    weights.save(tmp_path / "net.pth", net)
    return net, tmp_path / "net.pth"


def test_checkpoint_scores_what_its_training_said(begun, pictures, evaluate):
    (record,) = log(only_run(begun))
    header, images, score = evaluate(only_run(begun) / "last.safetensors", "--data-path", pictures)
    assert "| resnet18 11.17M params |" in header
    assert header.endswith("| data unrecognised CIFAR-10 files (10 images)")
    assert images.endswith("normalized by mean 0.4914 0.4822 0.4465, std 0.2023 0.1994 0.201")
    found = re.fullmatch(r"Test: Acc@1 (\S+) Acc@5 \S+ loss (\S+) \((\d+) of 10 right\)", score)
    assert found
    assert float(found[1]) == record["test_acc"] == 10 * int(found[3])
    assert float(found[2]) == pytest.approx(record["test_loss"], rel=1e-4)  # there with Winograd's convolutions
    *_, train = evaluate(only_run(begun) / "last.safetensors", "--data-path", pictures, "--split", "train")
    assert re.fullmatch(r"Train: Acc@1 .* of 20 right\)", train)
    *_, few = evaluate(only_run(begun) / "last.safetensors", "--data-path", pictures, "--limit-test", 3)
    assert few.endswith(" of 3 right)")


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_weights_and_images_from_elsewhere(net, evaluate, rng, tmp_path, layout):
    model, path = net
    images, labels = rng.integers(0, 256, (12, 32, 32, 3), np.uint8), rng.integers(0, 6, 12)
    stored = images.transpose(0, 3, 1, 2) if layout == "NCHW" else images
    np.savez(tmp_path / "own.npz", images=stored, labels=labels)
    arguments = ["--arch", "resnet20", "--shortcut", "B", "--num-classes", 7, "--normalization", "imagenet"]
    of_npz = ["--npz", tmp_path / "own.npz", "--layout", layout, "--split", ""]
    *_, score = evaluate(path, *arguments, *of_npz, "-b", 5)
    x = ((images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
    model.eval()
    logits = model(Tensor(x))
    ranks, loss = np.argsort(-logits.data, axis=1), F.cross_entropy(logits, Tensor(labels)).item()
    first, five = (ranks[:, 0] == labels).mean(), (ranks[:, :5] == labels[:, None]).any(1).mean()
    assert score.startswith(f"All: Acc@1 {100 * first:.2f} Acc@5 {100 * five:.2f} loss ")
    assert float(score.split()[6]) == pytest.approx(loss, abs=1e-3)
    assert score.endswith(f"({round(12 * first)} of 12 right)")


def test_few_classes_have_no_top_five(evaluate, rng, tmp_path):
    weights.save(tmp_path / "net.pth", models.build("resnet20", num_classes=3, generator=rng))
    np.savez(tmp_path / "own.npz", test_images=np.zeros((3, 8, 8, 3), np.uint8), test_labels=np.arange(3))
    arguments = ["--arch", "resnet20", "--normalization", "cifar10", "--npz", tmp_path / "own.npz"]
    *_, score = evaluate(tmp_path / "net.pth", *arguments)
    assert re.fullmatch(r"Test: Acc@1 33\.33 loss \S+ \(1 of 3 right\)", score)


def test_what_is_not_named_is_refused(net, evaluate):
    path = net[1]
    hint = "weights from elsewhere want the name of their net: --arch"
    with pytest.raises(
        CheckpointError, match=rf"^{re.escape(str(path))} is no checkpoint of train_cifar10.py; {hint}$"
    ):
        evaluate(path)
    weights.save(path.with_suffix(".safetensors"), net[0])
    with pytest.raises(CheckpointError, match=rf"no checkpoint of minires; {hint}$"):
        evaluate(path.with_suffix(".safetensors"))
    with pytest.raises(ArgumentError, match=r"--arch: also say by --normalization"):
        evaluate(path, "--arch", "resnet20")


@pytest.mark.parametrize("name", ["absent.th", "absent.safetensors"])
def test_what_is_not_there_is_said_to_be_not_there(evaluate, tmp_path, name):
    path = tmp_path / name
    with pytest.raises(CheckpointError, match=rf"^no checkpoint at {re.escape(str(path))}$"):
        evaluate(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", ""], r'--split "" is for --npz'),
        (["--num-classes", 7], r"--num-classes is for --npz"),
        (["--shortcut", "B", "--stem", "imagenet"], r"--shortcut, --stem: for weights from elsewhere, with --arch"),
        (["--npz", "x.npz", "--num-classes", 7], r"--num-classes: for weights from elsewhere"),
    ],
    ids=["split", "classes of a data set", "settings", "classes of a checkpoint"],
)
def test_options_that_would_do_nothing_are_refused(begun, pictures, evaluate, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(only_run(begun) / "last.safetensors", "--data-path", pictures, *arguments)


@pytest.fixture(scope="module")
def published() -> Path:
    """The published weights. The test is skipped where MINIRES_WEIGHTS does not name their folder."""
    folder = os.environ.get("MINIRES_WEIGHTS")
    if not folder or not (Path(folder) / PUBLISHED).is_file():
        pytest.skip(f"published weights needed: set MINIRES_WEIGHTS to the folder of {PUBLISHED}")
    return Path(folder) / PUBLISHED


def score_of(published: Path, *arguments: object) -> str:
    """The last line on the published net."""
    common = [published, "--arch", "resnet20", "--normalization", "imagenet"]
    process = run("evaluate.py", *common, *arguments, cwd=published.parent)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()[-1]


def test_published_net_on_lossless_images(published):
    lossless = Path(os.environ.get("MINIRES_DATA", "")) / "lossless.npz"
    if not lossless.is_file():
        pytest.skip("lossless.npz needed: set MINIRES_DATA to its folder")
    score = score_of(published, "--npz", lossless, "--layout", "NCHW")
    assert re.fullmatch(r"Test: Acc@1 91\.64 Acc@5 99\.\d\d loss 0\.37\d\d \(932 of 1,017 right\)", score)


def test_published_net_on_the_test_images(published, cifar10_root):
    score = score_of(published, "--data-path", cifar10_root)
    right = re.search(r"\(([\d,]+) of 10,000 right\)", score)
    assert right
    # of the images as published, 91.73 %; as JPEG, which costs it ten points, and whose decoders differ by a bit
    jpeg = data.CIFAR10(cifar10_root, train=False).name == "CIFAR-10 (JPEG q75)"
    assert int(right[1].replace(",", "")) == pytest.approx(8103 if jpeg else 9173, abs=3)
