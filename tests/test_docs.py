"""The pages' code: every `python` block runs, and prints exactly what the `text` block that follows it shows."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from minires.kernels import registry

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("adding_an_op", "choosing_kernels", "data", "models", "onnx", "optim", "threads_and_memory", "weights")
PAGES = sorted([*DOCS.glob("ops/*.md"), *(DOCS / f"{name}.md" for name in NAMES)])
EMULATED = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\s*^```text\n(?P<shown>.*?)^```$)?", re.MULTILINE | re.DOTALL)


def check(text: str, name: str) -> int:
    """Run a page's blocks in order, in one namespace, and return how many there are. A block tagged `py` is not run."""
    namespace: dict[str, Any] = {"__name__": name}
    blocks = list(BLOCK.finditer(text))
    with np.printoptions(), mock.patch.dict(registry):  # what a page sets or registers ends with it
        for block in blocks:
            line = text[: block.start()].count("\n") + 1
            source = "\n" * line + block["code"]  # errors name the page's own lines
            code = compile(source, name, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace)
            assert printed.getvalue() == (block["shown"] or ""), f"{name}:{line}"
    return len(blocks)


@pytest.mark.parametrize("page", [*PAGES, pytest.param(DOCS / "gpu.md", marks=EMULATED)], ids=lambda page: page.stem)
def test_page_prints_what_it_shows(page: Path) -> None:
    assert check(page.read_text(encoding="utf-8"), page.name) > 0


PAGE = "```python\nx = 1.25\n```\nThen\n\n```python\nprint(x)\n```\n\n```text\n1.25\n```\n"


def test_a_page_is_one_namespace() -> None:
    assert check(PAGE, "page") == 2


@pytest.mark.parametrize(
    "wrong",
    [
        PAGE.replace("text\n1.25", "text\n1.26"),  # a digit
        PAGE.replace("x = 1.25", "x = 1.2"),
        PAGE.replace("text\n1.25", "text\n1.25\n1.25"),
        PAGE.replace("```text\n1.25\n```\n", ""),  # output that the page does not show
        PAGE.replace("\n\n```text", "\nelsewhere:\n```text"),
    ],
)
def test_a_wrong_page_fails(wrong: str) -> None:
    assert wrong != PAGE
    with pytest.raises(AssertionError, match="page:"):
        check(wrong, "page")


def test_links_between_pages_and_code_hold() -> None:
    pages = sorted(DOCS.rglob("*.md"))
    links = [(p, link) for p in pages for link in re.findall(r"\]\(([^)#:]+)\)", p.read_text(encoding="utf-8"))]
    assert [f"{p.name}: {link}" for p, link in links if not (p.parent / link).exists()] == []
