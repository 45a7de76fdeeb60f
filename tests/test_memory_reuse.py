"""Memory that is used again: never while anybody sees it, and never much more than is needed."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minires
from minires import Tensor, memory, models, nn, optim
from tests.oracle import torch

LARGE = (300, 257)  # float32 of this shape is pooled
PIECE = 76 * memory.PAGE  # what it takes of a region


def filled(value: float, shape: tuple[int, ...] = LARGE) -> np.ndarray:
    array = memory.empty(shape, np.float32)
    array[...] = value
    return array


@pytest.fixture(autouse=True)
def nothing_left_to_die() -> None:
    """What earlier tests left in cycles would die amid the next one."""
    gc.collect()


class Exporter:
    """An object that hands an array on by `__array_interface__`."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.__array_interface__ = array, array.__array_interface__


def in_a_cycle(array: np.ndarray) -> list[Any]:
    cycle: list[Any] = [array]
    cycle.append(cycle)
    return cycle


SEEN_BY: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": lambda a: a,
    "view": lambda a: a[1:],
    "view of a view": lambda a: a[1:][:, ::2][3:],
    "transpose": lambda a: a.T,
    "reshape": lambda a: a.reshape(-1, 100)[:, 5],
    "asarray": lambda a: np.asarray(a.view()),
    "subclass": lambda a: a.view(np.memmap)[2:].view(np.ndarray),
    "other type": lambda a: a.view(np.int32).view(np.float32),
    "strides": lambda a: np.lib.stride_tricks.as_strided(a, (100,), (8,)),
    "broadcast": lambda a: np.broadcast_to(a[:1], (4, a.shape[1])),
    "memoryview": lambda a: memoryview(a),
    "buffer": lambda a: np.frombuffer(a.data.cast("B"), np.float32),
    "iterator": lambda a: a.flat,
    "interface": lambda a: np.asarray(Exporter(a)),
    "dlpack": lambda a: np.from_dlpack(a),
    "torch": lambda a: torch.from_numpy(a)[1:],
    "torch by dlpack": lambda a: torch.from_dlpack(a),
    "Tensor": lambda a: Tensor(a)[2:].numpy(),
    "detached": lambda a: (Tensor(a, requires_grad=True).reshape(-1)).detach(),
    "cycle": in_a_cycle,
}


def values(seen: Any) -> set[float]:
    seen = seen[0] if isinstance(seen, list) else seen
    array = np.asarray(seen.data if isinstance(seen, Tensor) else seen)
    return {float(array.min()), float(array.max())}


@pytest.mark.parametrize("see", SEEN_BY.values(), ids=SEEN_BY)
def test_memory_that_somebody_sees_is_not_handed_out(see: Callable[[np.ndarray], Any]) -> None:
    memory.release()
    before, array = memory.stats(), filled(1)
    address, seen = array.ctypes.data, see(array)
    del array
    for _ in range(3):
        others = [filled(2) for _ in range(3)]
        assert values(seen) == {1}
        assert memory.stats().in_use - before.in_use == 4 * PIECE
        del others
    del seen
    gc.collect()
    assert memory.stats().in_use == before.in_use
    again = [filled(3) for _ in range(4)]  # and once nobody does, it is
    assert address in [a.ctypes.data for a in again]
    assert memory.stats().mapped - before.mapped == 1


def test_small_arrays_are_numpys() -> None:
    before = memory.stats()
    small = [memory.empty(shape, np.float32) for shape in [(), (0,), (3, 4), (1 << 16,)]]
    assert memory.stats() == before
    assert [a.shape for a in small] == [(), (0,), (3, 4), (1 << 16,)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.bool_, np.complex128])
def test_large_arrays_are_as_any(dtype: type) -> None:
    array = memory.empty((3, 200_000), dtype)
    assert (type(array), array.shape, array.dtype) == (np.ndarray, (3, 200_000), np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % memory.PAGE == 0
    assert memory.empty_like(array[:, ::2]).flags.c_contiguous


def test_is_whole() -> None:
    large, small = filled(1), np.zeros(3)
    assert [memory.is_whole(a) for a in (large, small, np.float32(1))] == [True] * 3
    assert [memory.is_whole(a) for a in (large[:], large.T, large[1:][1:], small[1:])] == [False] * 4
    assert large[1:][:, 1:].base is large


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, memory.copy, lambda a: pickle.loads(pickle.dumps(a)), np.array, np.copy]
)
def test_copies_are_their_own(again: Callable[[Any], Any]) -> None:
    for array in (filled(1), filled(1).T[::2], filled(1)[:3]):
        other = again(array)
        np.testing.assert_array_equal(other, array, strict=True)
        assert not np.shares_memory(other, array)
        array[...] = 2
        assert values(other) == {1}
    tensor = copy.deepcopy(Tensor(filled(3), requires_grad=True))
    assert values(tensor) == {3}
    assert memory.copy(np.float32(5)) == 5


