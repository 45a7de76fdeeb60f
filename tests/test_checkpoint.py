"""Checkpoints: every bit comes back, no write that fails costs the old file, and no changed byte goes unnoticed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from minires import checkpoint, data, nn, optim
from minires.errors import ArgumentError, CheckpointError
from minires.models import ResNet
from minires.nn import functional as F

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


def small_net(seed: int = 0) -> ResNet:
    return ResNet((1, 1), 10, widths=(4, 8), in_channels=1, generator=np.random.default_rng(seed))


class Run:
    """A training run of a small net on some digits, whose losses are kept."""

    def __init__(self, seed: int = 0, workers: int = 0) -> None:
        normalize = data.Normalize([0.3], [0.4], 16)
        digits = data.Digits(transform=data.Compose([data.RandomCrop(1), normalize])).take(96)
        self.loader = data.DataLoader(digits, 32, shuffle=True, num_workers=workers)
        self.model = small_net(seed)
        self.optimizer = optim.SGD(self.model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        self.scheduler = optim.lr_scheduler.MultiStepLR(self.optimizer, [1, 3], 0.5)
        self.losses: list[float] = []

    def train(self, epochs: range) -> Run:
        for epoch in epochs:
            self.loader.set_epoch(epoch)
            for images, labels in self.loader:
                loss = F.cross_entropy(self.model(images), labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.losses.append(loss.item())
            self.scheduler.step()
        return self

    def save(self, path: Path) -> None:
        checkpoint.save(path, self.model, self.optimizer, self.scheduler, {"losses": self.losses})

    def resume(self, path: Path) -> Run:
        saved = checkpoint.load(path)
        self.model.load_state_dict(saved.model)
        self.optimizer.load_state_dict(saved.optimizer)
        self.scheduler.load_state_dict(saved.scheduler)
        self.losses = saved.info["losses"]
        return self


def contents(saved: checkpoint.Checkpoint) -> tuple:
    """All that a checkpoint holds, in a form that compares bit for bit."""

    def bits(arrays):
        return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}

    state = {i: bits(values) for i, values in saved.optimizer["state"].items()} if saved.optimizer else None
    groups = saved.optimizer["param_groups"] if saved.optimizer else None
    return bits(saved.model), state, groups, saved.scheduler, saved.info


@pytest.fixture(scope="module")
def trained() -> Run:
    return Run().train(range(2))


def test_round_trip_is_bit_exact(trained, tmp_path):
    info = {"epoch": 2, "name": "größer", "best": 91.25, "history": [{"loss": 1 / 3}], "none": None}
    path = tmp_path / "new" / "folder" / "last.safetensors"
    checkpoint.save(path, trained.model, trained.optimizer, trained.scheduler, info)
    saved = checkpoint.load(str(path))
    state = trained.model.state_dict()
    assert set(saved.model) == set(state)
    for name, value in state.items():
        assert saved.model[name].dtype == value.dtype
        assert saved.model[name].tobytes() == value.data.tobytes(), name
    momentum = trained.optimizer.state_dict()
    assert len(momentum["state"]) == len(list(trained.model.parameters()))
    for number, values in momentum["state"].items():
        assert set(saved.optimizer["state"][number]) == {n for n, v in values.items() if v is not None}
        for name, value in saved.optimizer["state"][number].items():
            assert value.tobytes() == np.ascontiguousarray(values[name]).tobytes()
    assert saved.optimizer["param_groups"] == momentum["param_groups"]
    assert saved.scheduler == trained.scheduler.state_dict()
    assert saved.info == info
    assert os.listdir(path.parent) == ["last.safetensors"]


def test_model_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, small_net())
    saved = checkpoint.load(path)
    assert (saved.optimizer, saved.scheduler, saved.info) == (None, None, {})
    other = small_net(seed=1)
    other.load_state_dict(saved.model)
    for name, value in small_net().state_dict().items():
        assert other.state_dict()[name].data.tobytes() == value.data.tobytes()


def test_the_safetensors_library_opens_it(trained, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "last.safetensors"
    trained.save(path)
    arrays = safetensors.load_file(path)
    for name, value in trained.model.state_dict().items():
        np.testing.assert_array_equal(arrays[f"model/{name}"], value.data)


ODD = {
    "transposed": lambda a: a.transpose(2, 0, 1),
    "by columns": np.asfortranarray,
    "stepped": lambda a: a[::2, :, ::3],
    "reversed": lambda a: a[::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "empty": lambda a: a[:0],
    "0-d": lambda a: a[0, 0, 0],
    "float64": lambda a: a.astype(np.float64),
    "int64": lambda a: a.astype(np.int64),
    "bool": lambda a: a > 0,
    "float16": lambda a: a.astype(np.float16),
    "nan": lambda a: a * np.float32("nan"),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_arrays(rng, tmp_path, change):
    array = change(rng.standard_normal((4, 5, 6), np.float32))
    path = tmp_path / "odd.safetensors"
    checkpoint.save_tensors(path, {"a": array, "b": np.ones(3)}, {"n": 1})
    tensors, state = checkpoint.load_tensors(path)
    assert state == {"n": 1}
    assert (tensors["a"].dtype, tensors["a"].shape) == (array.dtype, array.shape)
    assert tensors["a"].tobytes() == array.tobytes()


def test_arrays_of_the_other_byte_order(tmp_path):
    values = np.arange(6, dtype=np.dtype(np.float32).newbyteorder("S")).reshape(2, 3)
    checkpoint.save_tensors(tmp_path / "x", {"a": values}, {})
    array = checkpoint.load_tensors(tmp_path / "x")[0]["a"]
    assert (array.tolist(), array.dtype.isnative) == (values.tolist(), True)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_is_the_straight_run(tmp_path, workers):
    straight = Run(workers=workers).train(range(4))
    straight.save(tmp_path / "straight")
    path = tmp_path / "half"
    Run(workers=2 - workers).train(range(2)).save(path)
    resumed = Run(seed=9, workers=workers).resume(path).train(range(2, 4))
    assert len(straight.losses) == 12
    assert resumed.losses == straight.losses
    resumed.save(tmp_path / "resumed")
    assert contents(checkpoint.load(tmp_path / "resumed")) == contents(checkpoint.load(tmp_path / "straight"))


def test_load_refuses_what_is_no_checkpoint(tmp_path, rng):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent"):
        checkpoint.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path)
    path = tmp_path / "file"
    for content in (b"", b"{}", b"hello, world", rng.bytes(5000), b"\xff" * 8 + b"{}", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"file is damaged or no safetensors file"):
            checkpoint.load(path)
    checkpoint.save_tensors(path, {"a": np.ones(3)}, {"other": 1})
    with pytest.raises(CheckpointError, match="no checkpoint of minires"):
        checkpoint.load(path)


DEEP = "[" * 100_000 + "]" * 100_000
FORGED = {
    "no object": "[]",
    "no JSON": "{",
    "no arrays listed": '{"state": {}}',
    "arrays listed as a number": '{"tensors": 3, "state": {}}',
    "state in a list": '{"tensors": ARRAYS, "state": [1]}',
    "deep": DEEP,
    "deep state": '{"tensors": {}, "state": DEEP}'.replace("DEEP", DEEP),
    "info in a list": '{"tensors": ARRAYS, "state": {"info": [], "layout": "HWIO"}}',
    "another optimizer's array": '{"tensors": ARRAYS, "state": {"info": {}, "layout": "HWIO", "param_groups": []}}',
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_forged_headers(tmp_path, text):
    """Whoever forges a header can write its checksum, too."""
    safetensors = pytest.importorskip("safetensors.numpy")
    path, array, name = tmp_path / "forged", np.ones(3), "optimizer/a/b/c"
    text = text.replace("ARRAYS", json.dumps({name: ["float64", [3], zlib.crc32(array.tobytes())]}))
    safetensors.save_file({name: array}, path, {"minires": text, "crc32": str(zlib.crc32(text.encode()))})
    with pytest.raises(CheckpointError, match="forged is "):
        checkpoint.load(path)


def test_safetensors_of_others(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "theirs.safetensors"
    safetensors.save_file({"a": np.arange(3.0)}, path)
    tensors, state = checkpoint.load_tensors(path)
    assert tensors["a"].tolist() == [0, 1, 2]
    assert state == {}
    with pytest.raises(CheckpointError, match="no checkpoint of minires"):
        checkpoint.load(path)


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A checkpoint of some 3 kB with a bit of everything."""
    model = nn.Sequential(nn.Linear(3, 4, generator=np.random.default_rng(0)), nn.BatchNorm2d(2))
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model[0](np.ones((2, 3), np.float32)).sum().backward()
    optimizer.step()
    scheduler = optim.lr_scheduler.MultiStepLR(optimizer, [1])
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, model, optimizer, scheduler, {"epoch": 3})
    assert checkpoint.load(path).optimizer["state"]
    return path


