"""Batches of a data set, made ahead of time by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..autograd import is_tensor, wrap
from ..device import out_of_memory, to_device
from ..errors import ArgumentError, DataError
from ..threads import alone
from . import draws
from .mix import Mix


class DataLoader:
    """Iterate over a data set in batches, as tuples of Tensors: images (N, H, W, C) and labels (N,).

    `dataset` needs `__len__` and `__getitem__`; torchvision's work, with their transforms. A data set with
    `batch(index, epoch)`, as all of minires have, is asked for whole batches unless `collate_fn` is given. `mix`, if
    given, maps (images, labels, index, epoch) of a batch to what is handed out: see data/mix.py. With `shuffle` the
    order is a function of (seed, epoch); each iteration is one epoch, and `set_epoch` says which comes next.
    `num_workers` threads prepare batches ahead, beside those that kernels use, of which they take none; 0 prepares each
    when it is asked for. Raises DataError where an example cannot be loaded.

    Transforms of minires draw alike whatever thread runs them. torchvision's draw from torch's one stream: for the same
    draws in every run, leave `num_workers` at 0.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], tuple[np.ndarray, ...]] | None = None,
        mix: Mix | None = None,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        for setting, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            _check(setting, value, least)
        if collate_fn is not None and _is_on_gpu(dataset):
            raise ArgumentError(
                "DataLoader: collate_fn puts single examples together, on the CPU; leave the data set there, without "
                '.to("cuda"), or leave collate_fn out'
            )
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.num_workers, self.collate_fn, self.mix, self.seed = num_workers, collate_fn or collate, mix, seed
        self.epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, counted from 0: a resumed run goes on in the order it would have had."""
        _check("epoch", epoch, 0)
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        count = len(self.dataset)
        order = draws.permutation(count, self.seed, epoch) if self.shuffle else np.arange(count)
        on_gpu = _is_on_gpu(self.dataset)
        if on_gpu:  # once in an epoch; its batches are only queued, so that no thread need be ahead
            order = to_device(order, self.dataset.device)
        batches = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
        ahead = self.num_workers and not on_gpu
        arrays = self._ahead(batches, epoch) if ahead else (self._load(index, epoch) for index in batches)
        for batch in arrays:
            yield tuple(wrap(array) for array in batch)

    def _ahead(self, batches: list[np.ndarray], epoch: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches in their order, up to two a thread prepared ahead."""
        executor = ThreadPoolExecutor(self.num_workers, thread_name_prefix="minires-loader")
        waiting: deque[Future[tuple[np.ndarray, ...]]] = deque()
        try:
            for index in batches:
                waiting.append(executor.submit(alone, self._load, index, epoch))
                if len(waiting) > 2 * self.num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when the caller stops early, or on Ctrl-C: what has not begun is dropped
            executor.shutdown(wait=False, cancel_futures=True)

    def _load(self, index: np.ndarray, epoch: int) -> tuple[np.ndarray, ...]:
        try:
            if hasattr(self.dataset, "batch") and self.collate_fn is collate:
                batch = self.dataset.batch(index, epoch)
            else:
                batch = self.collate_fn([self.dataset[int(i)] for i in index])
            if self.mix is not None:
                images, labels = batch
                batch = self.mix(images, labels, index, epoch)
            return batch
        except Exception as error:
            if isinstance(error, MemoryError) and _is_on_gpu(self.dataset):
                raise out_of_memory("DataLoader", self.dataset.device, error) from error
            shown = ", ".join(map(str, to_device(index[:4], "cpu"))) + (", ..." if len(index) > 4 else "")
            raise DataError(f"loading examples {shown} failed: {type(error).__name__}: {error}") from error


def _is_on_gpu(dataset: Any) -> bool:
    device = getattr(dataset, "device", None)  # of other libraries' data sets it may be anything
    return isinstance(device, str) and device.startswith("cuda")


def _check(setting: str, value: int, least: int) -> None:
    if not (isinstance(value, (int, np.integer)) and least <= value < 2**32):  # the draws count epochs in 32 bits
        raise ArgumentError(f"DataLoader: {setting} {value!r} must be an int of at least {least}, and below 2^32")


def collate(items: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """Stack examples, each a tuple of arrays, images and numbers, into a tuple of arrays.

    An image that is a torch tensor of three axes is (C, H, W), as torchvision makes it, and becomes (H, W, C).
    """
    rows = [item if isinstance(item, (tuple, list)) else (item,) for item in items]
    columns = [np.stack([_as_array(value) for value in column]) for column in zip(*rows, strict=True)]
    return tuple(np.ascontiguousarray(column) for column in columns)  # np.stack keeps the order of axes in memory


def _as_array(value: Any) -> np.ndarray:
    library = type(value).__module__.partition(".")[0]
    if library == "torch":
        array = np.asarray(value)
        return array.transpose(1, 2, 0) if array.ndim == 3 else array
    if library == "PIL" and value.getbands() == ("L",):
        return np.asarray(value)[..., None]  # a grey picture has one channel
    array = np.asarray(value.data if is_tensor(value) else value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"an example holds a {type(value).__name__}, which is no array, image or number")
    return array.astype(np.float32) if isinstance(value, float) else array
