"""The checker is checked: gradcheck passes each op, and refuses the op with a planted mistake on the same input."""

from __future__ import annotations

from collections import Counter

import pytest

from minires import gradcheck
from minires.errors import GraphError
from tests.helpers import mutant
from tests.ops.cases import BY_NAME, FAMILIES, MUTANTS, SIMPLEST
from tests.ops.mutant import Mutant
from tests.ops.test_cases import functions


@pytest.mark.parametrize("planted", MUTANTS, ids=str)
def test_mutant_is_caught(planted: Mutant) -> None:
    case = BY_NAME[planted.case]
    fn, floats = case.on_floats(case.inputs())
    gradcheck(fn, floats)
    with mutant(planted.function, planted.wrong), pytest.raises(GraphError, match="gradcheck: relative error"):
        gradcheck(fn, floats)
    gradcheck(fn, floats)


def test_mutants_are_many_and_distinct() -> None:
    assert len({str(m) for m in MUTANTS}) == len(MUTANTS)
    by_hand = Counter(str(m).partition("-")[0] for m in MUTANTS if not m.mistake.startswith("times"))
    assert all(by_hand[family] >= 3 for family in FAMILIES)
    assert {f.__name__ for f in functions() - SIMPLEST.keys()} == {"Cast"}
