"""Downloads from a server on this machine that breaks off, lies, stalls or is not there."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minires import cli
from minires.data import download as module
from minires.data.download import DATASETS, File, download, fetch
from minires.errors import ArgumentError, DataError
from tests.data.server import CONTENT, OTHER, Server


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.delenv("MINIRES_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_arrives(server, tmp_path):
    path = download(server.file(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["data.bin"]
    assert server.requests == [("/good/data.bin", None)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_ten_broken_connections_make_one_whole_file(server, tmp_path, seed, ranges):
    """Each gets further than the last. The final name never stands for a part; without ranges it starts again."""
    server.breaks = sorted(np.random.default_rng(seed).choice(len(CONTENT), 10, replace=False).tolist())
    offsets, server.ranges = [*server.breaks], ranges
    server.watch = (tmp_path / "data.bin").exists
    assert download(server.file(), tmp_path).read_bytes() == CONTENT
    asked = [None if offset == 0 else f"bytes={offset}-" for offset in [0, *offsets]]
    assert server.requests == [("/good/data.bin", start) for start in asked]
    assert len(server.seen) > 10
    assert not any(server.seen)
    assert names(tmp_path) == ["data.bin"]


def test_the_name_is_given_to_what_has_reached_the_disk(server, tmp_path, monkeypatch):
    published = []
    monkeypatch.setattr(
        module, "publish", lambda part, target: published.append((Path(part.name).read_bytes(), target))
    )
    download(server.file(), tmp_path)
    assert published == [(CONTENT, tmp_path / "data.bin")]


def test_a_connection_that_is_reset(server, tmp_path):
    """What was on its way may be lost, all of it at worst."""
    server.breaks, server.reset = [50_000, 100_000, 150_000], True
    assert download(server.file(), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_what_an_interrupted_download_left_is_used(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:150_000])
    assert download(server.file(), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/good/data.bin", "bytes=150000-")]


@pytest.mark.parametrize("size", [1, 60_000, 200_000, 300_000])
def test_a_stale_part_of_another_file_costs_one_more_download(server, tmp_path, size):
    (tmp_path / "data.bin.part").write_bytes((OTHER * 2)[:size])
    assert download(server.file(), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("/good/data.bin", None)
    assert len(server.requests) == (2 if size < len(CONTENT) else 1)
    assert names(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("first", ["bad", "short", "long", "missing"])
@pytest.mark.parametrize("tells_length", [True, False])
def test_the_next_mirror_helps(server, tmp_path, first, tells_length):
    server.tells_length = tells_length
    assert download(server.file(first, "good"), tmp_path).read_bytes() == CONTENT
    requests = 1 if first in ("bad", "missing", "long") or tells_length else 2 + module.RETRIES  # seems to break off
    assert sum(path == f"/{first}/data.bin" for path, _ in server.requests) == requests
    assert names(tmp_path) == ["data.bin"]


def test_one_mirror_goes_on_where_another_broke_off(server, tmp_path):
    server.breaks = [100_000, 100_000, 100_000, 100_000, 100_000]
    assert download(server.file("short", "good"), tmp_path).read_bytes() == CONTENT
    # "short" is refused for its length before a byte is taken, so all five ends are those of "good"
    assert server.requests[-1] == ("/good/data.bin", "bytes=100000-")


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_a_server_in_trouble_is_asked_again(server, tmp_path, status):
    server.refuse = [status] * module.RETRIES
    assert download(server.file(), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1 + module.RETRIES


def test_retries_end(server, tmp_path):
    server.refuse = [503] * 100
    with pytest.raises(DataError, match=r"good/data\.bin: HTTP 503 Service Unavailable"):
        download(server.file(), tmp_path)
    assert len(server.requests) == 1 + module.RETRIES
    assert names(tmp_path) == []


def test_waits_between_retries_grow_and_headway_resets_them(server, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(module, "PAUSE", 0.5)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.refuse, server.breaks = [500, 500], [70_000, 70_000]
    download(server.file(), tmp_path)
    assert waits == [0.5, 1.0, 0.0, 0.5]  # refused twice, then a part came, then nothing more, then the rest


def test_a_range_from_elsewhere_is_not_taken(server, tmp_path):
    server.breaks, server.lie = [100_000], 1
    with pytest.raises(DataError, match=r"another range than from byte 100000: bytes 100001-"):
        download(server.file(), tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:100_000]


def test_a_silent_server_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.stall.set()
    server.breaks = [100_000] * (1 + module.RETRIES + 1)
    with pytest.raises(DataError, match="timed out"):
        download(server.file(), tmp_path)
    assert len(server.requests) == 1 + 1 + module.RETRIES  # one made headway
    server.stall.clear()
    assert download(server.file(), tmp_path).read_bytes() == CONTENT


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_offline_says_what_to_put_where(server, tmp_path):
    urls = [f"http://127.0.0.1:{closed_port()}/{folder}" for folder in "ab"]
    with pytest.raises(DataError) as raised:
        download(dataclasses.replace(server.file(), mirrors=tuple(urls)), tmp_path)
    message = str(raised.value)
    assert "\n" not in message
    for part in [f"{url}/data.bin: " for url in urls] + [
        str(tmp_path / "data.bin"), "200,000 bytes", f"MD5 {hashlib.md5(CONTENT).hexdigest()}", "refused", "by hand",
        "MINIRES_MIRROR",
    ]:  # fmt: skip
        assert part in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["nowhere", "gopher://127.0.0.1/", "file:///nowhere/at/all/"])
def test_a_mirror_that_is_none(server, tmp_path, url):
    with pytest.raises(DataError, match=re.escape(f"{url.rstrip('/')}/data.bin: ")):
        download(server.file(), tmp_path, mirrors=[url])
    with pytest.raises(DataError, match="no mirror is given"):
        download(server.file(), tmp_path, mirrors=[])


def test_ones_own_mirror_comes_first(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRES_MIRROR", server.url("good"))
    assert download(server.file("bad"), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/good/data.bin", None)]
    with pytest.raises(DataError, match=r"bad/data\.bin: has the MD5"):  # an argument is all there is
        download(server.file(), tmp_path / "x", mirrors=server.url("bad"))
    assert len(server.requests) == 2


def test_a_folder_is_a_mirror(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "data.bin.part").write_bytes(CONTENT[:10])  # a file URL knows no ranges
    assert download(server.file(), tmp_path / "to", [tmp_path.as_uri()]).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(CONTENT)
    tmp_path.chmod(0o555)
    assert download(server.file(), tmp_path) == tmp_path / "data.bin"
    tmp_path.chmod(0o755)
    assert server.requests == []
    assert names(tmp_path) == ["data.bin"]


def test_a_thousand_damages_are_a_thousand_errors(tmp_path):
    """Of files that are there: flipped bits, lost and added bytes. The user's file stays as it was."""
    rng = np.random.default_rng(5)
    content = rng.bytes(3_000)
    files = [
        File("small.bin", 3_000, f"{kind}:{hashlib.new(kind, content).hexdigest()}", ()) for kind in ("md5", "sha256")
    ]
    path = tmp_path / "small.bin"
    for turn in range(1_000):
        damaged = bytearray(content)
        at = int(rng.integers(3_000))
        if turn % 3 == 0:
            del damaged[at:]
        elif turn % 3 == 1:
            damaged[at] ^= 1 << int(rng.integers(8))
        else:
            damaged[at:at] = b"\0"
        path.write_bytes(damaged)
        file = files[turn % 2]
        with pytest.raises(DataError, match=rf"small\.bin has .* so it is not small\.bin .*{file.digest[-32:]}"):
            download(file, tmp_path)
        assert path.read_bytes() == damaged
    path.write_bytes(content)
    assert [download(file, tmp_path) for file in files] == [path, path]


