"""What every script's command line shares: its parser, types of arguments, and exit codes."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .errors import MiniresError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, which shows its description as it is written, and tells an error in one line."""

    def __init__(self, description: str | None = None, **settings: Any) -> None:
        settings.setdefault("prog", _program())
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def positive(text: str) -> int:
    """An argparse type: an int of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def natural(text: str) -> int:
    """An argparse type: an int of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def positive_number(text: str) -> float:
    """An argparse type: a finite float above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no finite number above 0")
    return value


def exit_code(main: Callable[[], None]) -> int:
    """Run a script's main: 0; 2 after an error of the user's, told without a traceback; 130 after Ctrl-C.

    What is told holds nothing that commands a terminal, since parts of it may come from a file or a server.
    """
    try:
        main()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MiniresError, OSError) as error:
        shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(error))
        print(f"{_program()}: error: {shown}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_program()}: interrupted", file=sys.stderr)
        return 130
    return 0


def _program() -> str:
    path = Path(sys.argv[0])
    return f"python -m {path.parent.name}" if path.name == "__main__.py" else path.name
