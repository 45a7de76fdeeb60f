"""Recipes as train_cifar10.py trains by them: each file of examples/recipes, and runs that were broken off."""

from __future__ import annotations

import math
import re
import runpy
import sys
import tomllib

import numpy as np
import pytest

from minires import checkpoint, data, get_precision, plots, recipes, set_precision, training
from minires.errors import ArgumentError, CheckpointError
from tests.data import cifar_files
from tests.examples.running import EXAMPLES, SETTINGS, contents, log, trained_alike

RECIPES = sorted((EXAMPLES / "recipes").glob("*.toml"))
DEEP = "he2015_resnet1202"  # whose steps take seconds even so
# Each schedule, with the rates that epochs of four steps begin with.
SCHEDULES = {
    "cosine, warm-up": (
        ["--lr-scheduler", "cosineannealinglr", "--lr-warmup-epochs", "2", "--lr-warmup-method", "linear"],
        [0.001, 0.0505, 0.1, 0.05],
    ),
    "steps, warm-up, held out": (
        ["--milestones", "2", "--lr-warmup-epochs", "1", "--lr-warmup-decay", "0.1", "--val-split", "5"]
        + ["--shortcut", "B", "--zero-init-residual"],
        [0.01, 0.1, 0.01],
    ),
    "one cycle": (  # the top is at 0.3 * 12 - 1 steps; from there half a cosine down to the last, step 11
        ["--lr-scheduler", "onecyclelr", "--nesterov", "--label-smoothing", "0.1"],
        [0.1 / 25, *(0.05 * (1 + math.cos(math.pi * (step - 2.6) / 8.4)) for step in (4, 8))],
    ),
}


class BrokenOffError(Exception):
    """Stands for a power cut."""


@pytest.fixture
def train(monkeypatch, tmp_path, pictures):
    """Run train_cifar10.py in this process, in an empty folder; with `breaks` until its first epoch is saved."""
    monkeypatch.chdir(tmp_path)
    precision = get_precision()

    def train(*arguments: object, breaks: bool = False) -> None:
        def curves(*_: object) -> None:
            if breaks:
                raise BrokenOffError

        monkeypatch.setattr(plots, "curves", curves)
        given = ["--data-path", pictures, *arguments]
        monkeypatch.setattr(sys, "argv", ["train_cifar10.py", *SETTINGS, *map(str, given)])
        runpy.run_path(str(EXAMPLES / "train_cifar10.py"))["main"]()

    yield train
    set_precision(precision)


def test_there_are_recipes():
    assert {"blog_resnet18", "he2015_resnet20", "cosine_resnet18", "onecycle_resnet18"} <= {p.stem for p in RECIPES}


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem.startswith("he2015")], ids=lambda p: p.stem)
def test_the_papers_recipes_have_its_length(path):
    recipe = tomllib.loads(path.read_text())
    steps = math.ceil(50_000 / recipe["batch_size"])  # of an epoch of all images: its results hold none out
    assert "val_split" not in recipe
    assert [steps * n for n in (*recipe["milestones"], recipe["epochs"])] == pytest.approx([32e3, 48e3, 64e3], abs=130)
    deep = recipe["arch"] in ("resnet110", "resnet1202")
    assert steps * recipe.get("lr_warmup_epochs", 0) == pytest.approx(400 if deep else 0, abs=10)


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem == DEEP else ()) for path in RECIPES],
)
def test_dry_run_of_each_recipe(recipe, train, capsys, tmp_path):
    train("--config", recipe, "--dry-run", 0.001, "-b", 2, "--val-split", 5, "--limit-test", 2)
    header, step, run = capsys.readouterr().out.splitlines()  # and no line for any step
    parameters, layers = re.search(r"([\d,]+) parameters", recipe.read_text()), recipe.stem.split("_")[1]
    assert parameters
    assert f"| {layers} {int(parameters[1].replace(',', '')) / 1e6:.2f}M params |" in header
    assert re.fullmatch(r"A step of 2 images takes \S+ s \(\S+ images/s; median of 3\), a test batch \S+ s", step)
    epochs = re.search(r"^epochs = (\d+)", recipe.read_text(), re.MULTILINE)
    assert epochs
    assert re.fullmatch(rf"An epoch of 8 steps takes \S+, {epochs[1]} take .*\d:\d\d \(peak memory \S+ GB\)", run)
    assert contents(tmp_path) == {}


