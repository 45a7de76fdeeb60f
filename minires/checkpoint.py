"""Checkpoints: safetensors files that are whole or not there, and that show any change of a byte."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .convert import from_bfloat16, to_array
from .device import to_device
from .errors import ArgumentError, CheckpointError
from .files import write_whole
from .nn import Module, Parameter
from .nn.layout import ambiguous
from .optim import Optimizer
from .optim.lr_scheduler import LRScheduler
from .tensor import Tensor

LAYOUT = "HWIO"  # the axes of convolution weights in a file, written into its metadata
TYPES = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "FIU" for size in (1, 2, 4, 8)} | {"BOOL": "?"}


@dataclass
class Checkpoint:
    """What a training run needs to go on: the model's and the optimizer's arrays, and all else as `info`."""

    path: Path
    model: dict[str, np.ndarray]
    optimizer: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    info: dict[str, Any] = field(default_factory=dict)


def save(
    path: str | Path,
    model: Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint. `info` is anything that JSON can hold: the model's name, the epoch, settings.

    The file appears under its name when it is complete; until then, and if writing fails, an older one stays. Raises
    OSError where it cannot be written, ArgumentError for what JSON cannot hold.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"checkpoint.save: takes a path, then the model itself, not a {type(model).__name__}")
    tensors = {f"model/{name}": value.data for name, value in model.state_dict(LAYOUT).items()}
    layouts = {name: p.layout for name, p in model._state() if isinstance(p, Parameter) and p.layout}
    state: dict[str, Any] = {"info": dict(info or {}), "layout": LAYOUT, "layouts": layouts}
    if unknown := ambiguous(model.named_modules(remove_duplicate=False)):
        state["ambiguous"] = list(unknown)
    if optimizer is not None:
        saved = optimizer.state_dict()
        state["param_groups"] = saved["param_groups"]
        for number, values in saved["state"].items():
            tensors |= {f"optimizer/{number}/{name}": to_array(v) for name, v in values.items()}
    if scheduler is not None:
        state["scheduler"] = scheduler.state_dict()
    save_tensors(path, tensors, state)


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint that `save` wrote. Raises CheckpointError if it is missing, damaged or of another kind."""
    path = Path(path)
    tensors, state = load_tensors(path)
    if not isinstance(state.get("info"), dict) or state.get("layout") != LAYOUT:
        raise CheckpointError(f"{path} is a safetensors file, but no checkpoint of minires")
    model = {name.removeprefix("model/"): array for name, array in tensors.items() if name.startswith("model/")}
    optimizer = None
    if "param_groups" in state:
        values: dict[int, dict[str, np.ndarray]] = {}
        for name, array in tensors.items():
            if name.startswith("optimizer/"):
                match = re.fullmatch(r"optimizer/([0-9]{1,9})/(\w+)", name)
                if match is None:
                    raise CheckpointError(f"{path} is damaged: no optimizer of minires has {name!r}")
                values.setdefault(int(match[1]), {})[match[2]] = array
        optimizer = {"state": values, "param_groups": state["param_groups"]}
    return Checkpoint(path, model, optimizer, state.get("scheduler"), state["info"])


def save_tensors(
    path: str | Path, tensors: Mapping[str, Any], state: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays, and `state` as JSON, into a safetensors file, beside its final name and then renamed.

    `metadata` is for other readers: {"format": "pt"} says that the arrays are as in PyTorch.
    """
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    arrays = {name: _on_cpu(value) for name, value in tensors.items()}
    described = {name: [a.dtype.name, list(a.shape), zlib.crc32(a.tobytes())] for name, a in arrays.items()}
    try:
        text = json.dumps({"state": dict(state), "tensors": described})
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{path} is not written: JSON cannot hold what is to be saved: {error}") from error
    content = to_bytes(arrays, {**(metadata or {}), "minires": text, "crc32": str(zlib.crc32(text.encode()))})
    write_whole(path, content)


def load_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state of a safetensors file; if minires did not write it, its metadata are the state.

    bfloat16, which NumPy lacks, becomes float32. Raises CheckpointError that names the file, and the array whose bytes
    have changed.
    """
    from safetensors import SafetensorError, deserialize

    path = Path(path)
    if not path.is_file():
        folder = "; it is a folder: name the file in it" if path.is_dir() else ""
        raise CheckpointError(f"no checkpoint at {path}{folder}")
    try:
        content = path.read_bytes()  # not mapped: a file that shrinks under a mapping kills the process
        tensors = {name: _array(**described) for name, described in deserialize(content)}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        tensors = {name: tensors[name] for name in header if name != "__metadata__"}  # they come in no order
        metadata = header.get("__metadata__") or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    if "minires" not in metadata:
        return tensors, metadata
    text = metadata["minires"]
    if metadata.get("crc32") != str(zlib.crc32(text.encode())):
        raise CheckpointError(f"{path} is damaged: its header has changed since it was written")
    try:
        parsed = json.loads(text)
        written, state = dict(parsed["tensors"]), dict(parsed["state"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # whoever wrote this knew how to write a CRC
        raise CheckpointError(f"{path} is damaged: its header is not minires's: {error}") from error
    if set(written) != set(tensors):
        raise CheckpointError(f"{path} is damaged: its arrays are not those that were written")
    for name, array in tensors.items():
        if written[name] != [array.dtype.name, list(array.shape), zlib.crc32(array.tobytes())]:
            raise CheckpointError(f"{path} is damaged: {name!r} has changed since it was written")
    return {name: tensors[name] for name in written}, state


def _array(data: bytearray, dtype: str, shape: list[int]) -> np.ndarray:
    """An array of safetensors' bytes; `dtype` is F32, say. Raises TypeError for one that NumPy lacks."""
    if dtype not in (*TYPES, "BF16"):
        raise TypeError(f"it has an array of {dtype}, which NumPy lacks")
    if dtype == "BF16":
        return from_bfloat16(np.frombuffer(data, "<u2")).reshape(shape)
    return np.frombuffer(data, TYPES[dtype]).reshape(shape)


def _on_cpu(value: Any) -> np.ndarray:
    # safetensors 0.8.0 writes wrong data for arrays that are not C-contiguous, and reads no big-endian ones
    array = to_device(value.data if isinstance(value, Tensor) else value, "cpu")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
