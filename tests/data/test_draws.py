"""Random draws: a function of (seed, epoch, index, use), whatever else is drawn beside them."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import draws

USES = [
    draws.SHUFFLE, draws.CROP, draws.FLIP, draws.CUTOUT,
    draws.MIXUP_PAIR, draws.MIXUP_SHARE, draws.CUTMIX_PAIR, draws.CUTMIX_SHARE,
]  # fmt: skip


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


def test_uses_keep_their_numbers():
    """A new use comes last: old runs draw as they did."""
    assert list(range(8)) == USES


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 10.0, 1000.0])
def test_symmetric_beta_is_distributed_like_numpys(alpha):
    """Kolmogorov and Smirnov's test of two samples of 100,000, which does see an alpha that is off by a third.

    To 12 decimals: numpy's tiniest values are below 1e-16, which is 0 here.
    """
    stats = pytest.importorskip("scipy.stats")
    drawn = draws.symmetric_beta(draws.words(0, 1, np.arange(100_000), draws.MIXUP_SHARE), alpha).round(12)
    rng = np.random.default_rng(0)
    assert stats.ks_2samp(drawn, rng.beta(alpha, alpha, 100_000).round(12)).pvalue > 1e-4
    assert stats.ks_2samp(drawn, rng.beta(alpha * 4 / 3, alpha * 4 / 3, 100_000).round(12)).pvalue < 1e-4


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 0.2, 0.5, 1.0, 2.0, 10.0, 1000.0])
def test_symmetric_beta_has_its_moments(alpha):
    count = 200_000
    drawn = draws.symmetric_beta(draws.words(7, 3, np.arange(count), draws.MIXUP_SHARE), alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 * (2 * alpha + 1) / (2 * alpha + 3)  # kurtosis
    assert abs(drawn.mean() - 0.5) < 4 * np.sqrt(variance / count)
    assert abs(drawn.var() / variance - 1) < 4 * np.sqrt((fourth - 1) / count)
    assert abs(((drawn - 0.5) ** 4).mean() / variance**2 / fourth - 1) < 0.03


@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 0.4, 1e9, 1e300])
def test_symmetric_beta_of_every_word_and_alpha(alpha):
    """Extreme words, extreme alphas: numbers from 0 to 1, and no warning."""
    ends = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    word = np.stack(np.meshgrid(ends, ends, ends, ends), -1).reshape(-1, 4)
    drawn = draws.symmetric_beta(word, alpha)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    swapped = draws.symmetric_beta(word[:, [0, 1, 3, 2]], alpha)
    if alpha < 1e-3:  # then only which of the two gammas is larger counts
        differ = word[:, 2] != word[:, 3]
        np.testing.assert_array_equal(drawn[differ], (word[:, 2] > word[:, 3])[differ])
        np.testing.assert_array_equal(swapped[differ], 1 - drawn[differ])
