"""The loader: the same batches in the same order with any number of threads, and a clean end whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minires import Tensor
from minires.data import Compose, DataLoader, Digits, ImageDataset, Normalize, RandomCrop, draws
from minires.data.loader import collate
from minires.errors import ArgumentError, DataError
from minires.threads import is_nested


class Numbers:
    """A map-style data set of (i, i squared); example `bad` cannot be read, and each takes `seconds`."""

    def __init__(self, count: int, bad: int = -1, seconds: float = 0.0) -> None:
        self.count, self.bad, self.seconds = count, bad, seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        time.sleep(self.seconds)
        if index == self.bad:
            raise ValueError("no such picture")
        return np.full((2, 3, 1), index, np.float32), index**2


def threads() -> int:
    return sum(thread.name.startswith("minires-loader") for thread in threading.enumerate())


def no_threads_within(seconds: float) -> bool:
    end = time.monotonic() + seconds
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    return not threads()


def seen(loader: DataLoader) -> list[int]:
    return [int(label) for _, labels in loader for label in labels.numpy()]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("count", "size"), [(10, 1), (10, 5), (10, 3), (2, 3), (0, 3)])
def test_lengths(count, size, workers):
    for drop_last in (False, True):
        loader = DataLoader(Numbers(count), size, drop_last=drop_last, num_workers=workers)
        lengths = [len(labels) for _, labels in loader]
        expected = [size] * (count // size) + ([count % size] if count % size and not drop_last else [])
        assert lengths == expected
        assert len(loader) == len(expected)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_every_example_once_in_the_drawn_order(workers):
    loader = DataLoader(Numbers(100), 7, shuffle=True, num_workers=workers, seed=3)
    for epoch in range(3):
        assert seen(loader) == [int(i) ** 2 for i in draws.permutation(100, 3, epoch)]
    plain = DataLoader(Numbers(100), 7, num_workers=workers)
    assert seen(plain) == [i**2 for i in range(100)]


def test_shuffle_differs_by_seed_and_epoch():
    orders = {
        tuple(seen(loader)) for loader in (DataLoader(Numbers(50), 8, True, seed=s) for s in (0, 1)) for _ in "ab"
    }
    assert len(orders) == 4


def test_set_epoch_goes_on_where_another_loader_would_be():
    loader = DataLoader(Numbers(50), 8, shuffle=True)
    epochs = [seen(loader) for _ in range(4)]
    resumed = DataLoader(Numbers(50), 8, shuffle=True)
    resumed.set_epoch(2)
    assert [seen(resumed), seen(resumed)] == epochs[2:]


def test_transforms_are_the_same_with_any_number_of_threads():
    digits = Digits(transform=Compose([RandomCrop(8, 1), Normalize([0.3], [0.4], 16)])).take(200)
    runs = []
    for workers in (0, 1, 4):
        loader = DataLoader(digits, 16, shuffle=True, num_workers=workers)
        loader.set_epoch(5)
        runs.append([(images.numpy().tobytes(), labels.numpy().tobytes()) for images, labels in loader])
    assert runs[0] == runs[1] == runs[2]
    order = draws.permutation(200, 0, 5)
    assert runs[0][1][0] == digits.batch(order[16:32], epoch=5)[0].tobytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_threads_take_none_from_the_kernels(workers):
    """What a loader's thread does with kernels, it does alone. Without such threads it is the caller's own work."""
    alone = set()

    class Examples(Numbers):
        def __getitem__(self, index):
            alone.add(is_nested())
            return super().__getitem__(index)

    assert len(seen(DataLoader(Examples(8), 2, num_workers=workers))) == 8
    assert alone == {workers > 0}
    assert not is_nested()


def test_order_is_kept_when_threads_finish_out_of_order():
    class Uneven(Numbers):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            time.sleep(0.02 if index % 4 == 0 else 0)
            return super().__getitem__(index)

    assert seen(DataLoader(Uneven(40), 1, num_workers=4)) == [i**2 for i in range(40)]


def test_threads_work_ahead_but_not_far():
    taken: list[int] = []

    class Noted(Numbers):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            taken.append(index)
            return super().__getitem__(index)

    batches = iter(DataLoader(Noted(100), 1, num_workers=2))
    next(batches)
    time.sleep(0.2)
    assert 3 <= len(taken) <= 5  # the one handed out, and two for each thread
    batches.close()
    assert no_threads_within(2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("bad", [0, 13, 39])
def test_an_example_that_cannot_be_read_is_named(workers, bad):
    first = bad // 5 * 5
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"examples {first}, .*, \.\.\. failed: ValueError: no such picture") as raised:
        seen(DataLoader(Numbers(40, bad), 5, num_workers=workers))
    assert isinstance(raised.value.__cause__, ValueError)
    assert time.monotonic() - start < 2
    assert no_threads_within(2)


def test_batches_before_the_bad_one_are_handed_out():
    batches = iter(DataLoader(Numbers(10, bad=7), num_workers=2))
    labels = [next(batches)[1].item() for _ in range(7)]
    assert labels == [i**2 for i in range(7)]
    with pytest.raises(DataError, match="loading examples 7 failed"):
        next(batches)


def test_leaving_the_loop_waits_for_nothing():
    """Neither for the batch at work nor for those that have not begun, which never will."""
    begun: list[int] = []
    gate = threading.Event()

    class Slow(Numbers):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            begun.append(index)
            if index:
                gate.wait(20)
            return super().__getitem__(index)

    batches = iter(DataLoader(Slow(9), num_workers=1))
    next(batches)
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 5
    gate.set()
    assert no_threads_within(5)
    assert begun[1:] in ([], [1])


def test_leaving_the_loop_early_stops_the_threads():
    taken: list[int] = []

    class Noted(Numbers):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            taken.append(index)
            return super().__getitem__(index)

    for _ in DataLoader(Noted(10_000, seconds=0.1), 1, num_workers=3):
        break
    begun = len(taken)
    assert no_threads_within(2)
    assert len(taken) <= begun + 1  # what was waiting was dropped; one may have begun in that moment


@pytest.mark.parametrize("workers", [0, 2])
def test_two_threads_iterate_at_once(workers):
    """Each sees every example of an epoch once, in that epoch's order."""
    loader = DataLoader(Numbers(60, seconds=0.001), 7, shuffle=True, num_workers=workers)
    orders = [[int(i) ** 2 for i in draws.permutation(60, 0, epoch)] for epoch in range(8)]
    found: list[list[int]] = []
    consumers = [threading.Thread(target=lambda: found.extend(seen(loader) for _ in range(2))) for _ in range(4)]
    for consumer in consumers:
        consumer.start()
    for consumer in consumers:
        consumer.join(60)
    assert len(found) == 8
    assert all(order in orders for order in found)
    assert no_threads_within(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_iterations_take_turns(workers):
    loader = DataLoader(Numbers(20), 3, shuffle=True, num_workers=workers)
    pairs = [(a.numpy(), b.numpy()) for (_, a), (_, b) in zip(loader, loader, strict=True)]
    for number, labels in enumerate(zip(*pairs, strict=True)):
        np.testing.assert_array_equal(np.concatenate(labels), draws.permutation(20, 0, number) ** 2)
    assert no_threads_within(2)


@pytest.mark.parametrize("where", ["data", "body"])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_is_raised_ends_the_threads(where, kind):
    """In a thread of the loader errors become DataError, and what is to end the program still does."""

    class Raising(Numbers):
        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            if where == "data" and index == 17:
                raise kind
            return super().__getitem__(index)

    def run() -> None:
        for number, _ in enumerate(DataLoader(Raising(200, seconds=0.002), 2, num_workers=3)):
            if where == "body" and number == 5:
                raise kind

    start = time.monotonic()
    with pytest.raises(DataError if where == "data" and issubclass(kind, Exception) else kind):
        run()
    assert time.monotonic() - start < 2
    assert no_threads_within(2)


LOOP = """
import sys, time
from minires.data import DataLoader
class Slow:
    def __len__(self): return 1000
    def __getitem__(self, index):
        time.sleep(0.3)
        return float(index)
print("begun", flush=True)
for number, _ in enumerate(DataLoader(Slow(), num_workers=2)):
    print(number, flush=True)
    if sys.argv[1] == "body":
        time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("where", ["waiting", "body"])
def test_ctrl_c_ends_a_run_with_threads(where):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n", "0\n"]
    time.sleep(0.1)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - start < 5
    assert process.returncode in (130, -signal.SIGINT)
    assert stderr.rstrip().endswith("KeyboardInterrupt")


def test_yields_tensors():
    images, labels = next(iter(DataLoader(Numbers(4), 4)))
    assert isinstance(images, Tensor)
    assert isinstance(labels, Tensor)
    assert (images.shape, images.dtype) == ((4, 2, 3, 1), np.float32)
    assert (labels.shape, labels.dtype) == ((4,), np.int64)
    assert not images.requires_grad


@pytest.mark.parametrize("kind", ["ToTensor", "Compose", "PIL"])
@pytest.mark.parametrize("workers", [0, 2])
def test_torchvision_data_sets(kind, workers):
    from tests.oracle import nhwc, torch, torchvision

    tv = torchvision()
    t = tv.transforms
    crop = t.Compose([t.RandomCrop(12, padding=2), t.ToTensor(), t.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))])
    fake = tv.datasets.FakeData(10, (3, 12, 16), 5, t.ToTensor() if kind == "ToTensor" else None)
    if kind == "Compose":
        torch.manual_seed(0)  # torchvision draws from one stream: both loaders must read what was drawn once
        fake = [(crop(image), label) for image, label in fake]
    elif workers:
        fake = list(fake)  # FakeData seeds that stream for each image, which two threads would do to each other
    theirs = [(nhwc(t.ToTensor()(i)[None])[0] * 255 if kind == "PIL" else i, label) for i, label in fake]
    expected = list(torch.utils.data.DataLoader(theirs, 4))
    batches = list(DataLoader(fake, 4, num_workers=workers))
    assert len(batches) == len(expected) == 3
    for (images, labels), (x, y) in zip(batches, expected, strict=True):
        assert images.shape[1:] == (12, 12 if kind == "Compose" else 16, 3)
        assert images.data.flags.c_contiguous
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels.numpy(), y.numpy())
        if kind == "PIL":
            assert images.dtype == np.uint8
            np.testing.assert_array_equal(images.numpy(), np.rint(x.numpy()))
        else:
            assert images.dtype == np.float32
            np.testing.assert_array_equal(images.numpy(), nhwc(x))


def test_any_sequence_is_a_data_set():
    batches = list(DataLoader([1.5, 2.5, 3.5], 2))
    assert [b[0].numpy().tolist() for b in batches] == [[1.5, 2.5], [3.5]]
    assert batches[0][0].dtype == np.float32
    images = ImageDataset(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3), "abc")
    assert seen(DataLoader(images, 2)) == [0, 1, 2]


def test_collate_fn_of_the_users():
    loader = DataLoader(Numbers(4), 2, collate_fn=lambda items: (np.array([label for _, label in items]) + 0.5,))
    assert [batch[0].numpy().tolist() for batch in loader] == [[0.5, 1.5], [4.5, 9.5]]


def test_collate_takes_tensors_and_arrays():
    a, b = collate([(Tensor([1.0, 2.0]), np.uint8(3)), (Tensor([3.0, 4.0]), np.uint8(4))])
    assert (a.dtype, b.dtype) == (np.float32, np.uint8)
    assert a.tolist() == [[1, 2], [3, 4]]
    assert b.tolist() == [3, 4]


def test_bad_arguments():
    for name, least, wrong in (("batch_size", 1, (0, -3, 2.5, "4")), ("num_workers", 0, (-1, 1.5))):
        for value in wrong:
            with pytest.raises(ArgumentError, match=f"DataLoader: {name} {value!r} must be an int of at least {least}"):
                DataLoader(Numbers(3), **{name: value})
    loader = DataLoader(Numbers(3), shuffle=True)
    for epoch in (-1, 0.5, 2**32):
        with pytest.raises(ArgumentError, match=f"DataLoader: epoch {epoch} must be an int of at least 0, and below"):
            loader.set_epoch(epoch)
    loader.set_epoch(np.int64(2**32 - 1))
    assert len(list(loader)) == 3


@pytest.mark.parametrize("items", [["a", "b"], [None, None], [np.zeros(2), np.zeros(3)], [(1, 2), (1,)]])
def test_examples_that_do_not_stack(items):
    with pytest.raises(DataError, match="loading examples 0, 1 failed"):
        list(DataLoader(items, 2))


def test_grey_pictures_have_one_channel() -> None:
    grey = pytest.importorskip("PIL.Image").fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    images, _ = next(iter(DataLoader([(grey, 0), (grey, 1)], 2)))
    assert images.shape == (2, 2, 3, 1)
    np.testing.assert_array_equal(images.data[1, :, :, 0], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("device", [None, 3, "cpu", "mps", object()])
def test_another_librarys_device_is_its_own(device):
    """A data set may have an attribute of that name that says nothing to us."""

    class Theirs:
        def __init__(self) -> None:
            self.device = device

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return np.full((2, 2, 1), index, np.float32), index

    (_, labels), *_ = DataLoader(Theirs(), 4)
    assert labels.tolist() == [0, 1, 2, 3]
