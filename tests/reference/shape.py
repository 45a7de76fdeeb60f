"""Rearrangements, as loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.elementwise import places


def reshape(x: np.ndarray, *shape: int) -> np.ndarray:
    """The elements in their order under another shape."""
    out = np.empty(shape)
    for place, source in zip(places(*shape), places(*x.shape), strict=True):
        out[place] = x[source]
    return out


def permute(x: np.ndarray, *order: int) -> np.ndarray:
    """The dimensions in another order."""
    out = np.empty([x.shape[axis] for axis in order])
    for place in places(*x.shape):
        out[tuple(place[axis] for axis in order)] = x[place]
    return out


def pick(rows: Any, where: tuple[Any, ...]) -> Any:
    """Nested lists by numbers, slices and None."""
    if not where:
        return rows
    first, rest = where[0], where[1:]
    if first is None:
        return [pick(rows, rest)]
    return [pick(row, rest) for row in rows[first]] if isinstance(first, slice) else pick(rows[first], rest)


def take(x: np.ndarray, *where: Any) -> np.ndarray:
    """x by slices and by arrays of integers or booleans, one for each leading axis, or one boolean for several."""
    parts: list[Any] = []
    for part in where:
        if isinstance(part, np.ndarray) and part.dtype == bool:
            true = [place for place in places(*part.shape) if part[place]]
            parts += [np.array([place[axis] for place in true], dtype=np.int64) for axis in range(part.ndim)]
        else:
            parts.append(part)
    parts += [slice(None)] * (x.ndim - len(parts))
    given = [axis for axis, part in enumerate(parts) if isinstance(part, np.ndarray)]
    together = np.broadcast_shapes(*(parts[axis].shape for axis in given))
    arrays = {axis: np.broadcast_to(parts[axis], together) for axis in given}
    ranges = {axis: range(x.shape[axis])[part] for axis, part in enumerate(parts) if axis not in given}
    first = 0 if given[-1] - given[0] >= len(given) else given[0]  # a slice between two arrays: theirs come first
    before = [axis for axis in ranges if axis < given[0]] if first else []
    after = [axis for axis in ranges if axis not in before]
    out = np.empty([*(len(ranges[a]) for a in before), *together, *(len(ranges[a]) for a in after)])
    for place in places(*out.shape):
        middle = place[len(before) : len(before) + len(together)]
        sliced = dict(zip([*before, *after], place[: len(before)] + place[len(before) + len(together) :], strict=True))
        out[place] = x[tuple(arrays[a][middle] if a in arrays else ranges[a][sliced[a]] for a in range(x.ndim))]
    return out


def expand(x: np.ndarray, *shape: int) -> np.ndarray:
    """x repeated along its axes of size 1, and along new ones in front."""
    out, added = np.empty(shape), len(shape) - x.ndim
    for place in places(*shape):
        out[place] = x[tuple(0 if size == 1 else i for i, size in zip(place[added:], x.shape, strict=True))]
    return out


def concatenate(arrays: Any, axis: int) -> np.ndarray:
    """Arrays one after the other along an axis."""
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    out, start = np.empty(shape), 0
    for a in arrays:
        for place in places(*a.shape):
            out[tuple(i + start if n == axis % a.ndim else i for n, i in enumerate(place))] = a[place]
        start += a.shape[axis]
    return out


def pad(x: np.ndarray, pads: Any, mode: str = "constant", value: float = 0) -> np.ndarray:
    """x with (before, after) more for each axis; outside stand the value, the mirrored element or the nearest."""
    out = np.empty([size + before + after for size, (before, after) in zip(x.shape, pads, strict=True)])
    for place in places(*out.shape):
        source = [i - before for i, (before, _) in zip(place, pads, strict=True)]
        for axis, (i, size) in enumerate(zip(source, x.shape, strict=True)):
            if mode == "replicate":
                source[axis] = 0 if i < 0 else size - 1 if i >= size else i
            if mode == "reflect":
                source[axis] = -i if i < 0 else 2 * (size - 1) - i if i >= size else i
        inside = all(0 <= i < size for i, size in zip(source, x.shape, strict=True))
        out[place] = x[tuple(source)] if inside else value
    return out
