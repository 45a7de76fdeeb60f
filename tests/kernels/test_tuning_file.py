"""The file that keeps measured times: shared, foreign, damaged, or not to be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import threads
from minires.errors import ArgumentError
from minires.kernels import ConvGeometry, choice

X = np.ones((4, 6), np.float32)
GEOMETRY = ConvGeometry(stride=(2, 2))


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
