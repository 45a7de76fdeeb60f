"""Modules made of modules."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from ..errors import ArgumentError, RangeError
from .conv import Conv2d
from .fusion import conv_norm
from .module import Module
from .norm import BatchNorm2d


class Container(Module):
    """Modules in an order, under their numbers or under names."""

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise ArgumentError(f"{type(self).__name__}: {name!r} is a {type(module).__name__}, not a Module")
        self.add_module(name, module)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children())

    def __len__(self) -> int:
        return len(self._modules)

    def _at(self, index: int) -> tuple[str, Module]:
        items = list(self.named_children())
        if not -len(items) <= operator.index(index) < len(items):
            raise RangeError(f"{type(self).__name__}: index {index} is out of range for {len(items)} modules")
        return items[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self._add(self._at(index)[0], module)

    def __delitem__(self, index: int | slice) -> None:
        items = list(self.named_children())
        for name, _ in items[index] if isinstance(index, slice) else [self._at(index)]:
            del self._modules[name]
        if all(name.isdecimal() for name in self._modules):  # numbers are places, as in PyTorch; names stay
            modules = list(self)
            self._modules.clear()
            self._modules.update((str(i), module) for i, module in enumerate(modules))

    def append(self, module: Module) -> Self:
        """Add a module at the end, under its number, or the next that is free: slices keep their modules' names."""
        names = map(str, itertools.count(len(self)))
        self._add(next(name for name in names if name not in self._modules), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self


class Sequential(Container):
    """Modules called one after the other. Takes modules, or one mapping of names to modules.

    A Conv2d and the BatchNorm2d after it are called together, by `conv_norm`.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else dict(enumerate(modules))
        for name, module in named.items():
            self._add(str(name), module)

    def forward(self, x: Any) -> Any:
        modules = list(self)
        while modules:
            module = modules.pop(0)
            following = modules[0] if modules else None
            if isinstance(module, Conv2d) and isinstance(following, BatchNorm2d):
                del modules[0]
                x = conv_norm(module, following, x)
            else:
                x = module(x)
        return x

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return self._at(index)[1]


class ModuleList(Container):
    """A list of modules, which are called by whoever holds it: their parameters are those of its owner.

    State-dict keys are the numbers, as in PyTorch: "0.weight".
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __getitem__(self, index: int | slice) -> Module:
        return ModuleList(list(self)[index]) if isinstance(index, slice) else self._at(index)[1]

    def insert(self, index: int, module: Module) -> None:
        """Put a module before number `index`; those from there on get the next number."""
        modules = list(self)
        modules.insert(index, module)
        self.append(module)  # refuses what is none; then all get their places
        self._modules.update(zip(self._modules, modules, strict=True))
