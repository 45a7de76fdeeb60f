"""Which `.cu` files a real GPU has run as they are now. `python -m benchmarks.gpu_report` keeps the record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ...files import publish
from . import compiler
from .compiler import stems

FILE = Path(__file__).with_name("verified.json")


def fingerprint(stem: str) -> str:
    """SHA-256 of what a stem's results depend on: the `.cu` file, its launcher, and what compiles and multiplies."""
    texts = [compiler.FOLDER.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in (stem, "compiler", "blas")]
    return hashlib.sha256("\0".join([compiler.fingerprint(stem), *texts]).encode()).hexdigest()


def record(device: str, date: str, commit: str | None, verified: list[str]) -> None:
    """Note that these stems gave right results on a device, as they are now; the others that they did not."""
    content = {"device": device, "date": date, "commit": commit, "stems": {s: fingerprint(s) for s in sorted(verified)}}
    temporary = FILE.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
        publish(file, FILE)


def status() -> str:
    """One line on the kernels: where they were verified, and which of them have changed since or never were."""
    if not FILE.exists():
        return "kernels never run on a GPU yet (emulated only)"
    try:
        content = json.loads(FILE.read_text(encoding="utf-8"))
        where, known = f"{content['device']}, {content['date']}", dict(content["stems"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"kernels: {FILE.name} is damaged ({type(error).__name__}); `python -m benchmarks.gpu_report` makes it"
    changed = [stem for stem in stems() if stem in known and known[stem] != fingerprint(stem)]
    never = [stem for stem in stems() if stem not in known]
    parts = [f"kernels verified on {where}"]
    parts += [f"changed since: {', '.join(changed)}"] * bool(changed) + [f"not yet: {', '.join(never)}"] * bool(never)
    return "; ".join(parts)
