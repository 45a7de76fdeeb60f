"""Runs checks of mutants where an access outside of an array ends the program: `python -m tests.cuda.sanitized`.

Takes a folder of sources and the mutants' places in OUT_OF_BOUNDS. Prints "done" at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

import minires
from minires.kernels.cuda import compiler
from tests.cuda import fake_cupy
from tests.cuda.mutants import OUT_OF_BOUNDS

if __name__ == "__main__":
    minires.set_precision("exact")
    compiler.FOLDER = Path(sys.argv[1])
    with fake_cupy.installed():
        import cupy

        for place in sys.argv[2:]:
            OUT_OF_BOUNDS[int(place)].check(cupy)
    print("done")
