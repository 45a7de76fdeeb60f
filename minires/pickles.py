"""Python's pickles, read without trust in what they ask for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

Methods = dict[int, Callable[[Any], None]]
METHODS: Methods = pickle._Unpickler.dispatch


class _Steps(dict[int, Any]):
    """The unpickler's methods by their codes, of which a file may call `left`."""

    def __init__(self, methods: Methods, left: int) -> None:
        super().__init__(methods)
        self.left = left

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError("it takes more steps to read than a file of its size")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"it has the pickle code {code:#04x}, which nothing in it needs")


class RestrictedUnpickler(pickle._Unpickler):
    """Admits what a kind of file needs, and nothing that could run code or ask for more memory than the file has.

    `methods` do the codes that are admitted; `admitted` holds for each name, (module, name), what stands in for it. The
    Python unpickler, not the C one, which allocates whatever table size five bytes of a damaged file ask for. Its steps
    are counted, since a step of one byte makes a list of 56 bytes. `reader` ends the sentence that refuses a name.
    """

    stack: list[Any]
    memo: dict[Any, Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        file: BinaryIO,
        methods: Methods,
        admitted: Mapping[tuple[str, str], Any],
        steps: int,
        encoding: str,
        reader: str,
    ) -> None:
        super().__init__(file, encoding=encoding)  # of strings that Python 2 wrote
        self.dispatch = _Steps(methods, steps)  # type: ignore[misc]
        self.admitted, self.reader = admitted, reader

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:99]}, which {self.reader}")
        return self.admitted[module, name]
