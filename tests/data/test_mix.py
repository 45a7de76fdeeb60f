"""Mixup, CutMix and label smoothing: shares, partners, areas, and draws that are functions of the examples."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.data import Compose, DataLoader, ImageDataset, RandomCrop, cutmix, draws, label_smoothing, mixup
from minires.errors import ArgumentError, DataError, DTypeError, RangeError, ShapeError

CLASSES = 6
MIXES = {"mixup": mixup, "cutmix": cutmix}
every_mix = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def told(labels: np.ndarray, height: int = 12, width: int = 20) -> np.ndarray:
    """Images whose channels are the classes, 1 in their own: their means say what they are mixed of."""
    return np.broadcast_to(
        np.eye(CLASSES, dtype=np.float32)[labels][:, None, None], (len(labels), height, width, CLASSES)
    )


@pytest.fixture
def batch(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and index of 40 examples."""
    labels = rng.integers(0, CLASSES, 40)
    return told(labels), labels, rng.choice(10**6, 40, replace=False)


@every_mix
@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_probabilities_say_what_the_image_holds(batch, mix, alpha):
    images, q = mix(*batch, 3, alpha=alpha, classes=CLASSES, seed=5)
    assert (images.shape, images.dtype, q.shape, q.dtype) == (batch[0].shape, np.float32, (40, CLASSES), np.float32)
    np.testing.assert_allclose(images.mean(axis=(1, 2), dtype=np.float64), q, rtol=0, atol=2e-7)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=2e-7)
    assert q.min() >= 0
    assert ((q > 0).sum(axis=1) <= 2).all()


def partners(batch, mix, epoch=0, seed=0) -> list[int]:
    """Who each example is mixed with, as the labels tell when every example has a class of its own."""
    index = batch[2]
    _, q = mix(np.zeros((len(index), 8, 8, 1)), np.arange(len(index)), index, epoch, classes=len(index), seed=seed)
    np.fill_diagonal(q, 0)
    return [int(row.argmax()) if row.any() else -1 for row in q]


@every_mix
def test_partners_are_a_circle(batch, mix):
    found = partners(batch, mix)
    at, seen = 0, []
    while at != -1 and at not in seen:
        seen.append(at)
        at = found[at]
    if mix is mixup:
        assert len(seen) == 40
        assert at == 0
    known = [p for p in found if p != -1]  # a box of less than a pixel does not tell
    assert len(set(known)) == len(known) > 30


def test_circles_are_even():
    """Of four examples, the partner of the first is each of the others a third of the time: chi-square, 2 degrees."""
    index = np.arange(4)
    found = [partners((None, None, index), mixup, epoch)[0] for epoch in range(3000)]
    counts = np.bincount(found, minlength=4)
    assert counts[0] == 0
    assert ((counts[1:] - 1000) ** 2 / 1000).sum() < 13.8  # one in a thousand


@every_mix
def test_draws_are_those_of_the_examples(batch, mix):
    """In another order the same examples have the same partners and shares; another seed or epoch draws anew."""
    images, labels, index = batch
    images = np.random.default_rng(0).random(images.shape, np.float32)
    run = partial(mix, classes=CLASSES)
    x, q = run(images, labels, index, 3)
    order = np.random.default_rng(1).permutation(40)
    again, p = run(images[order], labels[order], index[order], 3)
    np.testing.assert_array_equal(again, x[order])
    np.testing.assert_array_equal(p, q[order])
    for other in (run(*(images, labels, index), 4), run(*(images, labels, index), 3, seed=1)):
        assert (other[0] != x).any()
        assert (other[1] != q).any()


