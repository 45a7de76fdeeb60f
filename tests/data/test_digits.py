"""The digits that come with minires."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import Digits, Normalize


@pytest.mark.parametrize(("train", "count"), [(True, 1437), (False, 360)], ids=["train", "test"])
def test_counts_and_values(train, count):
    digits = Digits(train)
    assert digits.images.shape == (count, 8, 8, 1)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 16)
    assert digits.labels.dtype == np.int64
    assert digits.classes == list("0123456789")


def test_thirty_six_test_images_of_each_class():
    assert np.bincount(Digits(train=False).labels).tolist() == [36] * 10


def test_no_image_is_in_both_parts():
    train, test = ({image.tobytes() for image in Digits(part).images} for part in (True, False))
    assert len(train) == 1437
    assert len(test) == 360
    assert not train & test


def test_transform_is_applied():
    images, labels = Digits(transform=Normalize([0.5], [0.5], 16)).batch(np.arange(5), epoch=0)
    np.testing.assert_allclose(images, Digits().images[:5] / 8.0 - 1, rtol=0, atol=1e-6)
    assert labels.tolist() == Digits().labels[:5].tolist()


def test_same_as_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the oracle of this test")
    expected = datasets.load_digits()
    keys = [image.astype(np.uint8).tobytes() for image in expected.images]
    known = dict(zip(keys, expected.target.tolist(), strict=True))
    for part in (True, False):
        digits = Digits(part)
        assert [known[image.tobytes()] for image in digits.images] == digits.labels.tolist()
    assert len(known) == len(Digits(True)) + len(Digits(False))
