"""Weights in files: PyTorch's, safetensors and npz, read without trust, mapped to a model's names, and written.

A weights file holds the tensors of a state dict and nothing else; what a training run needs to go on is a checkpoint.
Here tensors are always in PyTorch's order, convolution weights OIHW, under PyTorch's names.
"""

from __future__ import annotations

import argparse
import io
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint
from .device import to_device
from .errors import ArgumentError, CheckpointError, DataError, DTypeError
from .files import write_whole
from .nn import Module
from .nn.layout import to_oihw
from .nn.module import IncompatibleKeys

TORCH_SUFFIXES = (".pth", ".pt", ".th", ".tar")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # under which training scripts keep the state dict
PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel and torch.compile
CHECKPOINT = "checkpoint of minires"  # a format, beside PyTorch, safetensors and npz
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
NPZ_COMMENT = "layout=OIHW arrays={}"  # of the zip archive that an npz file is, where minires wrote it
LARGEST_GROWTH = 100  # of a file that is converted: each name of a tied weight is written by itself
MOST_ENTRIES, LARGEST_RATIO = 100_000, 16  # of an npz file: weights hardly get smaller when they are packed

# How well-known implementations of ResNets name what torchvision calls otherwise.
ALIASES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"(^|\.)shortcut\.", r"\1downsample."),
    (r"(^|\.)linear\.", r"\1fc."),
    (r"^conv1\.0\.", "conv1."),
    (r"^conv1\.1\.", "bn1."),
    (r"^conv([2-5])_x\.", lambda found: f"layer{int(found[1]) - 1}."),
    (r"\.residual_function\.([036])\.", lambda found: f".conv{int(found[1]) // 3 + 1}."),
    (r"\.residual_function\.([147])\.", lambda found: f".bn{int(found[1]) // 3 + 1}."),
]


@dataclass
class Weights:
    """The tensors of a file, in PyTorch's order and without wrappers, and what became of the rest."""

    tensors: dict[str, np.ndarray]
    format: str
    removed: list[str] = field(default_factory=list)  # names of dicts and prefixes that were around the tensors
    left: list[Any] = field(default_factory=list)  # names of what else the file holds
    renamed: int = 0
    ambiguous: list[str] = field(default_factory=list)  # weights of a checkpoint whose order in PyTorch is unknown

    def __str__(self) -> str:
        trained = sum(a.size for name, a in self.tensors.items() if not name.endswith(BUFFERS))
        size = sum(a.nbytes for a in self.tensors.values())
        notes = [f"out of {', '.join(self.removed)}"] if self.removed else []
        notes += [f"{self.renamed} renamed"] if self.renamed else []
        notes += [f"left behind: {', '.join(f'{name!r:.40}' for name in self.left[:20])}"] if self.left else []
        return "; ".join([f"{len(self.tensors)} tensors, {trained:,} parameters, {size:,} bytes", *notes])


def read(path: str | Path, layout: str | None = None) -> Weights:
    """The weights in a file, whose format is told by its content, not by its name.

    `layout`, "OIHW" or "HWIO", is that of a file which does not say it: of PyTorch's and minires's it is known, and it
    is never guessed. Raises CheckpointError for what is missing, damaged, refused or of unknown layout.
    """
    weights, layouts = _read(Path(path), layout)
    if weights.ambiguous:
        raise CheckpointError(
            f"{path}: {weights.ambiguous[0]!r:.60} may follow a flattened map, whose order in PyTorch is another: "
            "load it into its model, give that Linear image_size=(H, W), or (1, 1) if it is none, and save again"
        )
    weights.tensors = {name: to_oihw(array, layouts.get(name)) for name, array in weights.tensors.items()}
    return weights