def test_every_truncation_is_noticed(tiny):
    content = tiny.read_bytes()
    for length in range(len(content)):
        tiny.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="tiny"):
            checkpoint.load(tiny)
    tiny.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="tiny"):
        checkpoint.load(tiny)


def test_every_flipped_bit_is_noticed(tiny, rng):
    content = tiny.read_bytes()
    whole = contents(checkpoint.load(tiny))
    missed = []
    for flip in rng.choice(8 * len(content), 2000, replace=False).tolist():
        damaged = bytearray(content)
        damaged[flip // 8] ^= 1 << flip % 8
        tiny.write_bytes(damaged)
        try:
            same = contents(checkpoint.load(tiny)) == whole
        except CheckpointError as error:
            same = "tiny" in str(error)
        if not same:
            missed.append(flip)
    assert not missed


def test_a_changed_array_is_named(tiny):
    content = bytearray(tiny.read_bytes())
    content[-1] ^= 1
    tiny.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tiny.safetensors is damaged: '.*/.*' has changed"):
        checkpoint.load(tiny)


@pytest.mark.parametrize("failing", ["os.replace", "os.fsync", "pathlib.Path.open"])
@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()], ids=["OSError", "KeyboardInterrupt"])
def test_a_failing_save_leaves_the_old_file(trained, tmp_path, monkeypatch, failing, error):
    path = tmp_path / "last.safetensors"
    trained.save(path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(type(error)):
            checkpoint.save(path, trained.model)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.safetensors"]
    checkpoint.save(path, trained.model)
    assert checkpoint.load(path).optimizer is None


def script(*lines: str) -> list[str]:
    """A command that runs lines of Python in which `path` is its first argument."""
    start = "import sys, numpy as np; from minires import checkpoint; path = sys.argv[1]"
    return [sys.executable, "-c", "\n".join((start, *lines))]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.getcwd(), "OPENBLAS_NUM_THREADS": "1"}


