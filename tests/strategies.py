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
    """Shapes; by default also those without dimensions, and those of no elements. Every other one is of many."""
    anything = hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)
    dims, side = (max(least, min(2, most)) for least, most in ((min_dims, max_dims), (min_side, max_side)))
    many = hnp.array_shapes(min_dims=dims, max_dims=max_dims, min_side=side, max_side=max_side)
    return st.one_of(anything, many)


def broadcastable(count: int = 2, max_dims: int = 3, max_side: int = 3) -> st.SearchStrategy[Any]:
    """`count` shapes that broadcast against each other; sizes of 1 are common, and in every other draw also of 0."""
    drawn = [
        hnp.mutually_broadcastable_shapes(
            num_shapes=count, min_dims=least, max_dims=max_dims, min_side=least, max_side=max_side
        )
        for least in (0, 1)
    ]
    return st.one_of(drawn).map(lambda shapes: list(shapes.input_shapes))


@st.composite
def arrays(
    draw: Any, shape: Any = None, dtype: Any = None, low: float = -4, high: float = 4, layout: str | None = None
) -> np.ndarray:
    """An array of multiples of 1/8 in [low, high]. `shape` and `dtype` may be strategies; what is None is drawn.

    Its contiguous twin is `a.copy(order="C")`.
    """
    shape = draw(shape if isinstance(shape, st.SearchStrategy) else shapes() if shape is None else st.just(shape))
    dtype = draw(dtype if isinstance(dtype, st.SearchStrategy) else dtypes if dtype is None else st.just(dtype))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = np.asarray(rng.integers(round(low * 8), round(high * 8) + 1, shape) / 8, dtype)
    return laid_out(values, draw(layouts) if layout is None else layout)