def _read(path: Path, layout: str | None) -> tuple[Weights, dict[str, Any]]:
    """The weights as they lie in a file, and the layouts of those that are not in PyTorch's order."""
    if layout not in (None, "OIHW", "HWIO"):
        raise ArgumentError(f"layout must be 'OIHW' (PyTorch) or 'HWIO' (TensorFlow, JAX), not {layout!r}")
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}{'; it is a folder: name the file in it' if path.is_dir() else ''}")
    with path.open("rb") as file:
        head = file.read(512)
    known: Any  # the layout of the file's convolutions, or of those of its tensors that have one
    if head[8:9] == b"{":  # after eight bytes of a number, which may look like anything
        weights, known = _read_safetensors(path)
    elif head[:2] == b"PK" and _is_npz(path):
        weights, known = _read_npz(path)
    elif head[:2] == b"PK" or head[:1] == pickle.PROTO:
        weights, known = _read_torch(path), "OIHW"
    else:
        old = " (PyTorch's of before 2017: save it again in PyTorch)" if head[257:262] == b"ustar" else ""
        raise CheckpointError(f"{path} is no PyTorch, safetensors or npz file{old}")
    if not weights.tensors:
        raise CheckpointError(f"{path} holds no tensors")
    if known is None and layout is None and any(a.ndim > 1 for a in weights.tensors.values()):
        raise CheckpointError(
            f"{path} does not say the layout of its weights: pass layout='OIHW' if they are PyTorch's, "
            "'HWIO' if they are convolutions of TensorFlow or JAX (on a command line: --layout)"
        )
    flat = [name for name, array in weights.tensors.items() if array.ndim == 2]
    if known is None and layout == "HWIO" and flat:
        raise CheckpointError(
            f"{path}: {flat[0]!r:.60} has two axes, in TensorFlow and JAX (I, O), here (O, I): read it by np.load "
            "or safetensors, transpose what is (I, O), and call the model's load_state_dict"
        )
    if known is not None and layout not in (None, "OIHW" if known == "OIHW" else "HWIO"):
        raise CheckpointError(f"{path} says the layout of its weights itself: pass no layout")
    if not isinstance(known, dict):
        known = {} if (known or layout) == "OIHW" else dict.fromkeys(weights.tensors, "HWIO")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in weights.tensors)), ""):
        weights.tensors = {name.removeprefix(prefix): array for name, array in weights.tensors.items()}
        known = {name.removeprefix(prefix): value for name, value in known.items()}
        weights.removed.append(prefix)
    return weights, known


def load(path: str | Path, model: Module, strict: bool = True, layout: str | None = None) -> IncompatibleKeys:
    """Read a file, and copy its tensors into the model's of the same names, or of names that mean the same (ALIASES).

    All is checked before the first value is copied. Counts of batches that a file of before PyTorch 0.4.1 lacks stay as
    they are. Raises CheckpointError as `read` and `Module.load_state_dict` do.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"weights.load: takes a path, then the model itself, not a {type(model).__name__}")
    own, (weights, layouts) = model.state_dict(), _read(Path(path), layout)
    tensors, order = weights.tensors, checkpoint.LAYOUT
    if weights.format != CHECKPOINT:  # which has what the model has, whether or not PyTorch's order is known
        tensors, order = {name: to_oihw(array, layouts.get(name)) for name, array in tensors.items()}, "OIHW"
    meant: dict[str, str] = {}
    for name in own:
        meant.setdefault(torchvision_name(name), name)
    mapped: dict[str, Any] = {name: array for name, array in tensors.items() if name in own}
    for name, array in tensors.items():
        if name not in own:
            target = meant.get(torchvision_name(name), name)
            mapped[name if target in mapped else target] = array
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):
            mapped.setdefault(name, value)
    try:
        return model.load_state_dict(mapped, strict, order)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def save(path: str | Path, model: Module) -> None:
    """Write a model's state dict, in PyTorch's order, in the format that the suffix names; see `write`."""
    if not isinstance(model, Module):
        raise ArgumentError(f"weights.save: takes a path, then the model itself, not a {type(model).__name__}")
    write(path, {name: value.data for name, value in model.state_dict("OIHW").items()})


def write(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write arrays, those of convolutions OIHW: .pth, .pt, .th and .tar in PyTorch's format, .safetensors, or .npz.

    The file appears under its name when it is complete. Equal tensors make equal files, but for the order of a
    safetensors file's metadata, which is random. Raises ArgumentError for another suffix, DTypeError for what is no
    number that all readers have, OSError where it cannot be written.
    """
    path = Path(path)
    suffix = _check_suffix(path)
    arrays = {name: np.asarray(to_device(value, "cpu")) for name, value in tensors.items()}
    _check(path, arrays)
    if suffix == ".safetensors":
        checkpoint.save_tensors(path, arrays, {"layout": "OIHW"}, {"format": "pt"})
    elif suffix == ".npz":
        write_whole(path, _npz_bytes(arrays))
    else:
        from . import torch_writer

        write_whole(path, torch_writer.to_bytes(arrays))