@posix
def test_full_disk(tmp_path):
    """A limit on the size of files fails a write in its middle, as a full disk does."""
    path = tmp_path / "last.safetensors"
    checkpoint.save_tensors(path, {"a": np.ones(1000)}, {})
    before = path.read_bytes()
    command = script(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))",
        "try: checkpoint.save_tensors(path, {'a': np.ones(1 << 20)}, {})",
        "except OSError as error: print(type(error).__name__)",
    )
    run = subprocess.run([*command, str(path)], capture_output=True, text=True, env=environment(), timeout=60)
    assert (run.stdout, run.stderr) == ("OSError\n", "")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.safetensors"]


@posix
def test_orphans_of_the_dead_are_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "last.safetensors"
    kept = [f".last.safetensors.{os.getppid()}.tmp", f".other.safetensors.{gone.pid}.tmp", ".last.safetensors.x.tmp"]
    for name in [f".last.safetensors.{gone.pid}.tmp", f".last.safetensors.{gone.pid}.7.0.tmp", *kept]:
        (tmp_path / name).write_bytes(b"half")
    checkpoint.save_tensors(path, {}, {})
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, *kept])


@posix
def test_killed_while_saving(tmp_path):
    """Whenever the writer is killed, the file is the last that it finished or one after."""
    path = tmp_path / "last.safetensors"
    command = script(
        "n = int(sys.argv[2])",
        "while True:",
        "    n += 1",
        "    checkpoint.save_tensors(path, {'a': np.full(1 << 19, n, np.float32)}, {'n': n})",
        "    print(n, flush=True)",
    )
    draw, newest = random.Random(0), 0
    for _ in range(20):
        process = subprocess.Popen([*command, str(path), str(newest)], stdout=subprocess.PIPE, env=environment())
        assert process.stdout is not None
        first = int(process.stdout.readline())
        assert first == newest + 1
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        told = process.communicate(timeout=30)[0].split()
        tensors, state = checkpoint.load_tensors(path)
        newest = state["n"]
        assert newest >= int(told[-1] if told else first)
        assert (tensors["a"] == newest).all()
        assert len(os.listdir(tmp_path)) <= 2
    checkpoint.save_tensors(path, {}, {})
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_slips_that_are_named(tmp_path):
    model = ResNet((1,), 10, widths=(4,), generator=np.random.default_rng(0))
    with pytest.raises(ArgumentError, match="takes a path, then the model itself, not a dict"):
        checkpoint.save(tmp_path / "a", model.state_dict())
    with pytest.raises(CheckpointError, match="it is a folder"):
        checkpoint.load(tmp_path)
    with pytest.raises(ArgumentError, match=r"a is not written: JSON cannot hold .* float32 is not JSON"):
        checkpoint.save(tmp_path / "a", model, info={"loss": np.float32(1)})
    assert not os.listdir(tmp_path)