@given(st.lists(st.tuples(st.sampled_from(["new", "view", "drop", "cycle"]), st.integers(0, 9)), max_size=60))
def test_live_memory_never_overlaps(commands: list[tuple[str, int]]) -> None:
    live: list[tuple[float, Any]] = []
    for number, (command, which) in enumerate(commands):
        if command == "new" or not live:
            live.append((number, filled(number, (70_000 + 9_000 * which,))))
            continue
        value, seen = live[which % len(live)]
        if command == "drop":
            live.remove((value, seen)) if isinstance(seen, list) else live.pop(which % len(live))
        elif command == "view":
            live[which % len(live)] = value, (seen[0] if isinstance(seen, list) else seen)[which:]
        else:
            live[which % len(live)] = value, in_a_cycle(seen[0] if isinstance(seen, list) else seen)
        del seen
    for value, seen in live:
        assert values(seen) == {value}


def test_threads_that_pass_arrays_on() -> None:
    """Each fills its arrays, checks those it gets, and lets them die: in another thread than made them."""
    passed: queue.SimpleQueue[tuple[float, np.ndarray] | None] = queue.SimpleQueue()
    gc.collect()
    wrong, before = [], memory.stats().in_use

    def run(number: int) -> None:
        rng = np.random.default_rng(number)
        for step in range(300):
            value = number * 1000 + step
            array = filled(value, (70_000 + 20_000 * int(rng.integers(4)),))
            passed.put((value, array[int(rng.integers(3)) :]))
            kept = array if step % 3 else in_a_cycle(array)
            del array
            theirs = passed.get()
            if values(theirs[1]) != {theirs[0]} or values(kept) != {value}:
                wrong.append(theirs)
            del theirs, kept

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert wrong == []
    assert memory.stats().in_use == before


def test_who_comes_amid_the_bookkeeping_gets_memory_of_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser that the garbage collector runs there, or a signal's handler: it would see holes half cut."""
    take, came = memory._Region.take, []

    def interrupted(region: memory._Region, size: int) -> int | None:
        came.append(filled(2))
        memory.release()
        assert memory.stats().held >= region.size
        return take(region, size)

    monkeypatch.setattr(memory._Region, "take", interrupted)
    array = filled(1)
    assert isinstance(array.base, memory.Block)
    assert [values(a) for a in came] == [{2}] * len(came)
    assert {a.base for a in came} == {None}


@given(st.lists(st.integers(-20, 40), max_size=80))
def test_a_regions_holes(commands: list[int]) -> None:
    """Positive: take so much. Else give one of the live pieces back. What is no piece is a hole, as large as can be."""
    region, live = memory._Region(100), []
    for command in commands:
        if command > 0:
            rooms = [size for _, size in region.holes if size >= command]
            start = region.take(command)
            assert (start is not None) == bool(rooms)
            if start is not None:
                live.append((start, command))
        elif live:
            region.give_back(*live.pop(command % len(live)))
        covered = sorted([*live, *region.holes])
        assert [start for start, _ in covered] == [0, *(start + size for start, size in covered)][:-1]
        assert sum(covered[-1]) == 100
        assert all(sum(a) < b[0] for a, b in itertools.pairwise(region.holes))
        assert region.is_empty() == (not live)


