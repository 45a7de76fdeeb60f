"""Compiles `.cu` files with the real NVRTC, in a process of its own: `python -m tests.cuda.nvrtc FOLDER ARCHS STEM...`.

Prints one line of JSON for each compilation, or what is missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: str, archs: str, *stems: str) -> None:
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        print(json.dumps({"missing": str(error)}))
        return
    from minires.errors import DeviceError
    from minires.kernels.cuda import compiler

    compiler.FOLDER = Path(folder)
    for stem in stems:
        for arch in archs.split(","):
            for width in (1, 4):
                try:
                    code, log = compiler.compile_cubin(compiler.source(stem), f"{stem}.cu", arch, width)
                except DeviceError as error:
                    code, log = b"", str(error)
                made = {"stem": stem, "arch": arch, "width": width, "log": log, "size": len(code)}
                print(json.dumps({**made, "elf": code[:4] == b"\x7fELF"}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