@every_mix
def test_the_batch_given_is_not_changed(batch, mix):
    before = [array.copy() for array in batch]
    mix(*batch, 0, classes=CLASSES)
    for array, copy in zip(batch, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@every_mix
def test_one_example_and_none(batch, mix):
    alone, q = mix(*(array[:1] for array in batch), 0, classes=CLASSES)
    np.testing.assert_allclose(alone, batch[0][:1], rtol=0, atol=1e-7)
    np.testing.assert_allclose(q, np.eye(CLASSES)[batch[1][:1]], rtol=0, atol=1e-7)
    none, q = mix(*(array[:0] for array in batch), 0, classes=CLASSES)
    assert (none.shape, q.shape) == ((0, 12, 20, CLASSES), (0, CLASSES))


def test_mixup_by_hand(batch):
    _, labels, index = batch
    images = np.random.default_rng(0).random((40, 3, 2, 1))
    x, q = mixup(images, labels, index, 7, alpha=0.4, classes=CLASSES, seed=2)
    assert x.dtype == np.float64
    share = draws.symmetric_beta(draws.words(2, 7, index, draws.MIXUP_SHARE), 0.4).astype(np.float32)
    word = draws.words(2, 7, index, draws.MIXUP_PAIR).tolist()
    circle = sorted(range(40), key=lambda i: word[i][:2])
    eye = np.eye(CLASSES)
    for place, i in enumerate(circle):
        j, s = circle[(place + 1) % 40], float(share[i])
        np.testing.assert_allclose(x[i], s * images[i] + (1 - s) * images[j], rtol=0, atol=1e-15)
        np.testing.assert_allclose(q[i], s * eye[labels[i]] + (1 - s) * eye[labels[j]], rtol=0, atol=1e-7)


def test_mixup_makes_integers_floats_and_cutmix_keeps_the_type(batch):
    images, labels, index = batch
    x, _ = mixup((images * 200).astype(np.uint8), labels, index, 0, classes=CLASSES)
    np.testing.assert_allclose(x, mixup(images * 200, labels, index, 0, classes=CLASSES)[0], rtol=0, atol=1e-4)
    assert x.dtype == np.float32
    for dtype in (np.uint8, np.float16, np.float64):
        assert cutmix(images.astype(dtype), labels, index, 0, classes=CLASSES)[0].dtype == dtype
    assert mixup(images.astype(np.float16), labels, index, 0, classes=CLASSES)[0].dtype == np.float16


def test_cutmix_by_hand():
    """One box an image, of the image's proportions, centred at the drawn pixel and clipped; all else is its own."""
    count, height, width = 60, 12, 20
    index = np.arange(count)
    images = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, height, width, 1))
    x, q = cutmix(images, index, index, 1, alpha=0.7, classes=count, seed=3)
    share = draws.symmetric_beta(draws.words(3, 1, index, draws.CUTMIX_SHARE), 0.7)
    word = draws.words(3, 1, index, draws.CUTMIX_PAIR).tolist()
    circle = sorted(range(count), key=lambda i: word[i][:2])
    clipped = 0
    for place, i in enumerate(circle):
        j = circle[(place + 1) % count]
        h, w = (int(side * (1 - share[i]) ** 0.5) for side in (height, width))
        top, left = (word[i][2] * height >> 32) - h // 2, (word[i][3] * width >> 32) - w // 2
        expected = np.full((height, width), i, np.float32)
        expected[max(top, 0) : max(top + h, 0), max(left, 0) : max(left + w, 0)] = j
        np.testing.assert_array_equal(x[i, :, :, 0], expected)
        area = (expected == j).mean()
        clipped += area < h * w / (height * width) - 1e-9
        assert q[i, j] == pytest.approx(area, abs=1e-6)
        assert q[i, i] == pytest.approx(1 - area, abs=1e-6)
    assert 10 < clipped < 50  # so the areas drawn are not those that count


def test_cutmix_areas_follow_the_shares():
    """The area that counts is the one drawn, rounded down by a pixel a side, where no border clips it: never more."""
    index = np.arange(4000)
    _, q = cutmix(np.zeros((4000, 64, 64, 1)), index, index, 0, classes=4000)
    cut = 1 - q[index, index]
    drawn = 1 - draws.symmetric_beta(draws.words(0, 0, index, draws.CUTMIX_SHARE), 1.0)
    assert (cut <= drawn + 1e-6).all()
    whole = cut > drawn - 2 / 64
    small = drawn < 0.05
    assert whole[small].mean() > 0.75  # a small box is seldom clipped
    assert whole[drawn > 0.7].mean() < 0.1  # a large one nearly always


@every_mix
def test_mixes_follow_each_other(batch, mix):
    """Probabilities are labels, too."""
    images, labels, index = batch
    x, q = mixup(images, labels, index, 0, classes=CLASSES)
    y, p = mix(x, q, index, 0, classes=CLASSES, seed=1)
    np.testing.assert_allclose(y.mean(axis=(1, 2), dtype=np.float64), p, rtol=0, atol=4e-7)
    assert ((p > 0).sum(axis=1) > 2).any()
    smooth = label_smoothing(q, 0.25, CLASSES)
    np.testing.assert_allclose(smooth, 0.75 * q + 0.25 / CLASSES, rtol=0, atol=1e-7)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 100), st.integers(0, 2**63))
