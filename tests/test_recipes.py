"""Recipes: which of three values of an option holds, what is refused, and what is written reads again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from minires import checkpoint, nn, recipes, training
from minires.errors import ArgumentError, CheckpointError


def script_parser() -> argparse.ArgumentParser:
    parser = training.ArgumentParser("A script.")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--epochs", type=training.positive, default=20)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seconds", type=training.positive_number)
    parser.add_argument("--wd", "--weight-decay", dest="weight_decay", type=float, default=2e-4)
    parser.add_argument("--milestones", type=training.positive, nargs="*", default=[100, 150])
    parser.add_argument("--nesterov", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--schedule", choices=["step", "cosine"], default="step")
    training.add_kernel_options(parser)
    return parser


def parsed(monkeypatch, *arguments: object) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    return recipes.parse_args(script_parser())


def test_given_values_win_over_the_recipe_and_that_over_defaults(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'lr = 1\nweight-decay = 5e-4\nmilestones = [3, 7]\nnesterov = true\nschedule = "cosine"\nprecision = "fast"\n'
    )
    args = parsed(monkeypatch, "--config", recipe, "--lr", "0.5", "--no-nesterov")
    assert (args.lr, args.nesterov) == (0.5, False)
    assert (args.weight_decay, args.milestones, args.schedule) == (5e-4, [3, 7], "cosine")
    assert (args.arch, args.epochs, args.precision) == ("resnet18", 20, "fast")
    assert isinstance(parsed(monkeypatch, "--config", recipe).lr, float)


def test_without_a_recipe_defaults_hold(monkeypatch):
    args = parsed(monkeypatch, "--epochs", 3)
    assert (args.epochs, args.lr, args.config) == (3, 0.1, None)


REFUSED = {
    "unknown key": ("epoch = 3", "unknown key 'epoch'; the nearest known one is 'epochs'"),
    "not of a file": ('config = "x"', "unknown key 'config'"),
    "short name": ("wd = 1.0", "unknown key 'wd'"),
    "another option's switch": ("tf32 = true", "unknown key 'tf32'"),
    "text for a number": ('lr = "fast"', "lr = 'fast': a number is needed"),
    "number for text": ("arch = 18", "arch = 18: text is needed"),
    "fraction": ("epochs = 2.5", "epochs = 2.5: a whole number is needed"),
    "true for a number": ("epochs = true", "epochs = True: a whole number is needed"),
    "out of range": ("epochs = 0", "epochs = 0: 0 is less than 1"),
    "number for a list": ("milestones = 5", "milestones = 5: a list is needed"),
    "wrong in a list": ("milestones = [5, 0]", "milestones = [5, 0]: 0 is less than 1"),
    "number for a switch": ("nesterov = 1", "nesterov = 1: true or false is needed"),
    "no choice": ('schedule = "steps"', "schedule = 'steps': one of step, cosine is needed"),
    "twice": ("weight_decay = 1\nweight-decay = 2", "weight_decay has two values"),
    "a table": ("[train]\nlr = 1", "unknown key 'train'"),
    "no TOML": ("lr = 0.1 0.2", "is no TOML file: "),
    "endless int": (f"epochs = {'1' * 5000}", "is no TOML file: "),
    "not finite": ("seconds = inf", "seconds = inf: inf is no finite number above 0"),
    "text for seconds": ('seconds = "1"', "seconds = '1': a number is needed"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_file_and_key(tmp_path, monkeypatch, content, message):
    path = tmp_path / "wrong.toml"
    path.write_text(content)
    with pytest.raises(ArgumentError) as caught:
        parsed(monkeypatch, "--config", path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_byte_order_mark_is_no_value(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("lr = 0.5\nseconds = 2\n", encoding="utf-8-sig")
    assert recipes.read(path, script_parser()) == {"lr": 0.5, "seconds": 2.0}


def test_no_recipe_there(tmp_path):
    with pytest.raises(ArgumentError, match=r"no recipe at .*absent\.toml"):
        recipes.read(tmp_path / "absent.toml", script_parser())


def test_what_is_written_reads_again(tmp_path):
    values = {"arch": 'é "quoted" \\', "lr": 1e-05, "milestones": [1, 2], "nesterov": True, "epochs": 7}
    recipes.write(tmp_path / "recipe.toml", values | {"schedule": None}, "Of a test")
    assert recipes.read(tmp_path / "recipe.toml", script_parser()) == values
    assert (tmp_path / "recipe.toml").read_text(encoding="utf-8").startswith("# Of a test\narch = ")


def test_build_passes_on_what_is_set():
    rng = np.random.default_rng(0)
    plain = recipes.build({"arch": "resnet20", "shortcut": None, "zero_init_residual": None}, 10, rng)
    chosen = recipes.build({"arch": "resnet20", "shortcut": "C", "zero_init_residual": True}, 7, rng)
    projections = [name for name, module in chosen.named_modules() if "downsample.0" in name]
    assert len(projections) == 9
    assert not any("downsample.0.weight" in name for name in plain.state_dict())
    state = chosen.state_dict()
    assert not state["layer1.0.bn2.weight"].data.any()
    assert (state["fc.weight"].shape[0], plain.state_dict()["fc.weight"].shape[0]) == (7, 10)


def test_restore_wants_a_checkpoint_of_a_training(tmp_path):
    path = Path(tmp_path / "bare.safetensors")
    checkpoint.save(path, nn.Linear(2, 2, generator=np.random.default_rng(0)))
    with pytest.raises(CheckpointError, match="was not written by train_cifar10"):
        recipes.restore(path)
