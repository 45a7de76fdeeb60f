"""Statistics of channels against NumPy's on all pixels, and the presets against the real pictures."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import CIFAR10, NORMALIZATION, Digits, FashionMNIST, ImageDataset, Normalize, channel_statistics
from minires.errors import DataError


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 5, 4, 3), (600, 3, 7, 2), (257, 1, 1, 1)])
def test_against_all_pixels_at_once(rng, shape, dtype):
    images = rng.integers(0, 256, shape).astype(dtype)
    scale = 255 if dtype == "u1" else 1
    got = channel_statistics(ImageDataset(images, np.zeros(len(images), int), "a"))
    values = images.astype(np.float64) / scale
    np.testing.assert_allclose(got.mean, values.mean((0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(got.std, values.std((0, 1, 2)), rtol=1e-13)
    freedom = max(1, shape[1] * shape[2] - 1)
    deviations = np.sqrt(((values - values.mean((1, 2), keepdims=True)) ** 2).sum((1, 2)) / freedom)
    np.testing.assert_allclose(got.mean_image_std, deviations.mean(0), rtol=1e-13)


def test_numbers_by_hand():
    """Two images of two pixels, 0 and 2, 4 and 6: within each, the squares' sum is 2, over n - 1 = 1."""
    images = np.array([0, 2, 4, 6], np.uint8).reshape(2, 1, 2, 1)
    got = channel_statistics(images, scale=1)
    assert got.mean == (3.0,)
    assert got.std == pytest.approx((np.sqrt(5),))
    assert got.mean_image_std == pytest.approx((np.sqrt(2),))
    assert channel_statistics(images, scale=2).mean == (1.5,)


def test_a_far_mean_keeps_the_digits(rng):
    """A mean of 1e6 deviations, where the mean of squares would have lost them all in float32."""
    images = 1e6 + rng.standard_normal((50, 8, 8, 1))
    got = channel_statistics(images)
    np.testing.assert_allclose(got.std, images.std(), rtol=1e-9)


def test_normalized_images_have_mean_0_and_deviation_1(rng):
    images = rng.integers(0, 200, (300, 6, 5, 3), np.uint8)
    mean, std, _ = channel_statistics(images)
    y = Normalize(mean, std)(images, np.arange(300), 0)
    np.testing.assert_allclose(y.mean((0, 1, 2), dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(y.std((0, 1, 2), dtype=np.float64), 1, atol=1e-6)


def test_nothing_has_no_statistics():
    for shape in ((0, 4, 4, 3), (3, 0, 4, 3), (4, 4, 3)):
        with pytest.raises(DataError, match=r"images \(N, H, W, C\) are needed"):
            channel_statistics(np.zeros(shape))


@pytest.mark.parametrize("name", NORMALIZATION)
def test_presets_make_a_transform(name, rng):
    preset = NORMALIZATION[name]
    images = rng.integers(0, 17, (2, 4, 4, len(preset.mean)), np.uint8)
    y = Normalize(*preset)(images, np.arange(2), 0)
    expected = (images / (preset.scale or 255) - preset.mean) / preset.std
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6)


def rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]


def test_digits_preset():
    got = channel_statistics(Digits(), NORMALIZATION["digits"].scale)
    assert (rounded(got.mean), rounded(got.std)) == ([0.3049], [0.3759])


def test_cifar10_presets_on_the_real_pictures(cifar10_root):
    """JPEG coding leaves the means (1.5e-4 off), and takes fine detail away: 0.0018 of the deviations at most."""
    train = CIFAR10(cifar10_root)
    mean, std, image_std = map(np.array, channel_statistics(train))
    true, post = NORMALIZATION["cifar10"], NORMALIZATION["cifar10_post"]
    exact = train.name == "CIFAR-10"
    assert np.abs(mean - true.mean).max() <= (5.1e-5 if exact else 2e-4)
    for computed, preset in ((std, true.std), (image_std, post.std)):
        below = np.array(preset) - computed
        assert below.max() <= (5.1e-5 if exact else 1.9e-3)
        assert below.min() >= (-5.1e-5 if exact else 1e-4)


def test_fashion_mnist_preset_on_the_real_pictures(cifar10_root):
    if not (cifar10_root / "FashionMNIST" / "raw").is_dir():
        pytest.skip("real Fashion-MNIST needed: FashionMNIST/raw in the folder MINIRES_DATA")
    got = channel_statistics(FashionMNIST(cifar10_root))
    preset = NORMALIZATION["fashion_mnist"]
    assert (rounded(got.mean), rounded(got.std)) == (list(preset.mean), list(preset.std))
