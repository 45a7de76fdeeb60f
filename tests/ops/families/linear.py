"""Matrix products: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from minires import ops
from minires.ops.linear import Linear, MatMul
from tests import reference
from tests.ops.case import Case, normal
from tests.ops.mutant import Mutant, replaced, zero


def product_of(name: str, *shapes: tuple[int, ...], batched: tuple[int, ...] = (0,)) -> Case:
    return Case(
        f"linear-matmul-{name}", ops.matmul, reference.matmul, lambda t, a, b: t.matmul(a, b),
        normal(*shapes), "gemm", "gemm", batched=batched,
    )  # fmt: skip


def affine(name: str, *shapes: tuple[int, ...]) -> Case:
    return Case(
        f"linear-linear-{name}", ops.linear, reference.linear, lambda t, *a: t.nn.functional.linear(*a),
        normal(*shapes), "gemm", "gemm",
    )  # fmt: skip


CASES = [
    product_of("matrices", (4, 3), (3, 5)),
    product_of("square", (4, 4), (4, 4)),
    product_of("row", (3,), (3, 5), batched=()),
    product_of("column", (4, 3), (3,)),
    product_of("vectors", (5,), (5,), batched=()),
    product_of("batch", (2, 4, 3), (2, 3, 5), batched=(0, 1)),
    product_of("repeated", (2, 4, 3), (3, 5)),
    product_of("repeated-left", (4, 3), (2, 3, 5), batched=(1,)),
    product_of("broadcast", (2, 1, 4, 3), (3, 3, 2)),
    product_of("broadcast-both", (2, 1, 2, 3), (1, 3, 3, 2)),
    product_of("row-by-batch", (3,), (2, 3, 5), batched=(1,)),
    product_of("batch-by-column", (2, 4, 3), (3,)),
    product_of("batch-of-one", (1, 4, 3), (2, 3, 5), batched=(1,)),
    affine("bias", (4, 3), (5, 3), (5,)),
    affine("no-bias", (4, 3), (5, 3)),
    affine("one-row", (1, 3), (5, 3), (5,)),
    affine("sequence", (2, 4, 3), (5, 3), (5,)),
    affine("vector", (3,), (3, 3), (3,)),
]
CASES[-1] = Case(**{**vars(CASES[-1]), "batched": ()})

MUTANTS = [
    Mutant("not-transposed", MatMul, "linear-matmul-square", replaced(0, lambda self, gy, g: gy @ self.saved[1])),
    Mutant("transposed", MatMul, "linear-matmul-square", replaced(1, lambda self, gy, g: g.T.copy())),
    Mutant("lost-batch-sum", MatMul, "linear-matmul-repeated", replaced(
        1, lambda self, gy, g: self.saved[0][0].T @ gy[0])),
    Mutant("one-of-the-batch", MatMul, "linear-matmul-batch-of-one", replaced(
        0, lambda self, gy, g: gy[:1] @ self.saved[1][:1].swapaxes(-1, -2))),
    Mutant("no-bias", Linear, "linear-linear-bias", zero),
    Mutant("mean-bias", Linear, "linear-linear-bias", replaced(2, lambda self, gy, g: g / len(gy))),
    Mutant("lost-rows", Linear, "linear-linear-sequence", replaced(1, lambda self, gy, g: gy[0].T @ self.saved[0][0])),
]  # fmt: skip

SIMPLEST = {
    MatMul: "linear-matmul-matrices",
    Linear: "linear-linear-bias",
}