def test_who_comes_second_waits(server, tmp_path):
    """Eight threads, one download."""
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(download(server.file(), tmp_path))) for _ in range(8)]
    server.stall.set()
    server.breaks = [199_999]
    for thread in threads:
        thread.start()
    assert server.stalled.wait(20)
    assert names(tmp_path) == ["data.bin.part"]
    server.go_on.set()
    for thread in threads:
        thread.join(20)
    assert paths == [tmp_path / "data.bin"] * 8
    assert [start for _, start in server.requests] == [None, "bytes=199999-"]
    assert names(tmp_path) == ["data.bin"]
    assert paths[0].read_bytes() == CONTENT


@pytest.mark.skipif(module.fcntl is None, reason="Windows has no locks")
def test_many_come_at_any_moment(server, tmp_path):
    """Whatever they meet, the part under its name, renamed, or removed: each gets the file, and it is fetched once."""
    for turn in range(60):
        paths: list[Path] = []
        get = functools.partial(download, server.file(), tmp_path / str(turn))
        threads = [threading.Thread(target=lambda get=get, paths=paths: paths.append(get())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(paths) == 6
        assert names(tmp_path / str(turn)) == ["data.bin"]
        assert len(server.requests) == turn + 1


@pytest.mark.skipif(module.fcntl is None, reason="Windows has no locks")
def test_who_waited_for_a_download_that_failed_makes_its_own(server, tmp_path, monkeypatch):
    """The part that it waited for is removed by then."""
    server.stall.set()
    server.breaks = [199_999]
    flock, waiting = module.fcntl.flock, threading.Semaphore(0)
    monkeypatch.setattr(module.fcntl, "flock", lambda *given: (waiting.release(), flock(*given)))
    failures: list[DataError] = []

    def fail() -> None:
        try:
            download(server.file("bad"), tmp_path)
        except DataError as error:
            failures.append(error)

    threads = [threading.Thread(target=fail), threading.Thread(target=lambda: download(server.file(), tmp_path))]
    threads[0].start()
    assert server.stalled.wait(20)
    threads[1].start()
    assert all(waiting.acquire(timeout=20) for _ in threads)
    server.go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(failures) == 1
    assert names(tmp_path) == ["data.bin"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


FETCH = "import sys; from minires.data.download import *; download(File(*eval(sys.argv[1])), sys.argv[2])"


def start(file: File, folder: Path) -> subprocess.Popen[str]:
    arguments = [repr(dataclasses.astuple(file)), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks")
def test_a_killed_process_leaves_a_part_and_no_lock(server, tmp_path):
    """Two processes; the one that downloads is killed half-way; the other goes on from there."""
    server.stall.set()
    server.breaks = [70_000, 140_000]
    first = start(server.file(), tmp_path)
    assert server.stalled.wait(30)
    second = start(server.file(), tmp_path)
    first.kill()
    first.communicate(timeout=30)
    server.go_on.set()
    _, stderr = second.communicate(timeout=60)
    assert (second.returncode, (tmp_path / "data.bin").read_bytes() == CONTENT) == (0, True), stderr
    assert names(tmp_path) == ["data.bin"]


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        download(server.file(), tmp_path / "taken" / "below")


@pytest.fixture
def small(server, monkeypatch) -> Server:
    """A data set of one file on the server, and one of two below a folder."""
    monkeypatch.setitem(DATASETS, "one", (".", (server.file(),)))
    two = (server.file(), dataclasses.replace(server.file(), name="again.bin"))
    monkeypatch.setitem(DATASETS, "two", ("below/it", two))
    return server


def test_fetch_returns_the_folder(small, tmp_path):
    assert fetch("one", tmp_path) == tmp_path
    assert fetch("two", str(tmp_path)) == tmp_path / "below" / "it"
    assert names(tmp_path / "below" / "it") == ["again.bin", "data.bin"]
    assert len(small.requests) == 3
    with pytest.raises(ArgumentError, match="'three' to download: choose one of cifar10, cifar10-binary, "):
        fetch("three", tmp_path)


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["download.py", *arguments])
    return cli.exit_code(module.main)


def test_command(small, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "one", "--root", str(tmp_path)) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}\n"
    lines = printed.err.splitlines()  # some tenths may come at once
    assert lines[-1] == "data.bin: 100 % of 0.2 MB"
    assert all(re.fullmatch(r"data.bin: \d+0 % of 0.2 MB", line) for line in lines)
    assert len(set(lines)) == len(lines) <= 10
    other = str(tmp_path / "other")
    assert run(monkeypatch, "one", "--root", other, "--mirror", small.url("none"), "--mirror", small.url("bad")) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.search("error: cannot download data.bin.*none/data.bin: HTTP 404.*bad/data.bin: has the MD5", message)


def test_a_bar_on_a_terminal(small, tmp_path, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert fetch("one", tmp_path) == tmp_path
    assert "% of" not in capsys.readouterr().err
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_python_m_says_no_more_than_its_error():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "minires.data.download", "cifar"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "choose one of" in done.stderr


def test_the_data_sets_are_described():
    files = [file for _, files in DATASETS.values() for file in files]
    assert len(files) == 11
    for file in files:
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.digest)
        assert len(file.mirrors) >= 2
        assert all(re.fullmatch(r"https?://.*/", mirror) for mirror in file.mirrors)
