"""Random draws: a function of (seed, epoch, index, use), whatever else is drawn beside them."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import draws

USES = [draws.SHUFFLE, draws.CROP, draws.FLIP]


def test_words_do_not_depend_on_the_batch_or_its_order(rng):
    index = rng.choice(10_000, 64, replace=False)
    together = draws.words(3, 5, index, draws.CROP)
    assert together.shape == (64, 4)
    assert together.dtype == np.uint32
    alone = np.concatenate([draws.words(3, 5, index[i : i + 1], draws.CROP) for i in range(64)])
    np.testing.assert_array_equal(alone, together)
    order = rng.permutation(64)
    np.testing.assert_array_equal(draws.words(3, 5, index[order], draws.CROP), together[order])


def test_every_part_of_the_address_counts():
    index = np.arange(100)
    addresses = [(seed, epoch, use) for seed in (0, 1, 2**32, 2**40 + 1) for epoch in (0, 1, 7) for use in USES]
    drawn = np.concatenate([draws.words(seed, epoch, index, use) for seed, epoch, use in addresses])
    assert len(np.unique(drawn, axis=0)) == len(addresses) * 100
    far = draws.words(0, 0, np.array([5, 5 + 2**32]), draws.CROP)
    assert (far[0] != far[1]).any()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1437, 50_000])
def test_permutation_is_one(n):
    np.testing.assert_array_equal(np.sort(draws.permutation(n, 0, 0)), np.arange(n))


def test_permutations_differ_by_seed_and_epoch():
    drawn = {draws.permutation(100, seed, epoch).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(drawn) == 25
    np.testing.assert_array_equal(draws.permutation(100, 4, 2), draws.permutation(100, 4, 2))


def test_permutations_are_even():
    """Each of the six orders of three things comes up a sixth of the time: chi-square with 5 degrees of freedom."""
    orders = [tuple(draws.permutation(3, 0, epoch)) for epoch in range(3000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 500) ** 2 / 500).sum() < 20.5  # one in a thousand


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 1000])
def test_below_is_in_range_and_even(n):
    drawn = draws.below(draws.words(1, 2, np.arange(100_000), draws.CROP)[:, 0], n)
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn, minlength=n)
    assert len(counts) == n
    expected = 100_000 / n
    freedom = n - 1
    assert ((counts - expected) ** 2 / expected).sum() <= freedom + 4 * np.sqrt(2 * freedom)


def test_below_at_the_ends():
    ends = np.array([0, 2**32 - 1], np.uint32)
    for n in (1, 2, 9, 2**31):
        assert draws.below(ends, n).tolist() == [0, n - 1]


def test_uses_are_unrelated():
    index = np.arange(20_000)
    bits = np.stack([draws.below(draws.words(0, 0, index, use)[:, 0], 2) for use in USES])
    together = np.corrcoef(bits)[np.triu_indices(len(USES), 1)]
    assert abs(together).max() < 0.03  # four deviations