def test_dry_run_adds_up(train, capsys, monkeypatch, tmp_path):
    cifar_files.write(tmp_path, np.random.default_rng(0), train=20, test=110)
    monkeypatch.setattr(training.Stopwatch, "median", 7.0)
    arguments = ["--data-path", tmp_path, "--arch", "resnet20", "--dry-run", 0.001, "--val-split", 5, "--epochs", 10]
    train(*arguments)
    *_, step, run = capsys.readouterr().out.splitlines()
    assert step.startswith("A step of 5 images takes 7 s (0.7 images/s; ")
    # three steps and one batch of held-out images in an epoch, and two batches of test images at the end
    assert run.startswith("An epoch of 3 steps takes 0:00:28, 10 take 0:04:54 (")


def test_dry_run_of_a_resumed_run_counts_what_is_left(train, capsys, monkeypatch):
    monkeypatch.setattr(training.Stopwatch, "median", 7.0)
    common = ["--arch", "resnet20", "--output-dir", "run"]
    train(*common, "--epochs", 1)
    resumed = [*common[:2], "--resume", "run/last.safetensors", "--dry-run", 0.001]
    train(*resumed, "--epochs", 4)
    train(*resumed, "--epochs", 1)
    *_, run, _, nothing = capsys.readouterr().out.splitlines()
    assert run.startswith("An epoch of 4 steps takes 0:00:35, 3 more take 0:01:45 (")
    assert nothing == "Nothing to do: 1 epochs are done, --epochs is 1"


def test_settings_reach_the_training(train, tmp_path):
    common = ["--arch", "resnet20", "--epochs", 1, "--nesterov", "--momentum", 0.8, "--wd", 0.01, "--lr", 0.02]
    train(*common, "--output-dir", "hard")
    train(*common, "--output-dir", "smooth", "--label-smoothing", 0.5)
    (group,) = checkpoint.load(tmp_path / "hard/last.safetensors").optimizer["param_groups"]
    names = ["nesterov", "momentum", "weight_decay", "lr"]
    assert [group[name] for name in names] == [True, 0.8, 0.01, 0.02]
    (hard,), (smooth,) = log(tmp_path / "hard"), log(tmp_path / "smooth")
    assert hard["train_loss"] != smooth["train_loss"]


def test_defaults_are_the_blogs_recipe(train, tmp_path):
    train("--epochs", 1, "--output-dir", "default", "--arch", "resnet20")
    train(
        "--config", EXAMPLES / "recipes" / "blog_resnet18.toml", "--epochs", 1, "--output-dir", "blog", "-a", "resnet20"
    )
    assert (tmp_path / "default/config.toml").read_bytes() == (tmp_path / "blog/config.toml").read_bytes()
    assert trained_alike(tmp_path / "default", tmp_path / "blog")


@pytest.mark.parametrize(("arguments", "rates"), SCHEDULES.values(), ids=SCHEDULES)
def test_broken_off_and_resumed_is_straight(arguments, rates, train, tmp_path, capsys):
    common = ["--arch", "resnet20", "--epochs", len(rates), *arguments]
    train(*common, "--output-dir", "straight")
    with pytest.raises(BrokenOffError):
        train(*common, "--output-dir", "broken", breaks=True)
    assert len(log(tmp_path / "broken")) == 1
    train("--config", "broken/config.toml", "--resume", "broken/last.safetensors")
    assert "Resumed after epoch 1\n" in capsys.readouterr().out
    assert trained_alike(tmp_path / "straight", tmp_path / "broken")
    records = log(tmp_path / "straight")
    assert [record["lr"] for record in records] == pytest.approx(rates, rel=1e-4)
    model, saved = recipes.restore("straight/last.safetensors")  # the net with its settings, whatever they are
    assert model.state_dict().keys() == saved.model.keys()


def test_held_out_images_measure_epochs_and_the_test_set_the_end(train, tmp_path, capsys):
    train("--arch", "resnet20", "--epochs", 2, "--val-split", 5, "--lr", 0.01, "--output-dir", "run")
    first, last = log(tmp_path / "run")
    assert {"val_loss", "val_acc"} <= first.keys()
    assert not {"test_loss", "test_acc"} & first.keys()
    assert {"val_loss", "val_acc", "test_loss", "test_acc"} <= last.keys()
    out = capsys.readouterr().out
    assert "15 training and 10 test images, 5 held out from " in out
    assert (out.count("\nVal: Acc@1 "), out.count("\nTest: Acc@1 ")) == (2, 1)


