"""`download=True` fetches what is not there, and nothing else; a slow mirror gives way to others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minires import data
from minires.data import download
from minires.errors import DataError
from tests.data import cifar_files, idx_files
from tests.data.server import CONTENT, Server

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


@pytest.fixture
def slow_server(monkeypatch) -> Iterator[Server]:
    """Its folders "slow" and "slower" send a piece every 20 ms; mirrors are given 50 ms to do better."""
    monkeypatch.setattr(download, "PATIENCE", 0.05)
    monkeypatch.setattr(download, "SLOW", 10_000_000)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    server.folders |= {"/slow": CONTENT, "/slower": CONTENT}
    server.watch = lambda: time.sleep(0.02 * server.requests[-1][0].startswith("/slow"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_slow_mirror_gives_way_to_one_that_goes_on_with_its_part(slow_server, tmp_path):
    path = download.download(slow_server.file("slow", "good"), tmp_path)
    assert path.read_bytes() == CONTENT
    (first, _), (second, asked) = slow_server.requests
    assert (first, second) == ("/slow/data.bin", "/good/data.bin")
    assert 0 < int(asked.removeprefix("bytes=").removesuffix("-")) < len(CONTENT)


@pytest.mark.parametrize("folders", [("slow",), ("slow", "nowhere"), ("nowhere", "slow")])
def test_a_slow_mirror_is_better_than_none(slow_server, tmp_path, folders):
    assert download.download(slow_server.file(*folders), tmp_path).read_bytes() == CONTENT
    slow = [path for path, _ in slow_server.requests if path.startswith("/slow")]
    assert len(slow) == (2 if folders == ("slow", "nowhere") else 1)


def test_of_slow_mirrors_the_first_is_kept_to_in_its_second_turn(slow_server, tmp_path):
    assert download.download(slow_server.file("slow", "slower"), tmp_path).read_bytes() == CONTENT
    assert [path.split("/")[1] for path, _ in slow_server.requests] == ["slow", "slower", "slow"]
