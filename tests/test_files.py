"""A file gets its name when its bytes are on the disk, and the name itself follows them there."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from minires.files import publish, write_whole


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")
def test_bytes_then_name_then_folder_reach_the_disk(tmp_path, monkeypatch):
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        state = os.fstat(number)
        events.append("folder" if stat.S_ISDIR(state.st_mode) else f"{state.st_size} bytes")
        fsync(number)

    def noted_replace(source: str, target: str) -> None:
        events.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    (tmp_path / "new").write_bytes(b"old")
    with (tmp_path / "new.tmp").open("wb") as file:
        file.write(b"12345")  # still in Python's buffer
        publish(file, tmp_path / "new")
    assert events == ["5 bytes", "name", "folder"]
    assert (tmp_path / "new").read_bytes() == b"12345"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_threads_may_write_one_file(tmp_path):
    """Whichever comes last has written it, and none is disturbed."""
    path = tmp_path / "x"
    contents = [bytes([i]) * 200_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for written in [pool.submit(write_whole, path, content) for content in contents * 5]:
            written.result()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["run[1].pth", "a**b.pth"])
def test_names_that_look_like_patterns(tmp_path, name):
    write_whole(tmp_path / name, b"new")
    assert (tmp_path / name).read_bytes() == b"new"