def test_any_size_and_alpha(count, height, width, alpha, seed):
    labels = np.arange(count) % CLASSES
    for mix in MIXES.values():
        x, q = mix(told(labels, height, width), labels, labels * 7, 1, alpha=alpha, classes=CLASSES, seed=seed)
        np.testing.assert_allclose(x.mean(axis=(1, 2), dtype=np.float64), q, rtol=0, atol=2e-7)
        np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_label_smoothing(dtype):
    q = label_smoothing(np.array([2, 0], dtype), 0.4, 4)
    assert q.dtype == np.float32
    np.testing.assert_allclose(q, [[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(label_smoothing(np.array([1]), 0, 3), [[0, 1, 0]])
    np.testing.assert_allclose(label_smoothing(np.array([1]), 1, 4), np.full((1, 4), 0.25))


def test_label_smoothing_is_that_of_the_loss(rng):
    from minires.nn import functional as F

    logits, labels = rng.standard_normal((9, CLASSES)), rng.integers(0, CLASSES, 9)
    ours = F.cross_entropy(logits, label_smoothing(labels, 0.1, CLASSES).astype(np.float64))
    assert ours.item() == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=0.1).item(), rel=1e-6)


BAD = {
    "float labels": (np.array([0.0, 1.0]), ShapeError, r"probabilities \(2,\) must be \(N, 6\)"),
    "other classes": (np.full((2, 5), 0.2), ShapeError, r"\(2, 5\) must be \(N, 6\), as classes=6"),
    "matrix": (np.array([[0], [1]]), DTypeError, r"\(2, 1\) of int64 are no class numbers"),
    "truth": (np.array([True, False]), DTypeError, "bool"),
    "too large": (np.array([0, 6]), RangeError, "labels run from 0 to 6, but classes=6"),
    "negative": (np.array([-1, 0]), RangeError, "labels run from -1 to 0"),
}


@pytest.mark.parametrize(("labels", "error", "message"), BAD.values(), ids=BAD)
def test_bad_labels(labels, error, message):
    for name, mix in MIXES.items():
        with pytest.raises(error, match=f"{name}: .*{message}"):
            mix(np.zeros((2, 4, 4, 1)), labels, np.arange(2), 0, classes=6)
    with pytest.raises(error, match=f"label_smoothing: .*{message}"):
        label_smoothing(labels, 0.1, 6)


def test_bad_settings(batch):
    for alpha in (0, -1.0, float("nan"), float("inf")):
        for name, mix in MIXES.items():
            with pytest.raises(ArgumentError, match=f"{name}: alpha {alpha} must be above 0"):
                mix(*batch, 0, alpha=alpha, classes=CLASSES)
    for smoothing in (-0.1, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match=r"smoothing .* must be from 0 to 1"):
            label_smoothing(batch[1], smoothing, CLASSES)


@dataclasses.dataclass
class Counted:
    """Examples one by one, without `batch`: (i, i mod CLASSES)."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return told(np.array([index % CLASSES]), 4, 5)[0], index % CLASSES


@every_mix
@pytest.mark.parametrize("kind", ["batches", "one by one"])
def test_the_loader_mixes_alike_with_any_number_of_threads(mix, kind):
    images = told(np.arange(100) % CLASSES, 4, 5)
    whole = ImageDataset(images, np.arange(100) % CLASSES, "abcdef", Compose([RandomCrop((4, 5), 0)]))
    runs = []
    for workers in (0, 1, 4):
        loader = DataLoader(
            whole if kind == "batches" else Counted(100), 16, True, num_workers=workers, seed=2,
            mix=partial(mix, classes=CLASSES),
        )  # fmt: skip
        loader.set_epoch(3)
        runs.append([(x.numpy().tobytes(), q.numpy().tobytes()) for x, q in loader])
    assert runs[0] == runs[1] == runs[2]
    index = draws.permutation(100, 2, 3)[16:32]
    x, q = mix(images[index], index % CLASSES, index, 3, classes=CLASSES)
    assert runs[0][1] == (x.tobytes(), q.tobytes())


@every_mix
def test_batches_that_are_none_are_refused(mix):
    images, labels = told(np.arange(3), 4, 5), np.arange(3)
    for x, q, index in (
        (images[..., 0], labels, labels),
        (images, labels[:2], labels),
        (images, labels, labels[:2]),
        (images, 1, labels),
    ):
        with pytest.raises(ShapeError, match=rf"{mix.__name__}: images .* must be \(N, H, W, C\)"):
            mix(x, q, index, 0, classes=CLASSES)
    for call in (
        lambda: mix(images[:0], labels[:0], labels[:0], 0, classes=0),
        lambda: label_smoothing(labels[:0], 0.1, 0),
    ):
        with pytest.raises(ArgumentError, match="classes=0 must be at least 1"):
            call()


def test_a_mix_that_fails_is_a_data_error():
    loader = DataLoader(Counted(8), 4, mix=partial(mixup, classes=2))
    with pytest.raises(DataError, match=r"examples 0, 1, 2, 3 failed: RangeError: mixup: labels run from 0 to 3"):
        next(iter(loader))


def test_a_mixed_batch_trains():
    from minires import Tensor, nn
    from minires.nn import functional as F

    net = nn.Linear(4 * 5 * CLASSES, CLASSES, generator=np.random.default_rng(0))
    for images, q in DataLoader(Counted(20), 10, mix=partial(cutmix, classes=CLASSES)):
        loss = F.cross_entropy(net(images.reshape(10, -1)), q)
        loss.backward()
        assert isinstance(q, Tensor)
    assert np.isfinite(net.weight.grad.numpy()).all()
    assert np.abs(net.weight.grad.numpy()).max() > 0
