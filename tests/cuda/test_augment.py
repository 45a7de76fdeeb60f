"""Batches that are made on the GPU: the CPU's, to the bit."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.data import (
    Compose,
    Cutout,
    DataLoader,
    ImageDataset,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    cutmix,
    draws,
    mixup,
)  # fmt: skip
from minires.errors import ArgumentError, ShapeError
from tests.cuda import emulator

FOUR = Normalize((0.4, 0.5, 0.6, 0.7), (0.2, 0.3, 0.4, 0.1))
CROP, FLIP, NORMALIZE = (
    RandomCrop((8, 9), 3, seed=2**40 + 3),
    RandomHorizontalFlip(0.3, seed=5),
    Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
)
FUSED = {
    "all": Compose([CROP, FLIP, NORMALIZE]),
    "smaller": Compose([RandomCrop(5), NORMALIZE]),
    "flip": Compose([FLIP, NORMALIZE]),
    "always": Compose([RandomHorizontalFlip(1.0), NORMALIZE]),
    "never": Compose([RandomHorizontalFlip(0.0), NORMALIZE]),
    "normalize": NORMALIZE,
    "nested": Compose([Compose([CROP]), Compose([FLIP, NORMALIZE])]),
}


def dataset(rng: np.random.Generator, transform: Any, dtype: Any = np.uint8, channels: int = 3) -> ImageDataset:
    images = rng.integers(0, 256, (50, 9, 7, channels)).astype(dtype)
    return ImageDataset(
        images / dtype(255) if dtype == np.float32 else images, rng.integers(0, 5, 50), "abcde", transform
    )


def assert_epochs(on_cpu: ImageDataset, on_gpu: ImageDataset) -> None:
    for a, b in zip(*(DataLoader(d, 16, shuffle=True, seed=3) for d in (on_cpu, on_gpu)), strict=True):
        for want, got in zip(a, b, strict=True):
            assert got.device == "cuda:0"
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got.to("cpu").numpy(), want.numpy())


def assert_batches(cupy: Any, name: str = "all", dtype: Any = np.uint8) -> None:
    """In one launch each."""
    here = dataset(np.random.default_rng(0), FUSED[name], dtype)
    with kernels.use(augment="cuda"):
        batches = list(DataLoader(here.to("cuda"), 16, shuffle=True, seed=3))
    for (x, y), (gx, gy) in zip(DataLoader(here, 16, shuffle=True, seed=3), batches, strict=True):
        np.testing.assert_array_equal(gx.to("cpu").numpy(), x.numpy())
        np.testing.assert_array_equal(gy.to("cpu").numpy(), y.numpy())


@pytest.mark.parametrize("schedule", emulator.SCHEDULES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", FUSED)
def test_batches(cupy: Any, name: str, dtype: Any, schedule: str) -> None:
    with emulator.scheduled(schedule):
        assert_batches(cupy, name, dtype)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels(cupy: Any, rng: np.random.Generator, channels: int) -> None:
    normalize = Normalize(FOUR.mean[:channels], FOUR.std[:channels])
    here = dataset(rng, Compose([CROP, FLIP, normalize]), channels=channels)
    assert_epochs(here, here.to("cuda"))


@pytest.mark.parametrize(
    "transform",
    [
        None,
        CROP,
        FLIP,
        Compose([NORMALIZE, CROP]),
        Compose([FLIP, FLIP, NORMALIZE]),
        Compose([FLIP, CROP, NORMALIZE]),
        Compose([CROP, NORMALIZE, Cutout(3, seed=1)]),
    ],
    ids=str,
)
def test_what_one_launch_cannot_do_gives_the_same(cupy: Any, rng: np.random.Generator, transform: Any) -> None:
    here = dataset(rng, transform)
    assert_epochs(here, here.to("cuda"))


def test_five_channels_are_portable(cupy: Any, rng: np.random.Generator) -> None:
    here = dataset(rng, Compose([CROP, FLIP, Normalize([0.5] * 5, [0.25] * 5)]), channels=5)
    assert_epochs(here, here.to("cuda"))


def test_an_epoch_uploads_its_order_alone(emulated: Counter[str], rng: np.random.Generator) -> None:
    there = dataset(rng, FUSED["all"]).to("cuda")
    emulated.clear()
    assert len(list(DataLoader(there, 16, shuffle=True, num_workers=2))) == 4
    assert (emulated["upload"], emulated["sync"], emulated["launch"]) == (1, 0, 4)


def test_numbers_beyond_32_bits(cupy: Any, rng: np.random.Generator) -> None:
    """Of an example, an epoch and a seed: all of them are drawn from."""
    images, index = rng.integers(0, 256, (2, 9, 7, 3), np.uint8), np.array([2**32 + 5, 5])
    plan = CROP.plan(images), FLIP.plan(images), NORMALIZE.plan(images)
    want = kernels.augment(images, None, index, 2**32 - 1, *plan)
    with kernels.use(augment="cuda"):
        got = kernels.augment(cupy.asarray(images), None, cupy.asarray(index), 2**32 - 1, *plan)
    np.testing.assert_array_equal(got.get(), want)
    assert (draws.words(0, 0, index, draws.CROP)[0] != draws.words(0, 0, index, draws.CROP)[1]).any()


def test_a_data_set_moves_back_and_forth(cupy: Any, rng: np.random.Generator) -> None:
    here = dataset(rng, NORMALIZE)
    there = here.to("cuda")
    assert (here.device, there.device, there.to("cuda:0") is there, here.to("cpu") is here) == (
        "cpu",
        "cuda:0",
        True,
        True,
    )
    assert there.name == here.name
    assert there.take(5).fingerprint == here.take(5).fingerprint != here.fingerprint == there.fingerprint
    np.testing.assert_array_equal(there.to("cpu").images, here.images)
    image, label = there[3]
    np.testing.assert_array_equal(image.get(), here[3][0])
    assert label == here[3][1]


def test_errors_are_those_of_the_cpu(cupy: Any, rng: np.random.Generator) -> None:
    there = dataset(rng, Compose([RandomCrop(20), NORMALIZE])).to("cuda")
    with pytest.raises(Exception, match="smaller than the crop") as error:
        next(iter(DataLoader(there, 4)))
    assert isinstance(error.value.__cause__, ShapeError)
    assert "loading examples 0, 1, 2, 3 failed" in str(error.value)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixed_batches(cupy: Any, rng: np.random.Generator, mix: Any) -> None:
    here = dataset(rng, FUSED["all"])
    settings = {"shuffle": True, "mix": functools.partial(mix, classes=5, seed=2)}
    for a, b in zip(*(DataLoader(d, 16, **settings) for d in (here, here.to("cuda"))), strict=True):
        for want, got in zip(a, b, strict=True):
            np.testing.assert_allclose(got.to("cpu").numpy(), want.numpy(), rtol=1e-6, atol=1e-6)


def test_rows_that_are_not_there(cupy: Any, rng: np.random.Generator) -> None:
    """Counted from the end, as NumPy does; beyond that a GPU, which nobody may wait for, gives NaN."""
    here = dataset(rng, NORMALIZE)
    there = here.to("cuda")
    np.testing.assert_array_equal(there.batch(np.array([-1, 3]), 0)[0].get(), here.batch(np.array([-1, 3]), 0)[0])
    images, index = cupy.asarray(here.images), cupy.asarray(np.array([50, -51, 7]))
    with kernels.use(augment="cuda"):
        got = kernels.augment(images, index, index, 0, None, None, NORMALIZE.plan(here.images)).get()
    assert np.isnan(got[:2]).all()
    assert np.isfinite(got[2]).all()


def test_as_many_numbers_as_images(cupy: Any, rng: np.random.Generator) -> None:
    images, index = cupy.asarray(dataset(rng, None).images), cupy.asarray(np.arange(4))
    for rows in (None, cupy.asarray(np.arange(5))):
        with kernels.use(augment="cuda"), pytest.raises(ArgumentError, match="as many"):
            kernels.augment(images, rows, index, 0, None, None, NORMALIZE.plan(np.ones((1, 9, 7, 3))))


def test_examples_are_put_together_on_the_cpu(cupy: Any, rng: np.random.Generator) -> None:
    with pytest.raises(ArgumentError, match="collate_fn puts single examples together, on the CPU"):
        DataLoader(dataset(rng, NORMALIZE).to("cuda"), 4, collate_fn=lambda items: items)


@pytest.mark.parametrize("transform", [Compose([CROP, FLIP]), Compose([NORMALIZE, Cutout(3)]), Compose([FLIP, CROP])])
def test_no_transform_waits(emulated: Counter[str], rng: np.random.Generator, transform: Any) -> None:
    there = dataset(rng, transform).to("cuda")
    emulated.clear()
    list(DataLoader(there, 16, shuffle=True))
    assert emulated["sync"] == 0