def convert(
    source: str | Path, target: str | Path, layout: str | None = None, torchvision_names: bool = False
) -> Weights:
    """Write the weights of one file into another, in the format that the target's suffix names.

    Names stay as they are but for wrappers, unless `torchvision_names` asks for torchvision's. Raises as `read` and
    `write` do, and CheckpointError if two tensors would have one name.
    """
    _check_suffix(Path(target))
    weights = read(source, layout)
    if Path(target).exists() and Path(target).samefile(source):
        raise ArgumentError(f"{target} is the file itself: write the weights into another")
    size = sum(array.nbytes for array in weights.tensors.values())
    if size > LARGEST_GROWTH * Path(source).stat().st_size + (1 << 20):  # of views, which read at no cost
        raise CheckpointError(f"{source} would become {size:,} bytes, more than {LARGEST_GROWTH} times as many")
    if torchvision_names:
        tensors = {torchvision_name(name): array for name, array in weights.tensors.items()}
        if len(tensors) < len(weights.tensors):
            raise CheckpointError(f"{source} has two tensors that torchvision would call the same: keep its names")
        weights.renamed = len(tensors.keys() - weights.tensors.keys())
        weights.tensors = tensors
    write(target, weights.tensors)
    return weights


def torchvision_name(name: str) -> str:
    """What torchvision calls the tensor that another implementation of a ResNet calls `name`."""
    for prefix in PREFIXES * 2:
        name = name.removeprefix(prefix)
    for pattern, replacement in ALIASES:
        name = re.sub(pattern, replacement, name)
    return name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `minires convert`."""
    suffixes = ", ".join([*TORCH_SUFFIXES, ".safetensors", ".npz"])
    parser.add_argument("source", metavar="IN", help="a file of PyTorch, safetensors or npz, or a checkpoint")
    parser.add_argument("target", metavar="OUT", help=f"the file to write, its format told by its suffix: {suffixes}")
    parser.add_argument("--layout", choices=("OIHW", "HWIO"), help="of IN's convolution weights, if it does not say")
    parser.add_argument(
        "--torchvision-names", action="store_true", help="rename shortcut, linear, ... of ResNets as torchvision"
    )


def run(args: argparse.Namespace) -> None:
    """Convert as the arguments say, and print a line about it."""
    weights = convert(args.source, args.target, args.layout, args.torchvision_names)
    print(f"{args.source} ({weights.format}) -> {args.target}: {weights}")


def _check_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (*TORCH_SUFFIXES, ".safetensors", ".npz"):
        raise ArgumentError(f"{path}: its suffix must be {', '.join(TORCH_SUFFIXES)}, .safetensors or .npz")
    return suffix


def _check(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse what some format could hold, but not give back."""
    if not arrays:
        raise ArgumentError(f"{path} is not written: there are no tensors")
    for name, array in arrays.items():
        is_text = type(name) is str and name.isprintable()  # which no surrogate is, and no end of text
        if not is_text or name == "__metadata__":
            raise ArgumentError(f"{path} is not written: {name!r:.60} is no name for a tensor")
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise DTypeError(f"{path} is not written: {name!r} is {array.dtype}, which is not for files of weights")