def test_checkpoint_from_before_a_setting_means_its_default(train, tmp_path):
    train("--arch", "resnet20", "--epochs", 2, "--output-dir", "straight")
    train("--arch", "resnet20", "--epochs", 1, "--output-dir", "old")
    path = tmp_path / "old/last.safetensors"
    tensors, state = checkpoint.load_tensors(path)
    kept = ["arch", "dataset", "batch_size", "lr", "momentum", "weight_decay", "milestones", "lr_gamma"]
    kept += ["crop_padding", "normalization", "seed", "limit_train", "limit_test", "precision"]
    state["info"]["recipe"] = {name: state["info"]["recipe"][name] for name in kept}
    checkpoint.save_tensors(path, tensors, state)
    train("--arch", "resnet20", "--epochs", 2, "--resume", path)
    assert trained_alike(tmp_path / "straight", tmp_path / "old")
    with pytest.raises(CheckpointError, match=r"--nesterov was False, is True$"):
        train("--arch", "resnet20", "--epochs", 3, "--resume", path, "--nesterov")


def test_config_and_checkpoint_say_the_precision(train, tmp_path):
    common = ["--arch", "resnet20", "--precision", "fast"]
    train(*common, "--epochs", 2, "--output-dir", "straight")
    train(*common, "--epochs", 1, "--output-dir", "run")
    resume = ["--config", "run/config.toml", "--resume", "run/last.safetensors", "--epochs", 2]
    with pytest.raises(CheckpointError, match=r"--precision was fast, is exact$"):
        train(*resume, "--precision", "exact")
    set_precision("exact")  # the default of what follows
    train(*resume)
    assert get_precision() == "fast"
    assert trained_alike(tmp_path / "straight", tmp_path / "run")


def test_checkpoint_without_precision_goes_on_in_any_and_claims_none(train, tmp_path):
    train("--arch", "resnet20", "--epochs", 1, "--output-dir", "old", "--precision", "exact")
    path = tmp_path / "old/last.safetensors"
    tensors, state = checkpoint.load_tensors(path)
    del state["info"]["recipe"]["precision"]
    checkpoint.save_tensors(path, tensors, state)
    for epochs, precision in ((2, "exact"), (3, "fast")):
        train("--arch", "resnet20", "--epochs", epochs, "--precision", precision, "--resume", path)
        assert checkpoint.load(path).info["recipe"]["precision"] is None
        assert "precision" not in tomllib.loads((tmp_path / "old/config.toml").read_text())


def test_held_out_images_are_the_last_and_not_trained_on(train, monkeypatch, pictures):
    sets = []

    class Loader(data.DataLoader):
        def __init__(self, dataset: data.ImageDataset, *arguments: object, **settings: object) -> None:
            sets.append(dataset.images)
            super().__init__(dataset, *arguments, **settings)

    monkeypatch.setattr(data, "DataLoader", Loader)
    train("--arch", "resnet20", "--val-split", 5, "--dry-run", 0.001)
    everything = data.CIFAR10(pictures, train=True).images
    expected_sets = everything[:15], data.CIFAR10(pictures, train=False).images, everything[15:]
    for found, expected in zip(sets, expected_sets, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_schedule_of_a_fixed_length_keeps_it(train, tmp_path):
    cosine = ["--arch", "resnet20", "--lr-scheduler", "cosineannealinglr"]
    train(*cosine, "--epochs", 1, "--output-dir", "run")
    with pytest.raises(CheckpointError, match=r"--epochs was 1, is 2$"):
        train(*cosine, "--epochs", 2, "--resume", "run/last.safetensors")


REFUSED = {
    "unknown key": ("epoch = 3\n", [], "recipe.toml: unknown key 'epoch'; the nearest known one is 'epochs'"),
    "wrong type": ('lr = "0.1"\n', [], "recipe.toml: lr = '0.1': a number is needed"),
    "two warm-ups": ("", ["--lr-scheduler", "onecyclelr", "--lr-warmup-epochs", 1], "begins with a warm-up of its own"),
    "only warm-up": ("", ["--lr-warmup-epochs", 20], "--lr-warmup-epochs 20 must be less than --epochs 20"),
    "nothing left": ("val_split = 20\n", [], "--val-split 20 leaves nothing of 20 training images"),
    "no shortcuts": ("", ["--arch", "plain20", "--shortcut", "A"], "plain20 has no shortcuts"),
    "smoothing": ("label_smoothing = 1.5\n", [], "label_smoothing"),
}


@pytest.mark.parametrize(("content", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(content, arguments, message, train, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(content)
    with pytest.raises(ArgumentError, match=re.escape(message)):
        train("--config", "recipe.toml", "--dry-run", 0.001, *arguments)
