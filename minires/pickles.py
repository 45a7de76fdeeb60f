"""Python's pickles, read without trust in what they ask for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

Methods = dict[int, Callable[[Any], None]]
METHODS: Methods = pickle._Unpickler.dispatch
CODES = b"".join(  # what tensors and arrays take
    [
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL),
        *(pickle.REDUCE, pickle.BUILD, pickle.BINPERSID, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
        *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
        *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
        *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE),
        *(pickle.BINBYTES, pickle.SHORT_BINBYTES),
    ]
)
MOST_ARGUMENTS = 8  # of a call, which takes one step however many it copies


class _Steps(dict[int, Any]):
    """The unpickler's methods by their codes, of which a file may call `left`."""

    def __init__(self, methods: Methods, left: int) -> None:
        super().__init__(methods)
        self.left = left

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("it takes more steps to read than a file of its size")

    def __getitem__(self, code: int) -> Any:
        self.take(1)
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"it has the pickle code {code:#04x}, which nothing in it needs")


class RestrictedUnpickler(pickle._Unpickler):
    """Admits what a kind of file needs, and nothing that could run code or ask for more memory than the file has.

    `admitted` holds for each name, (module, name), what stands in for it. The Python unpickler, not the C one, which
    allocates whatever table size five bytes of a damaged file ask for. Its steps are counted, since a step of one byte
    makes a list of 56 bytes. `reader` ends the sentence that refuses a name.
    """

    stack: list[Any]
    memo: dict[Any, Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        file: BinaryIO,
        admitted: Mapping[tuple[str, str], Any],
        steps: int,
        encoding: str,
        reader: str,
    ) -> None:
        super().__init__(file, encoding=encoding)  # of strings that Python 2 wrote
        self.steps = _Steps({code: getattr(type(self), METHODS[code].__name__) for code in CODES}, steps)
        self.dispatch = self.steps  # type: ignore[misc]
        self.admitted, self.reader = admitted, reader

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'[:99]}, which {self.reader}")
        return self.admitted[module, name]

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not callable(function) or not any(function is admitted for admitted in self.admitted.values()):
            raise pickle.UnpicklingError("it calls something that is no function")
        if type(arguments) is not tuple or len(arguments) > MOST_ARGUMENTS:
            raise pickle.UnpicklingError(f"it calls something with more than {MOST_ARGUMENTS} arguments, or none")
        self.stack[-1] = function(*arguments)

    def load_setitem(self) -> None:
        items = [self.stack.pop(), self.stack.pop()]
        self._set(items[::-1])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        keys = items[::2]
        # of other keys a file could choose many that share one hash, or some whose hash takes for ever
        if type(self.stack[-1]) is not dict or not all(map(_is_key, keys)):
            raise pickle.UnpicklingError("it has a dict with keys that are neither text nor small numbers")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))


def _is_key(key: Any) -> bool:
    return key is None or type(key) is str or (type(key) is int and abs(key) < 1 << 31)
