"""Measuring which variant is the fastest, and the file that keeps the times."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import kernels, threads
from minires.errors import ArgumentError
from minires.kernels import Accepts, ConvGeometry, choice, choices, registry, use

X = np.ones((4, 6), np.float32)
GEOMETRY = ConvGeometry(stride=(2, 2))


@pytest.fixture
def tuned() -> Iterator[None]:
    minires.set_tuning(True)
    yield
    minires.set_tuning(False)


def test_the_fastest_is_measured_once_and_remembered(fake: Any, clock: Any, tuned: None) -> None:
    f = fake(a=3.0, b=2.0, c=2.5)
    assert f(X) == "b"
    assert clock.calls == [*(choice.ROUNDS * "aabbcc"), "b"]
    clock.calls.clear()
    assert (f(2 * X), f(X), f(X)) == ("b", "b", "b")
    assert clock.calls == ["b", "b", "b"]
    assert f(X[:2]) == "b"
    assert len(clock.calls) > 4
    assert [row.seconds for row in choices() if row.kernel == "fake"] == [{"a": 3.0, "b": 2.0, "c": 2.5}] * 2
    assert fake.rows() == [("b", "measured")] * 2


def test_nothing_is_measured_unless_asked(fake: Any, clock: Any) -> None:
    assert fake(a=3.0, b=2.0)(X) == "a"
    assert clock.calls == ["a"]
    assert fake.rows() == [("a", "estimated")]


def test_estimates_do_not_matter_where_times_are_known(fake: Any, tuned: None) -> None:
    f = fake(a={"seconds": 1.0, "cost": lambda *_: 9.0}, b={"seconds": 2.0, "cost": lambda *_: 1.0})
    assert f(X) == "a"
    minires.set_tuning(False)
    assert f(X) == "b"
    assert fake.rows() == [("b", "estimated")]


def test_of_equally_fast_ones_the_first_runs(fake: Any, tuned: None) -> None:
    assert fake(a=1.02, b=1.0)(X) == "a"
    assert fake("other", a=1.1, b=1.01, c=1.0)(X) == "b"


def test_a_turn_gives_the_median_of_its_later_half(fake: Any, clock: Any) -> None:
    def takes(*turns: list[float]) -> Any:
        seconds = iter([s for turn in turns for s in turn])
        return lambda: clock.spend("", next(seconds) * choice.TURN)

    long = takes([9, 3], [1, 2], [7, 1])  # of a turn each: two calls
    short = takes([0.5, 0.1, 0.1, 0.1, 0.3], [0.4, 0.3, 0.2, 0.3], [0.6, 0.3, 0.6])
    assert choice.measure({"long": long}) == pytest.approx({"long": 2 * choice.TURN})
    assert choice.measure({"short": short}) == pytest.approx({"short": 0.25 * choice.TURN})


def test_a_hopeless_candidate_has_one_turn(fake: Any, clock: Any, tuned: None) -> None:
    assert fake(slow=1.6, a=1.0, b=1.5)(X) == "a"
    assert (clock.calls.count("slow"), clock.calls.count("b")) == (2, 2 * choice.ROUNDS)


def test_an_infinite_cost_is_for_want_of_a_better_one(fake: Any, clock: Any, tuned: None) -> None:
    last = {"seconds": 1.0, "cost": lambda *_: np.inf}
    f = fake(last=last, a={"seconds": 3.0, "suits": lambda x, *_: len(x) > 2}, b=2.0)
    assert f(X) == "b"
    rows = [(row.variant, dict(row.seconds)) for row in choices() if row.kernel == "fake"]
    assert rows == [("b", {"a": 3.0, "b": 2.0})]
    clock.calls.clear()
    assert (f(X[:2]), clock.calls) == ("b", ["b"])
    assert fake("other", last=last)(X) == "last"
    assert fake("another", last=last, later=last)(X) == "last"


def test_one_candidate_is_not_measured(fake: Any, clock: Any, tuned: None) -> None:
    f = fake(a=1.0, b={"seconds": 1.0, "suits": lambda *_: False}, c={"seconds": 1.0, "precision": "fast"})
    assert (f(X), f(X.astype(np.float64))) == ("a", "portable")
    assert clock.calls == ["a", "portable"]
    assert fake.rows() == [("a", "only"), ("portable", "only")]


def test_a_forced_variant_is_not_measured(fake: Any, clock: Any, tuned: None) -> None:
    f = fake(a=2.0, b=1.0)
    with use(fake="a"):
        assert f(X) == "a"
    assert clock.calls == ["a"]


def test_a_kernel_that_works_in_place_is_not_measured(fake: Any, clock: Any, tuned: None) -> None:
    assert fake("fake_", a=2.0, b=1.0)(X) == "a"
    assert clock.calls == ["a"]


def test_precisions_are_measured_apart(fake: Any, tuned: None) -> None:
    f = fake(a=3.0, b=2.0, rough={"seconds": 1.0, "precision": "fast"})
    assert f(X) == "b"
    with kernels.precision("fast"):
        assert f(X) == "rough"
    assert f(X) == "b"


def test_float16_is_measured_as_the_float32_that_it_runs_as(clock: Any, tuned: None, fake: Any) -> None:
    f = fake(a=2.0, b=1.0)
    assert f(X.astype(np.float16)) == "b"
    assert fake.rows() == [("portable", "only"), ("b", "measured")]


def test_blocks_on_threads_do_not_measure(fake: Any, clock: Any, tuned: None) -> None:
    f, results = fake(a=2.0, b=1.0), {}

    def work(blocks: Iterator[int]) -> None:
        for block in blocks:
            results[block] = f(X)

    threads.share(work, range(4))
    assert results == dict.fromkeys(range(4), "a")
    assert clock.calls == ["a"] * 4
    assert f(X) == "b"  # nothing was remembered that keeps it from being measured now
    threads.share(work, range(4))
    assert results == dict.fromkeys(range(4), "b")


def test_a_candidate_may_call_kernels_that_are_measured(fake: Any, tuned: None) -> None:
    inner = fake("inner", a=2.0, b=1.0)
    f = fake(a=3.0)

    def fake_nested(x: Any, geometry: Any = None, bias: Any = None) -> str:
        return "nested " + inner(x)

    kernels.variant(f, Accepts("cpu"))(fake_nested)
    assert f(X) == "nested b"
    assert (fake.rows("inner"), fake.rows()) == ([("b", "measured")], [("nested", "measured")])


def test_an_error_of_a_candidate_is_the_callers(fake: Any, tuned: None) -> None:
    f = fake(a=1.0)

    def fake_broken(x: Any, geometry: Any = None, bias: Any = None) -> str:
        raise ZeroDivisionError

    kernels.variant(f, Accepts("cpu"))(fake_broken)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            f(X)
    assert fake("other", a=2.0, b=1.0)(X) == "b"


def test_arguments_that_never_come_again_are_not_measured_for_ever(
    fake: Any, clock: Any, tuned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MOST", 3)
    f = fake(a=2.0, b=1.0)
    assert [f(X, seed) for seed in range(5)] == ["b", "b", "b", "a", "a"]
    assert f(X, 1) == "b"


def test_threads_measure_one_at_a_time(fake: Any, clock: Any, tuned: None) -> None:
    f, results = fake(a=3.0, b=2.0), []
    shapes = [np.ones((n, 6), np.float32) for n in range(1, 9)]
    start = threading.Barrier(4)

    def call() -> None:
        start.wait()
        results.extend([f(x) for x in shapes])

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == ["b"] * 32
    assert clock.calls.count("a") == len(shapes) * 2 * choice.ROUNDS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_thread_measures_can_measure(fake: Any, tuned: None) -> None:
    f, forked, measuring = fake(a=2.0, b=1.0), threading.Event(), threading.Event()
    slow = fake("slow", a=1.0)

    def slow_waiting(x: Any, geometry: Any = None, bias: Any = None) -> str:
        measuring.set()
        forked.wait(60)
        fake.clock.spend("waiting", 1)
        return "waiting"

    kernels.variant(slow, Accepts("cpu"))(slow_waiting)
    thread = threading.Thread(target=slow, args=(X,))
    thread.start()
    try:
        measuring.wait(60)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                os._exit(0 if f(X) == "b" else 1)
            finally:
                os._exit(2)
    finally:
        forked.set()
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# The file


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "folder" / "times.json"
    minires.set_tuning(True, cache=path)
    yield path
    minires.set_tuning(False)


def times(path: Path) -> dict[str, Any]:
    """What a file holds for this machine."""
    content = json.loads(path.read_text())
    assert set(content) == {"format", "machines"}
    return content["machines"][choice._machine()]


def test_measurements_are_found_by_the_next_process(fake: Any, clock: Any, cache: Path) -> None:
    f = fake(a=3.0, b=2.0)
    f(X)
    f(X[:2], GEOMETRY)
    count = f"precision exact, {threads.get_num_threads()} threads"
    assert times(cache) == {
        f"fake(x=float32 (4, 6) on cpu), {count}": {"a": 3.0, "b": 2.0},
        f"fake(x=float32 (2, 6) on cpu, geometry={GEOMETRY}), {count}": {"a": 3.0, "b": 2.0},
    }
    assert [p.name for p in cache.parent.iterdir()] == ["times.json"]
    minires.set_tuning(True, cache=str(cache))  # begins anew, as another process would
    clock.calls.clear()
    assert f(X) == "b"
    assert clock.calls == ["b"]
    assert fake.rows() == [("b", "measured")]


def test_what_a_kernel_of_other_variants_took_is_measured_again(fake: Any, clock: Any, cache: Path) -> None:
    fake(a=3.0, b=2.0, c=1.0)(X)
    minires.set_tuning(True, cache=cache)
    assert fake(a=3.0, b=2.0)(X) == "b"
    assert next(iter(times(cache).values())) == {"a": 3.0, "b": 2.0}


def test_the_order_of_variants_is_the_registrys_not_the_files(fake: Any, cache: Path) -> None:
    fake(a=1.01, b=1.0)(X)
    minires.set_tuning(True, cache=cache)
    assert fake(b=1.0, a=1.01)(X) == "b"


def test_another_machines_times_are_kept_and_not_used(
    fake: Any, clock: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = fake(a=3.0, b=2.0)
    with monkeypatch.context() as patch:
        patch.setattr(choice, "_machine", lambda: "an abacus")
        f(X)
    minires.set_tuning(True, cache=cache)
    clock.calls.clear()
    f(X)
    assert len(clock.calls) > 1
    content = json.loads(cache.read_text())
    assert list(content["machines"]) == ["an abacus", choice._machine()]
    assert content["machines"]["an abacus"] == times(cache)


def test_the_machine_is_named_with_all_that_times_depend_on() -> None:
    from minires import environment

    name = choice._machine()
    for part in (environment.processor(), f"minires {minires.__version__}", f"NumPy {np.__version__}", " cores"):
        assert part in name
    assert name.endswith(environment.blas().partition(",")[0])


def test_two_processes_add_to_one_file(fake: Any, cache: Path) -> None:
    f = fake(a=3.0, b=2.0)
    f(X)
    mine = choice.get_tuner()
    minires.set_tuning(True, cache=cache)
    f(X[:2])
    theirs = choice.get_tuner()
    assert mine is not theirs
    mine.times("third", {"a": lambda: fake.clock.spend("a", 1)})
    assert len(times(cache)) == 3
    assert mine.measured.keys() == times(cache).keys()  # and it has learnt theirs


GOOD = {"format": choice.FORMAT, "machines": {}}
BAD = {
    "empty": b"",
    "cut off": json.dumps(GOOD).encode()[:-3],
    "bytes": bytes(range(256)),
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "of another program": b'{"important": 1}',
    "of another format": json.dumps(GOOD | {"format": "minires kernel times 0"}).encode(),
    "machines a list": json.dumps(GOOD | {"machines": []}).encode(),
    "a machine a number": json.dumps(GOOD | {"machines": {"x": 1}}).encode(),
    "times a list": json.dumps(GOOD | {"machines": {"x": {"key": [1.0]}}}).encode(),
    "a time a text": json.dumps(GOOD | {"machines": {"x": {"key": {"a": "1"}}}}).encode(),
    "a time NaN": json.dumps(GOOD | {"machines": {"x": {"key": {"a": float("nan")}}}}).encode(),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_cache_is_told_of_once_and_left_alone(kind: str, fake: Any, cache: Path, clock: Any) -> None:
    cache.parent.mkdir()
    cache.write_bytes(BAD[kind])
    f = fake(a=3.0, b=2.0)
    with pytest.warns(RuntimeWarning, match=r"times\.json is no file of kernel times: .*; kernels are") as warned:
        assert f(X) == "b"
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert f(X[:2]) == "b"  # warnings are errors here
    assert clock.calls.count("a") == 2 * 2 * choice.ROUNDS
    assert cache.read_bytes() == BAD[kind]


def test_a_file_damaged_meanwhile_is_left_alone(fake: Any, cache: Path) -> None:
    f = fake(a=3.0, b=2.0)
    f(X)
    cache.write_bytes(b"damaged")
    with pytest.warns(RuntimeWarning, match="no file of kernel times"):
        f(X[:2])
    f(X[:1])
    assert (fake.rows(), cache.read_bytes()) == ([("b", "measured")] * 3, b"damaged")


@pytest.mark.parametrize("place", ["file/times.json", "folder", "a" * 300])
def test_a_file_that_cannot_be_written_is_told_of_once(place: str, fake: Any, clock: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    minires.set_tuning(True, cache=tmp_path / place)
    try:
        f = fake(a=3.0, b=2.0)
        with pytest.warns(RuntimeWarning, match="kernels are measured without it"):
            assert f(X) == "b"
        assert f(X[:2]) == "b"
    finally:
        minires.set_tuning(False)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_write_that_fails_leaves_the_old_file(fake: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    f = fake(a=3.0, b=2.0)
    f(X)
    before = cache.read_bytes()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(choice, "publish", full)
    with pytest.warns(RuntimeWarning, match=r"times\.json cannot be written: no space left"):
        f(X[:2])
    assert cache.read_bytes() == before
    assert [p.name for p in cache.parent.iterdir()] == ["times.json"]


def test_a_relative_file_stays_where_it_was_named(fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    minires.set_tuning(True, cache="times.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fake(a=3.0, b=2.0)(X)
    minires.set_tuning(False)
    assert len(times(tmp_path / "times.json")) == 1


def test_a_cache_without_measuring_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="set_tuning: a cache is of use only where kernels are measured"):
        minires.set_tuning(False, cache=tmp_path / "x")
    assert not minires.get_tuning()


def test_measured_on_a_real_clock_a_real_kernel_gives_the_same_result(tuned_convolution: Any) -> None:
    want, got, how = tuned_convolution
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert how in ("only", "measured")


@pytest.fixture
def tuned_convolution(rng: np.random.Generator) -> Iterator[Any]:
    x, w = rng.standard_normal((2, 8, 8, 16), np.float32), rng.standard_normal((3, 3, 16, 16), np.float32)
    geometry = ConvGeometry(padding=(1, 1, 1, 1))
    with use("portable"):
        want = kernels.conv2d(x, w, geometry)
    minires.set_tuning(True)
    got = kernels.conv2d(x, w, geometry)
    yield want, got, registry["conv2d"].choose((x, w, geometry), {}).how
    minires.set_tuning(False)