class Step:
    """Requests of a pool of its own, as a training step of one batch size makes them."""

    def __init__(self) -> None:
        self.pool, self.most = memory._Pool(), 0

    def __call__(self, batch: int) -> int:
        """Layers of several sizes, all kept, then freed; scratch for each. The regions that it mapped."""
        before, kept = self.pool.mapped, []
        for layer in range(12):
            scratch = self.pool.take(300_000 + 10_000 * batch)
            kept.append(self.pool.take((1 + layer // 3) * 900_000 * batch))
            self.pool.died.append(scratch)
            self.most = max(self.most, self.pool.in_use)
        self.pool.died.extend(kept)
        return self.pool.mapped - before


def test_steps_of_one_shape_map_nothing_new() -> None:
    step = Step()
    assert step(8) > 2
    assert [step(8) for _ in range(100)] == [0] * 100


def test_batches_of_all_sizes_share_the_memory() -> None:
    """A smaller last batch, an evaluation, sizes at random: little more is held than was ever in use."""
    step = Step()
    for _ in range(3):
        assert [step(8) for _ in range(20)][1:] == [0] * 19
        step(5)
        assert [step(20) for _ in range(10)][2:] == [0] * 8
    for batch in np.random.default_rng(0).integers(1, 21, 300).tolist():
        step(batch)
    assert step.most > 8 * memory.REGION
    assert step.pool.peak <= 1.3 * step.most


def test_regions_empty_for_long_go_back() -> None:
    step = Step()
    step(40)
    large, steps = step.pool.held, 0
    while step.pool.held > large / 4:
        step(1)
        steps += 1
        assert steps < 100 * memory.PATIENCE
    assert steps > 50
    step(1)
    assert step(1) == 0


def test_when_the_system_has_no_more_empty_regions_go_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, region = memory._Pool(), memory._Region
    pool.died.append(pool.take(1_000_000))

    def make(size: int) -> memory._Region:
        if pool.held:
            raise MemoryError
        return region(size)

    monkeypatch.setattr(memory, "_Region", make)
    pool.take(2 * memory.REGION)
    assert (pool.in_use, pool.held, pool.mapped) == (2 * memory.REGION, 2 * memory.REGION, 2)
    with pytest.raises(MemoryError):
        pool.take(1)
    assert (pool.in_use, pool.held, pool.mapped) == (2 * memory.REGION, 2 * memory.REGION, 2)


RELEASE = """
import os
import numpy as np
from minires import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

start = resident()
arrays = [memory.empty((memory.REGION // 4,), np.float32) for _ in range(3)]
for array in arrays:
    array[...] = 1
print(memory.stats().held / memory.REGION, (resident() - start) / memory.REGION)
del arrays[:2], array
memory.release()
print(memory.stats().held / memory.REGION, (resident() - start) / memory.REGION)
print(set(arrays[0].tolist()[::4096]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_release_gives_back_what_nobody_sees() -> None:
    run = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True, check=True)
    full, less, values = run.stdout.splitlines()
    held, resident = map(float, full.split())
    assert (held, round(resident)) == (3, 3)
    held, resident = map(float, less.split())
    assert (held, round(resident)) == (1, 1)
    assert values == "{1.0}"


def test_peak_rss(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import numpy as np; from minires import memory; a = memory.peak_rss(); x = np.ones(2 * 10**7); del x; "
    run = subprocess.run(
        [sys.executable, "-c", script + "print(a, memory.peak_rss())"], capture_output=True, text=True, check=True
    )
    before, after = map(int, run.stdout.split())
    assert 10e6 < before < 500e6
    assert 155e6 < after - before < 200e6
    monkeypatch.setattr(memory.Path, "exists", lambda path: False)
    assert memory.peak_rss() > 10e6
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak_rss() is None


@pytest.fixture(params=[1, 2])
def any_number_of_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = minires.get_num_threads()
    minires.set_num_threads(request.param)
    yield
    minires.set_num_threads(before)


@pytest.mark.usefixtures("any_number_of_threads")
def test_training_steps_use_their_memory_again_and_no_one_sees_it(rng: np.random.Generator) -> None:
    """Outputs, gradients and views of them stay as they were, and from the fourth step on nothing is mapped."""
    net = models.ResNet((1, 1), 10, widths=(32, 64), generator=rng)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images, labels = rng.standard_normal((32, 32, 32, 3), np.float32), rng.integers(0, 10, 32)
    activations: list[Tensor] = []
    for layer in (net.layer1[0].bn1, net.layer1[0], net.layer2[0]):
        layer.register_forward_hook(lambda module, inputs, output: activations.append(output))

    def step() -> list[np.ndarray]:
        x = Tensor(images.copy(), requires_grad=True)
        logits = net(x)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        seen = [
            x.grad.numpy(),
            x.grad.data[3:],
            logits.detach().numpy(),
            *(a.detach().numpy()[1:, ::2] for a in activations),
        ]
        seen += [p.grad.data for p in net.parameters()]
        activations.clear()
        optimizer.zero_grad()
        return seen

    memory.release()
    before, mapped = memory.stats(), []
    for _ in range(10):
        step()
        mapped.append(memory.stats().mapped)
    assert mapped[0] > before.mapped
    assert mapped[3:] == mapped[2:3] * 7
    kept = step()
    copies = [array.tobytes() for array in kept]
    for _ in range(3):
        step()
    assert [array.tobytes() for array in kept] == copies
    assert len({array.ctypes.data for array in kept[3:]}) == len(kept) - 3