def _read_torch(path: Path) -> Weights:
    from . import torch_reader

    try:
        found = torch_reader.read(path.read_bytes())
        removed: list[str] = []
        left: list[Any] = []
        while wrapper := next((w for w in WRAPPERS if type(found) is dict and type(found.get(w)) is dict), ""):
            if len(removed) == 3:
                raise ValueError(f"its {wrapper!r} holds a {wrapper!r}, and so on")
            removed.append(wrapper)
            left += [name for name in found if name != wrapper]
            found = found[wrapper]
        if type(found) is not dict:
            raise ValueError(f"it holds a {type(found).__name__}, no state dict")
        tensors = {n: t.array() for n, t in found.items() if type(t) is torch_reader.Tensor and type(n) is str}
        "".join(tensors).encode()  # which fails for names that are no text
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, error) from error
    left += [name for name in found if name not in tensors]
    if not tensors:
        there = ", ".join(f"{name!r:.40}" for name in left[:10])
        raise CheckpointError(
            f"{path} holds no tensors, itself or under {', '.join(WRAPPERS)}; it has {there or 'none'}"
        )
    return Weights(tensors, "PyTorch", removed, left)


def _read_safetensors(path: Path) -> tuple[Weights, dict[str, Any] | str | None]:
    tensors, state = checkpoint.load_tensors(path)
    if isinstance(state.get("info"), dict) and state.get("layout") == checkpoint.LAYOUT:
        model = {name.removeprefix("model/"): array for name, array in tensors.items() if name.startswith("model/")}
        others = dict.fromkeys(name.partition("/")[0] for name in tensors if not name.startswith("model/"))
        left = [
            *others,
            *(name for name, value in state.items() if value and name not in ("layout", "layouts", "ambiguous")),
        ]
        known = _layouts(path, state["layouts"]) if "layouts" in state else checkpoint.LAYOUT
        unknown = state.get("ambiguous", [])
        if type(unknown) is not list:
            raise CheckpointError(f"{path} is damaged: its ambiguous weights are no list")
        return Weights(model, CHECKPOINT, [], left, ambiguous=unknown), known
    is_oihw = state.get("format") == "pt" or state.get("layout") == "OIHW"
    return Weights(tensors, "safetensors"), "OIHW" if is_oihw else None


def _layouts(path: Path, layouts: Any) -> dict[str, Any]:
    """The layouts of parameters that a checkpoint has in JSON, where a map's size is a list."""
    values = list(layouts.values()) if isinstance(layouts, dict) else [None]
    for value in values:
        is_size = type(value) is list and len(value) == 2 and all(type(n) is int and n > 0 for n in value)
        if value != "HWIO" and not is_size:
            raise CheckpointError(f"{path} is damaged: its layouts are none")
    return {name: value if value == "HWIO" else tuple(value) for name, value in layouts.items()}


def _is_npz(path: Path) -> bool:
    """Whether a zip archive holds arrays; for one that is damaged either reader's error will do."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith(".npy") for name in file.namelist())
    except Exception:  # a damaged directory can raise anything
        return False


def _read_npz(path: Path) -> tuple[Weights, str | None]:
    import zipfile

    from .data.npz import load_npz

    try:
        arrays = load_npz(path, None, most_entries=MOST_ENTRIES, largest_ratio=LARGEST_RATIO)
        with zipfile.ZipFile(path) as file:
            comment = file.comment.decode("latin1")
    except DataError as error:
        raise CheckpointError(" ".join(str(error).split())) from error
    tensors = {name: array for name, array in arrays.items() if array.dtype.kind != "U"}
    is_ours = comment.startswith(NPZ_COMMENT.format(""))
    if is_ours and comment != NPZ_COMMENT.format(len(arrays)):  # a changed directory of an archive may hide entries
        raise CheckpointError(f"{path} is damaged: it has {len(arrays)} arrays, not as many as were written")
    left = [name for name in arrays if name not in tensors]
    return Weights(tensors, "npz", [], left), "OIHW" if is_ours else None


def _npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As np.savez writes it, with the layout and their number as the archive's comment."""
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = NPZ_COMMENT.format(len(arrays)).encode()
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return file.getvalue()


def _damaged(path: Path, error: Exception) -> CheckpointError:
    """One line about what is wrong with a file."""
    if isinstance(error, pickle.UnpicklingError):
        what = f"is refused: {error}"
    else:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        what = f"is damaged or no file of weights: {kind}{error}"
    return CheckpointError(f"{path} {' '.join(what.split())}".encode(errors="backslashreplace").decode())
