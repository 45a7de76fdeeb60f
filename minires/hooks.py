"""Hooks: functions that the engine and modules call, and the handle that takes one back."""

from __future__ import annotations

from functools import partial
from typing import Any, Self


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook back, as does leaving a `with` block."""

    def __init__(self, hooks: list[Any], hook: Any, position: int | None = None) -> None:
        """Put `hook` into `hooks`, at the end or at `position`."""
        self._hooks, self._entry = hooks, partial(hook)  # a new object each time: one function may be registered twice
        hooks.insert(len(hooks) if position is None else position, self._entry)

    def remove(self) -> None:
        """Take the hook back; a second time does nothing."""
        if self._entry in self._hooks:
            self._hooks.remove(self._entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
