"""What hypothesis draws: arrays of any shape, floating type and memory layout.

Numbers are multiples of 1/8, which every floating type holds exactly: the same draw means the same in each, and ties
and zeros are common. Inputs stay small, so that a failure shrinks to something readable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.helpers import LAYOUTS, laid_out

dtypes = st.sampled_from([np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)])
layouts = st.sampled_from(list(LAYOUTS))


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4) -> st.SearchStrategy[Any]:
    """Shapes; by default also those without dimensions, and those of no elements."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcastable(count: int = 2, max_dims: int = 3, max_side: int = 3) -> st.SearchStrategy[Any]:
    """`count` shapes that broadcast against each other; sizes of 0 and 1 are common."""
    drawn = hnp.mutually_broadcastable_shapes(
        num_shapes=count, min_dims=0, max_dims=max_dims, min_side=0, max_side=max_side
    )
    return drawn.map(lambda shapes: list(shapes.input_shapes))


def numbers(low: float = -4, high: float = 4) -> st.SearchStrategy[float]:
    """Multiples of 1/8 in [low, high]."""
    return st.integers(round(low * 8), round(high * 8)).map(lambda eighths: eighths / 8)


@st.composite
def arrays(
    draw: Any, shape: Any = None, dtype: Any = None, low: float = -4, high: float = 4, layout: str | None = None
) -> np.ndarray:
    """An array of multiples of 1/8 in [low, high]. `shape` and `dtype` may be strategies; what is None is drawn.

    Its contiguous twin is `a.copy(order="C")`.
    """
    shape = draw(shape if isinstance(shape, st.SearchStrategy) else shapes() if shape is None else st.just(shape))
    dtype = draw(dtype if isinstance(dtype, st.SearchStrategy) else dtypes if dtype is None else st.just(dtype))
    values = draw(hnp.arrays(np.float64, shape, elements=numbers(low, high), fill=st.nothing())).astype(dtype)
    return laid_out(values, draw(layouts) if layout is None else layout)
