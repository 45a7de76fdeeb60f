"""Recipes: flat TOML files with values for a script's options, and the nets that they describe."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, models
from .cli import positive_number
from .errors import ArgumentError, CheckpointError
from .files import write_whole
from .nn import Module


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The values of a parser's options: those given, then those of the recipe that --config names, then the defaults.

    Raises ArgumentError for a recipe that is not right.
    """
    parser.add_argument("--config", metavar="FILE", help="a recipe: a TOML file of values for the options not given")
    args = parser.parse_args()
    if args.config:
        parser.set_defaults(**read(args.config, parser))
        args = parser.parse_args()
    return args


def read(path: str | Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The values in a recipe. Its keys are the long names of the parser's options, with - or _ between words.

    Raises ArgumentError, which names file and key, for what is no option, or no value that the option takes.
    """
    import tomllib

    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ArgumentError(f"no recipe at {path}") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors, and too long an int is one
        raise ArgumentError(f"{path} is no TOML file: {error}") from error
    options = {}
    for action in parser._actions:  # argparse has no public list of them
        names = [option.removeprefix("--").replace("-", "_") for option in action.option_strings]
        if action.dest in names and action.dest not in ("help", "config"):
            options[action.dest] = action
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in options:
            (nearest,) = difflib.get_close_matches(name, options, n=1, cutoff=0)
            raise ArgumentError(f"{path}: unknown key {key!r}; the nearest known one is {nearest!r}")
        if name in values:
            raise ArgumentError(f"{path}: {name} has two values")
        try:
            values[name] = _checked(options[name], value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ArgumentError(f"{path}: {key} = {value!r}: {error}") from None
    return values


def _checked(option: argparse.Action, value: Any) -> Any:
    """A value from a file as the option would make it of text. Raises ValueError, or what the option's type raises."""
    if option.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise ValueError("true or false is needed")
        return value
    if option.nargs == "*":
        if not isinstance(value, list):
            raise ValueError("a list is needed")
        return [_converted(option, each) for each in value]
    return _converted(option, value)


def _converted(option: argparse.Action, value: Any) -> Any:
    number = ("a number", (int, float))
    kinds: dict[Any, tuple[str, tuple[type, ...]]] = {None: ("text", (str,)), float: number, positive_number: number}
    wanted, types = kinds.get(option.type, ("a whole number", (int,)))
    if not isinstance(value, types) or isinstance(value, bool):
        raise ValueError(f"{wanted} is needed")
    if option.choices is not None and value not in option.choices:
        raise ValueError(f"one of {', '.join(option.choices)} is needed")
    return option.type(str(value)) if callable(option.type) else value


def write(path: Path, values: Mapping[str, Any], comment: str) -> None:
    """Write a recipe that `read` reads, with a comment above. A value of None is left out: it is the option's default.

    Values are numbers, switches, text without control characters, or lists of these.
    """
    text = f"# {comment}\n"
    for name, value in values.items():
        if value is not None:  # what JSON writes is TOML, too, but for Infinity and NaN, which no recipe needs
            text += f"{name} = {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n"
    write_whole(path, text.encode())


def build(recipe: Mapping[str, Any], classes: int, generator: np.random.Generator | None = None) -> Module:
    """The net of a recipe: its `arch`, with `stem` ("cifar" if there is none), `shortcut` and `zero_init_residual`."""
    chosen = {name: recipe.get(name) for name in ("shortcut", "zero_init_residual")}
    settings = {name: value for name, value in chosen.items() if value is not None}
    settings |= {"num_classes": classes, "stem": recipe.get("stem") or "cifar", "generator": generator}
    return models.build(recipe["arch"], **settings)


def restore(path: str | Path) -> tuple[Module, checkpoint.Checkpoint]:
    """The trained net of a checkpoint of train_cifar10.py, and the checkpoint. Raises CheckpointError for another."""
    saved = checkpoint.load(path)
    if not {"recipe", "data"} <= saved.info.keys():
        raise CheckpointError(f"{path} was not written by train_cifar10.py")
    model = build(saved.info["recipe"], len(saved.info["classes"]))
    model.load_state_dict(saved.model)
    return model, saved
