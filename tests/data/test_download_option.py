"""`download=True` fetches what is not there, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from minires import data
from minires.data import download
from minires.errors import DataError
from tests.data import cifar_files, idx_files

SETS: dict[str, Any] = {
    "cifar10": (data.CIFAR10, "cifar-10-python.tar.gz"),
    "cifar100": (data.CIFAR100, "cifar-100-python.tar.gz"),
    "mnist": (data.MNIST, "MNIST/raw"),
    "fashion-mnist": (data.FashionMNIST, "FashionMNIST/raw"),
}


@pytest.mark.parametrize("name", SETS)
def test_what_is_missing_is_fetched_once(name, tmp_path, rng, monkeypatch):
    kind, place = SETS[name]
    fetched = []

    def fetch(dataset, root):
        """The miniature data set in place of the real one."""
        fetched.append((dataset, root))
        if "mnist" in dataset:
            idx_files.write(root / place, rng, 20, 10, packed=True)
            return root / place
        form = f"{kind.__name__[:5]}-{kind.__name__[5:]} python"
        images, labels = cifar_files.drawn(form, rng, 60)
        cifar_files.put(form, root, cifar_files.contents(form, images, labels, 40), packed=True)
        return root

    monkeypatch.setattr(download, "fetch", fetch)
    with pytest.raises(DataError, match=rf"python -m minires\.data\.download {name} --root"):
        kind(tmp_path)
    assert fetched == []
    for train in (True, False):
        assert len(kind(tmp_path, train, download=True)) in (10, 20, 40)
    assert fetched == [(name, tmp_path)]
    assert name in download.DATASETS
    assert place in {str(download.DATASETS[name][0]), *(file.name for file in download.DATASETS[name][1])}
