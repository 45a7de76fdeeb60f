"""Hooks: functions that the engine and modules call, and the handle that takes one back."""

from __future__ import annotations

from typing import Any, Self


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook back, as does leaving a `with` block."""

    def __init__(self, hooks: list[Any], hook: Any, position: int | None = None) -> None:
        """Put `hook` into `hooks`, at the end or at `position`."""
        self._hooks, self._hook = hooks, hook
        hooks.insert(len(hooks) if position is None else position, hook)

    def remove(self) -> None:
        """Take the hook back; a second time does nothing."""
        if self._hook is not None:
            self._hooks.remove(self._hook)
            self._hook = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
