"""Transforms of whole batches, against one image at a time and against torchvision."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from minires.data import Compose, Cutout, ImageDataset, Normalize, RandomCrop, RandomHorizontalFlip, draws
from minires.errors import ArgumentError, DataError, ShapeError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
INDEX = np.array([3, 1, 4, 159, 26, 5, 35, 89, 79, 32])


@pytest.fixture
def images(rng) -> np.ndarray:
    """Ten images that are not square: (10, 7, 5, 3)."""
    return rng.integers(0, 256, (10, 7, 5, 3), np.uint8)


@pytest.mark.parametrize("padding", [0, 1, 4, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_cuts_the_drawn_window(images, padding, dtype):
    images = images.astype(dtype)
    y = RandomCrop((7, 5), padding, seed=2)(images, INDEX, 6)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    drawn = draws.words(2, 6, INDEX, draws.CROP)
    for image, got, word in zip(images, y, drawn, strict=True):
        top, left = (int(w) * (2 * padding + 1) >> 32 for w in word[:2])
        surrounded = np.zeros((7 + 2 * padding, 5 + 2 * padding, 3), dtype)
        surrounded[padding : padding + 7, padding : padding + 5] = image
        np.testing.assert_array_equal(got, surrounded[top : top + 7, left : left + 5])


def test_crop_comes_to_every_offset():
    """A single bright pixel tells where its window lay: 9 x 9 places, about 100 times each."""
    count, p = 8100, 4
    images = np.zeros((count, 16, 16, 1), np.uint8)
    images[:, 8, 8] = 1
    _, row, column, _ = np.nonzero(RandomCrop(16, p)(images, np.arange(count), 0))
    places = np.bincount((8 - row + p) * 9 + 8 - column + p, minlength=81)
    assert places.shape == (81,)
    assert ((places - 100) ** 2 / 100).sum() < 80 + 4 * np.sqrt(160)


def test_flip_mirrors_half_of_the_images(images):
    index = np.arange(2000)
    many = np.tile(images, (200, 1, 1, 1))
    y = RandomHorizontalFlip(seed=1)(many, index, 3)
    flipped = draws.words(1, 3, index, draws.FLIP)[:, 0] < 2**31
    for image, got, mirror in zip(many, y, flipped, strict=True):
        np.testing.assert_array_equal(got, np.fliplr(image) if mirror else image)
    assert 900 < flipped.sum() < 1100  # 4.5 deviations


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 20])
def test_cutout_clears_the_drawn_square(size):
    images = np.ones((50, 7, 5, 3), np.float32)
    index = np.arange(50)
    y = Cutout(size, seed=4)(images, index, 2)
    for got, word in zip(y, draws.words(4, 2, index, draws.CUTOUT), strict=True):
        row, column = int(word[0]) * 7 >> 32, int(word[1]) * 5 >> 32
        expected = np.ones((7, 5, 3), np.float32)
        for i in range(row - size // 2, row - size // 2 + size):
            for j in range(column - size // 2, column - size // 2 + size):
                if 0 <= i < 7 and 0 <= j < 5:
                    expected[i, j] = 0
        np.testing.assert_array_equal(got, expected)


def test_cutout_comes_to_every_pixel_and_over_the_border():
    """A square of one pixel lies anywhere alike; a larger one is clipped, as its authors found important."""
    index = np.arange(3500)
    counts = (Cutout(1)(np.ones((3500, 7, 5, 1)), index, 0) == 0).sum(axis=0).ravel()
    assert counts.sum() == 3500
    assert ((counts - 100) ** 2 / 100).sum() < 34 + 4 * np.sqrt(68)
    areas = (Cutout(4)(np.ones((3500, 7, 5, 1)), index, 0) == 0).sum(axis=(1, 2, 3))
    assert (areas.min(), areas.max()) == (4, 16)


def test_normalize_against_torchvision(rng):
    from tests.oracle import nhwc, torch, torchvision

    images = rng.integers(0, 256, (10, 7, 5, 3), np.uint8)
    images[:2] = np.array([0, 255]).reshape(2, 1, 1, 1)
    transforms = torchvision().transforms
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = nhwc(torch.stack([theirs(image) for image in images]))
    y = Normalize(MEAN, STD)(images, INDEX, 0)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)  # values to 2.1: four roundings


def test_normalize_with_another_scale(rng):
    images = rng.integers(0, 17, (4, 8, 8, 1), np.uint8)
    expected = (images / 16 - 0.3) / 0.4
    np.testing.assert_allclose(Normalize([0.3], [0.4], 16)(images, INDEX[:4], 0), expected, rtol=0, atol=1e-6)


ALL = {
    "crop": RandomCrop((7, 5), 2, seed=1),
    "flip": RandomHorizontalFlip(seed=1),
    "cutout": Cutout(3, seed=1),
    "normalize": Normalize(MEAN, STD),
    "compose": Compose([RandomCrop((7, 5), 2), RandomHorizontalFlip(), Normalize(MEAN, STD)]),
}


@pytest.mark.parametrize("transform", ALL.values(), ids=ALL)
def test_whole_batch_is_one_by_one(images, transform):
    together = transform(images, INDEX, 4)
    alone = np.concatenate([transform(images[i : i + 1], INDEX[i : i + 1], 4) for i in range(len(images))])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(transform(images[::-1], INDEX[::-1], 4), together[::-1])


@pytest.mark.parametrize("transform", ALL.values(), ids=ALL)
def test_input_is_not_changed(images, transform):
    before = images.copy()
    images.flags.writeable = False
    y = transform(images, INDEX, 0)
    np.testing.assert_array_equal(images, before)
    assert y.shape == images.shape
    assert y.flags.c_contiguous


@pytest.mark.parametrize("transform", ALL.values(), ids=ALL)
def test_any_layout_in_memory(images, transform):
    """Reversed, stepped and Fortran-ordered images give the same bits as their copies, in order."""
    for view in (images[::-1], images[:, ::-1, ::-1], images[::2], np.asfortranarray(images), images[..., ::-1]):
        index = INDEX[: len(view)]
        y = transform(view, index, 4)
        assert y.flags.c_contiguous
        np.testing.assert_array_equal(y, transform(view.copy(), index, 4))


@pytest.mark.parametrize("transform", ALL.values(), ids=ALL)
def test_an_empty_batch_stays_one(images, transform):
    assert transform(images[:0], INDEX[:0], 0).shape == (0, 7, 5, 3)


@pytest.mark.parametrize("transform", [ALL["crop"], ALL["flip"], ALL["cutout"]], ids=["crop", "flip", "cutout"])
def test_epochs_and_seeds_differ(images, transform):
    first = transform(images, INDEX, 0)
    assert (transform(images, INDEX, 1) != first).any()
    assert (dataclasses.replace(transform, seed=9)(images, INDEX, 0) != first).any()
    np.testing.assert_array_equal(transform(images, INDEX, 0), first)


def test_compose_applies_in_order(images):
    steps = [RandomCrop((7, 5), 2), RandomHorizontalFlip(), Normalize(MEAN, STD)]
    expected = images
    for step in steps:
        expected = step(expected, INDEX, 2)
    y = Compose(steps)(images, INDEX, 2)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, expected)


def test_bad_arguments(images):
    with pytest.raises(ArgumentError, match="std above 0"):
        Normalize([0.5, 0.5], [0.5])
    for std in (0.0, float("nan")):
        with pytest.raises(ArgumentError, match="std above 0"):
            Normalize([0.5, 0.5], [0.5, std])
    with pytest.raises(ShapeError, match=r"1 means.*3 channels"):
        Normalize([0.5], [0.5])(images, INDEX, 0)
    with pytest.raises(DataError, match="9 images of 10"):
        Compose([lambda images, index, epoch: images[1:]])(images, INDEX, 0)
    for scale in (0, float("nan")):
        with pytest.raises(ArgumentError, match=f"scale {scale} must be above 0"):
            Normalize([0.5], [0.5], scale)
    with pytest.raises(ArgumentError, match=r"size=\(4, 4, 3\).*one number or two"):
        RandomCrop((4, 4, 3))
    with pytest.raises(ArgumentError, match="padding=-1"):
        RandomCrop(5, -1)
    with pytest.raises(ArgumentError, match="size=0"):
        Cutout(0)


def test_data_set_transforms_its_batches(images):
    labels = np.arange(10)
    data_set = ImageDataset(images, labels, "abcdefghij", RandomCrop((7, 5), 2))
    index = np.array([7, 2])
    x, y = data_set.batch(index, epoch=3)
    np.testing.assert_array_equal(x, RandomCrop((7, 5), 2)(images[index], index, 3))
    assert y.tolist() == [7, 2]
    image, label = data_set[-1]
    np.testing.assert_array_equal(image, RandomCrop((7, 5), 2)(images[9:], np.array([9]), 0)[0])
    assert (type(label), label) == (int, 9)


def test_data_set_takes_the_first(images):
    data_set = ImageDataset(images, np.arange(10), "abcdefghij", RandomCrop((7, 5), 2))
    assert len(data_set.take(None)) == 10
    some = data_set.take(4)
    assert (len(some), some.transform, some.classes) == (4, data_set.transform, data_set.classes)
    np.testing.assert_array_equal(some.images, images[:4])


def test_data_set_refuses_what_does_not_fit(images):
    for labels in (np.arange(9), np.arange(10).reshape(10, 1), np.array(0)):
        with pytest.raises(DataError, match=rf"but are \(10, .* with labels {re.escape(str(labels.shape))}"):
            ImageDataset(images, labels, "abcdefghij")
    with pytest.raises(DataError, match=r"\(N, H, W, C\)"):
        ImageDataset(images[..., 0], np.arange(10), "abcdefghij")
    for wrong in (-1, 10):
        with pytest.raises(DataError, match="there are 10 classes"):
            ImageDataset(images, np.array([wrong] + 9 * [0]), "abcdefghij")
    data_set = ImageDataset(images, np.arange(10), "abcdefghij")
    for index in (10, -11):
        with pytest.raises(IndexError, match=f"example {index} of 10"):
            data_set[index]


def test_crop_and_flip_take_torchvisions_arguments(images):
    """A size first, then the padding; a probability; seeds by name only."""
    assert RandomCrop((4, 3))(images, INDEX, 0).shape == (10, 4, 3, 3)
    np.testing.assert_array_equal(RandomHorizontalFlip(0.0)(images, INDEX, 0), images)
    np.testing.assert_array_equal(RandomHorizontalFlip(1.0)(images, INDEX, 0), images[:, :, ::-1])
    with pytest.raises(TypeError):
        RandomCrop(5, 2, 7)
    with pytest.raises(ShapeError, match="smaller than the crop"):
        RandomCrop(8)(images, INDEX, 0)
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        RandomHorizontalFlip(2)


def test_normalize_leaves_the_scale_of_floats(images):
    floats = images.astype(np.float32) / 255
    np.testing.assert_allclose(
        Normalize(MEAN, STD)(floats, INDEX, 0), Normalize(MEAN, STD)(images, INDEX, 0), atol=1e-6
    )


def test_data_set_takes_lists_and_refuses_labels_that_are_no_integers(images):
    assert ImageDataset(images, list(range(10)), "abcdefghij").labels.tolist() == list(range(10))
    with pytest.raises(DataError, match="integer type, not float64"):
        ImageDataset(images, np.linspace(0, 1, 10), "abcdefghij")
    with pytest.raises(ArgumentError, match="at least 1"):
        ImageDataset(images, np.arange(10), "abcdefghij").take(0)


def test_a_subclass_that_does_otherwise_is_asked(images):
    """Steps are fused only where their own `__call__` would do the same."""

    class Brighter(Normalize):
        def __call__(self, images, index, epoch):
            return super().__call__(images, index, epoch) + 100

    class Twice(Compose):
        def __call__(self, images, index, epoch):
            return 2 * super().__call__(images, index, epoch)

    plain, brighter = Normalize(MEAN, STD), Brighter(MEAN, STD)
    y = plain(images, INDEX, 0)
    np.testing.assert_array_equal(Compose([brighter])(images, INDEX, 0), y + 100)
    np.testing.assert_array_equal(Twice([plain])(images, INDEX, 0), 2 * y)
    crop = RandomCrop(5)
    got = Compose([crop, Twice([brighter])])(images, INDEX, 0)
    np.testing.assert_array_equal(got, 2 * (plain(crop(images, INDEX, 0), INDEX, 0) + 100))
    dataset = ImageDataset(images, np.zeros(10, np.int64), ["one"], Twice([plain]))
    np.testing.assert_array_equal(dataset.batch(np.arange(10), 0)[0], 2 * plain(images, np.arange(10), 0))


def test_float16_images(images):
    """Moved as they are; normalised they are float32, as images of any type are."""
    half = (images / 255).astype(np.float16)
    for transform in (RandomCrop(5, 1), RandomHorizontalFlip(), Compose([RandomCrop(5, 1), RandomHorizontalFlip()])):
        y = transform(half, INDEX, 3)
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, transform(half.astype(np.float32), INDEX, 3))
    y = Compose([RandomHorizontalFlip(), Normalize(MEAN, STD)])(half, INDEX, 3)
    assert y.dtype == np.float32
    np.testing.assert_allclose(
        y, Compose([RandomHorizontalFlip(), Normalize(MEAN, STD)])(half.astype(np.float32), INDEX, 3), rtol=1e-6
    )


def test_float16_data_sets_are_not_converted_whole(images, monkeypatch):
    """But for the images of a batch."""
    seen = []
    real = np.ndarray.astype
    dataset = ImageDataset((images / 255).astype(np.float16), np.zeros(10, np.int64), ["one"], Normalize(MEAN, STD))

    class Watched(np.ndarray):
        def astype(self, *args, **kwargs):
            seen.append(len(self))
            return real(self, *args, **kwargs)

    dataset.images = dataset.images.view(Watched)
    dataset.batch(np.array([4, 2]), 0)
    assert seen
    assert set(seen) == {2}


def test_lists_are_indices_too(images):
    crop = RandomCrop(5, 1)
    np.testing.assert_array_equal(crop(images, INDEX.tolist(), 1), crop(images, INDEX, 1))
    dataset = ImageDataset(images, np.zeros(10, np.int64), ["one"], crop)
    np.testing.assert_array_equal(dataset.batch([3, 1], 2)[0], dataset.batch(np.array([3, 1]), 2)[0])
