"""README's example does what README shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_what_stands_below_it() -> None:
    """Digit for digit but the last, which another processor's rounding may move."""
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line]) <= 14
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    number = re.compile(r"\d+\.\d+")
    assert number.sub("", printed.getvalue()) == number.sub("", shown)
    for ours, theirs in zip(number.findall(printed.getvalue()), number.findall(shown), strict=True):
        assert abs(float(ours) - float(theirs)) <= 0.05


def test_the_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) > 10
    assert not [link for link in links if not (Path(__file__).parent.parent / link).exists()]
