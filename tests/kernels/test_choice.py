"""What decides between variants where nothing is measured: precision, what suits, estimates."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import kernels, threads
from minires.errors import ArgumentError
from minires.kernels import Accepts, ConvGeometry, choices, registry, use

X = np.ones((4, 6), np.float32)
GEOMETRY = ConvGeometry(stride=(2, 2))


def wide(x: Any, geometry: Any = None, bias: Any = None) -> bool:
    """at least 4 columns

    More than the first line is not told.
    """
    return x.shape[1] >= 4


# What suits, and what it costs


def test_a_variant_that_does_not_suit_is_passed_over(fake: Any) -> None:
    f = fake(narrow={"suits": lambda x, geometry=None, bias=None: x.shape[1] < 4}, wide={"suits": wide})
    assert (f(X), f(X[:, :2].copy()), f(x=X)) == ("wide", "narrow", "wide")


def test_suits_and_cost_get_the_kernels_arguments_as_they_were_passed(fake: Any) -> None:
    seen: list[Any] = []

    def note(*args: Any, **kwargs: Any) -> bool:
        seen.append((args, kwargs))
        return True

    f = fake(a={"suits": note, "cost": lambda *a, **k: 1.0}, b={"suits": note, "cost": note})
    f(X, GEOMETRY, bias=None)
    assert len(seen) == 3
    for args, kwargs in seen:
        assert args[0] is X
        assert (args[1:], kwargs) == ((GEOMETRY,), {"bias": None})


def test_the_least_cost_runs_and_the_first_of_equals(fake: Any) -> None:
    def by_rows(slope: float) -> Any:
        return {"cost": lambda x, geometry=None, bias=None: 5 + slope * len(x)}

    f = fake(steep=by_rows(2), flat=by_rows(1), flat_too=by_rows(1))
    assert (f(X), f(X[:0])) == ("flat", "steep")
    assert fake("other", a={}, b={})(X) == "a"
    assert fake("another", a={"cost": lambda *_: 0.5}, b={})(X) == "b"


def test_a_forced_variant_that_does_not_suit_is_refused(fake: Any) -> None:
    f = fake(wide={"suits": wide}, silent={"suits": lambda *_: False})
    with use(fake="wide"):
        assert f(X) == "wide"
        message = (
            r"kernel fake: variant 'wide' was forced, but takes Accepts\(.*\); at least 4 columns, "
            r"not float32 \(4, 2\) on cpu, ConvGeometry\(stride=\(2, 2\).*\)$"
        )
        for _ in range(2):
            with pytest.raises(ArgumentError, match=message) as raised:
                f(X[:, :2].copy(), GEOMETRY)
            assert raised.value.__context__ is None
    with use(fake="silent"), pytest.raises(ArgumentError, match=r"; what its suits\(\) takes, not float32"):
        f(X)


# Precision


def test_precision_begins_fast_and_can_be_set_outside(tmp_path: Path) -> None:
    def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MINIRES_PRECISION", "MINIRES_TUNE"))}
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", f"import minires\nfrom minires.kernels import setting\n{code}"],
            capture_output=True, text=True, env=environment | variables, cwd=Path(__file__).parents[2],
        )  # fmt: skip

    state = "print(setting(), minires.get_precision(), minires.get_tuning())"
    assert python(state).stdout == "precision fast fast False\n"
    assert python(state, MINIRES_PRECISION="exact", MINIRES_TUNE="0").stdout == "precision exact exact False\n"
    assert python(state, MINIRES_TUNE="1").stdout == "precision fast, kernels measured fast True\n"
    assert python(state, MINIRES_TUNE_CACHE="x").stdout == "precision fast, kernels measured fast True\n"
    assert python(state, MINIRES_TUNE_CACHE="x", MINIRES_TUNE="0").stdout == "precision fast fast False\n"
    wrong = python(state, MINIRES_PRECISION="half").stderr.splitlines()[-1]
    assert wrong.endswith("ArgumentError: MINIRES_PRECISION: the precision is 'exact', 'fast' or 'tf32', not 'half'")
    assert python(state, MINIRES_TUNE="yes").stderr.splitlines()[-1].endswith("MINIRES_TUNE must be 0 or 1, not 'yes'")


def test_fast_variants_run_only_under_fast(fake: Any) -> None:
    f = fake(rough={"precision": "fast"}, plain={})
    assert f(X) == "plain"
    with kernels.precision("fast"):
        assert f(X) == "rough"
        with kernels.precision("exact"):
            assert f(X) == "plain"
        with use(fake="plain"):
            assert f(X) == "plain"
    with use(fake="rough"):
        assert f(X) == "rough"
    assert f(X) == "plain"


def test_precision_of_the_process_and_of_a_block() -> None:
    assert minires.get_precision() == "exact"  # tests/conftest.py
    try:
        minires.set_precision("fast")
        assert minires.get_precision() == "fast"
        assert kernels.setting() == "precision fast"
        with kernels.precision("exact"):
            assert minires.get_precision() == "exact"
            minires.set_precision("exact")
            minires.set_precision("fast")
            assert minires.get_precision() == "exact"
        assert minires.get_precision() == "fast"
    finally:
        minires.set_precision("exact")


def test_a_block_of_precision_ends_with_an_error_and_may_decorate() -> None:
    @minires.precision("fast")
    def inside() -> str:
        return minires.get_precision()

    with pytest.raises(KeyError), kernels.precision("fast"):
        raise KeyError
    assert (inside(), inside(), minires.get_precision()) == ("fast", "fast", "exact")


@pytest.mark.parametrize("wrong", ["Fast", "", "float16", None, 3])
def test_a_wrong_precision_is_refused(wrong: Any, fake: Any) -> None:
    with pytest.raises(
        ArgumentError, match=f"set_precision: the precision is 'exact', 'fast' or 'tf32', not {wrong!r}"
    ):
        minires.set_precision(wrong)
    with pytest.raises(ArgumentError, match=f"precision: the precision is 'exact', 'fast' or 'tf32', not {wrong!r}"):
        kernels.precision(wrong).__enter__()
    with pytest.raises(ArgumentError, match=f"variant of fake: the precision is .* not {wrong!r}"):
        fake(a={"precision": wrong})
    assert minires.get_precision() == "exact"


def test_threads_do_not_see_each_others_precision_but_blocks_see_their_callers() -> None:
    seen: dict[str, str] = {}

    def look(name: str) -> None:
        seen[name] = minires.get_precision()

    def work(blocks: Iterator[int]) -> None:
        for block in blocks:
            look(f"block {block}")

    with kernels.precision("fast"):
        for name, target in (("fresh", look), ("copied", copy_context().run)):
            thread = threading.Thread(target=target, args=(name,) if target is look else (look, name))
            thread.start()
            thread.join()
        threads.share(work, range(8))
    assert seen.pop("fresh") == "exact"
    assert set(seen.values()) == {"fast"}
    assert len(seen) == 9


# What is remembered


def test_a_choice_is_made_once_for_each_kind_of_call(fake: Any) -> None:
    asked = []

    def suits(x: Any, geometry: Any = None, bias: Any = None) -> bool:
        asked.append(x.shape)
        return True

    f = fake(a={"suits": suits})
    for _ in range(3):
        for x in (X, 2 * X, X[:2], X.T, X[:, ::2]):
            f(x, ConvGeometry((1, 2)), None)
    assert asked == [(4, 6), (2, 6)]  # the rest is not contiguous
    f(X, ConvGeometry((2, 1)), None)
    f(X, ConvGeometry((1, 2)), X[0])
    f(X.astype(np.float64))
    assert len(asked) == 4
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(before + 1)
        f(X, ConvGeometry((1, 2)), None)
    finally:
        threads.set_num_threads(before)
    f(X, ConvGeometry((1, 2)), None)
    assert len(asked) == 5


def test_a_variant_registered_later_is_seen(fake: Any) -> None:
    f = fake()
    assert f(X) == "portable"

    def fake_late(x: Any, geometry: Any = None, bias: Any = None) -> str:
        return "late"

    kernels.variant(f, Accepts("cpu"))(fake_late)
    assert f(X) == "late"


def test_arguments_without_a_hash_are_chosen_for_each_time(fake: Any) -> None:
    f = fake(a={"suits": lambda x, geometry=None, bias=None: not geometry})
    assert (f(X, {}), f(X, {1: 1}), f(X, {})) == ("a", "portable", "a")
    assert fake.rows() == []


def test_the_memory_of_choices_is_bounded(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minires.kernels.dispatch.REMEMBERED", 10)
    f = fake(a={})
    for i in range(100):
        assert f(X, i / 7) == "a"
        assert len(registry["fake"].remembered) <= 10


def test_choices_says_what_runs_and_why(fake: Any) -> None:
    f = fake(
        a={"cost": lambda *_, **__: 2e-3}, b={"cost": lambda *_, **__: 1e-3}, wide={"suits": lambda *_, **__: False}
    )
    f(X, bias=X[0])
    f(X.T, GEOMETRY)
    with use(fake="a"):
        f(X)
    kind, setting = "x=float32 (4, 6) on cpu", ("exact", threads.get_num_threads())
    strided = f"x=float32 (6, 4) on cpu, not contiguous, geometry={GEOMETRY}"
    assert [row for row in choices() if row.kernel == "fake"] == [
        ("fake", f"{kind}, bias=float32 (6,) on cpu", *setting, "b", "estimated", {"a": 2e-3, "b": 1e-3}),
        ("fake", strided, *setting, "portable", "only", {}),
        ("fake", kind, *setting, "a", "forced", {}),
    ]


def test_the_header_says_that_a_cpu_has_no_tf32() -> None:
    with minires.precision("tf32"):
        assert kernels.setting() == kernels.setting("cpu") == "precision tf32 (on a CPU: fast)"
        assert kernels.setting("cuda:0") == "precision tf32"


@pytest.mark.parametrize("precision", ["exact", "fast", "tf32"])
def test_each_precision_allows_those_before_it(fake: Any, precision: str) -> None:
    f = fake(a={"precision": "tf32", "cost": lambda *_: 1.0}, b={"precision": "fast", "cost": lambda *_: 2.0})
    with minires.precision(precision):
        assert f(X) == {"exact": "portable", "fast": "b", "tf32": "a"}[precision]


def test_numbers_that_decide_nothing_are_not_remembered(fake: Any) -> None:
    """A learning rate may be new at each step."""
    f = fake(a={})
    for rate in range(5):
        assert f(X, 0.1 * rate) == "a"
    assert fake.rows() == [("a", "only")]
    g = fake("decided", a={"suits": lambda x, geometry, bias=None: geometry < 0.25})
    assert [g(X, 0.1 * rate) for rate in range(4)] == ["a", "a", "a", "portable"]
