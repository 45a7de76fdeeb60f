"""The helpers around a training loop: averages, evaluation, progress, logs, run folders, exit codes."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from minires import Tensor, is_grad_enabled, nn, training
from minires.errors import ArgumentError, DataError
from minires.nn import functional as F


def test_average_weighs_by_count():
    average = training.Average()
    assert math.isnan(average.mean)
    average.add(2.0, 3)
    average.add(7.0, 1)
    assert average.mean == (2 * 3 + 7) / 4
    assert (average.last, average.count) == (7.0, 4)


def test_accuracy_is_in_percent():
    logits = Tensor(np.array([[1, 3, 2], [5, 0, 1], [0, 1, 9], [4, 8, 0]], np.float32))
    assert training.accuracy(logits, Tensor(np.array([1, 0, 0, 1]))).item() == 75.0
    assert training.accuracy(logits, Tensor(np.array([0, 1, 0, 2]))).item() == 0.0


def test_accuracy_among_the_k_largest():
    logits = Tensor(np.array([[1, 3, 2, 0], [5, 0, 1, 2], [0, 1, 9, 8], [4, 8, 0, 5]], np.float32))
    labels = Tensor(np.array([2, 3, 2, 0]))
    assert [training.accuracy(logits, labels, k).item() for k in (1, 2, 3, 4)] == [25.0, 75.0, 100.0, 100.0]


def test_a_net_that_knows_nothing_guesses():
    logits, labels = Tensor(np.full((40, 20), 0.5, np.float32)), Tensor(np.arange(40) % 20)
    assert [training.accuracy(logits, labels, k).item() for k in (1, 2, 5)] == [5.0, 10.0, 25.0]


def test_of_equal_logits_the_lowest_numbers_come_first():
    logits = Tensor(np.tile([1, 2] * 50, (100, 1)).astype(np.float32))  # so many that not every sort keeps their order
    right = [training.accuracy(logits, Tensor(np.full(100, label)), 3).item() for label in (1, 3, 5, 7, 0)]
    assert right == [100.0, 100.0, 100.0, 0.0, 0.0]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_logits_with_nan_are_wrong(k):
    logits = Tensor(np.array([[9, math.nan, 1], [math.nan] * 3, [3, 2, 1], [math.nan, 1, 2]], np.float32))
    for label, right in ((0, 25.0), (1, 25.0 * (k > 1)), (2, 25.0 * (k > 2))):
        assert training.accuracy(logits, Tensor(np.full(4, label)), k).item() == right


class Net(nn.Module):
    """A linear layer that notes in which mode it was called."""

    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3, generator=generator)
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, is_grad_enabled()))
        return self.fc(x)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluating"])
def test_evaluate(rng, mode):
    model = Net(rng)
    model.train(mode)
    x, y = rng.standard_normal((10, 4), np.float32), rng.integers(0, 3, 10)
    batches = [(Tensor(x[i:j]), Tensor(y[i:j])) for i, j in ((0, 4), (4, 9), (9, 10))]
    loss, accuracy = training.evaluate(model, batches)
    logits = model.fc(Tensor(x))
    assert loss == pytest.approx(F.cross_entropy(logits, Tensor(y)).item(), abs=1e-6)
    assert accuracy == pytest.approx(100 * (logits.data.argmax(1) == y).mean(), abs=1e-9)
    assert model.seen == [(False, False)] * 3
    assert model.training is mode
    assert is_grad_enabled()
    assert model.fc.weight.grad is None


def test_evaluate_counts_labels_among_the_first(rng):
    model = Net(rng)
    x, y = rng.standard_normal((40, 4), np.float32), rng.integers(0, 3, 40)
    batches = [(Tensor(x[i:j]), Tensor(y[i:j])) for i, j in ((0, 15), (15, 40))]
    order = np.argsort(-model.fc(Tensor(x)).data, axis=1)
    _, first, second = training.evaluate(model, batches, top=(1, 2))
    assert first == pytest.approx(100 * (order[:, 0] == y).mean(), abs=1e-9)
    assert second == pytest.approx(100 * (order[:, :2] == y[:, None]).any(1).mean(), abs=1e-9)
    assert second > first


def test_evaluate_restores_the_mode_after_an_error(rng):
    model = Net(rng)
    model.fc.eval()  # frozen
    with pytest.raises(ValueError, match="3"):
        training.evaluate(model, [(Tensor(np.zeros((2, 3), np.float32)), Tensor(np.zeros(2, np.int64)))])
    assert (model.training, model.fc.training) == (True, False)


@pytest.mark.parametrize("batches", [[], [(Tensor(np.zeros((0, 4), np.float32)), Tensor(np.zeros(0, np.int64)))]])
def test_evaluate_refuses_an_empty_set(rng, batches):
    with pytest.raises(DataError, match="no example"):
        training.evaluate(Net(rng), batches)


def test_log_is_complete_after_every_line(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    log = training.RunLog(path)
    assert path.read_text() == ""
    for epoch in (1, 2, 3):
        log.write(epoch=epoch, loss=1 / epoch)
        lines = path.read_text().splitlines(keepends=True)
        assert [json.loads(line) for line in lines] == log.records
        assert len(lines) == epoch
        assert lines[-1].endswith("\n")


def test_log_goes_on_from_records(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3, "lo')  # the run died after a checkpoint at epoch 1
    log = training.RunLog(path, [{"epoch": 1}])
    assert path.read_text() == '{"epoch": 1}\n'
    log.write(epoch=2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"epoch": 1}, {"epoch": 2}]
    assert log.records == [{"epoch": 1}, {"epoch": 2}]


def test_progress_in_a_log(capsys):
    with training.Progress("Epoch: [1]", total=7, every=3) as progress:
        for i in range(7):
            progress.step(lambda i=i: f"loss {i}")
    lines = capsys.readouterr().out.splitlines()
    expected = [f"Epoch: [1][{n}/7]  loss {n - 1}  eta 0:00:00" for n in (3, 6, 7)]
    assert lines == expected


def test_progress_without_a_title_shows_nothing(capsys):
    with training.Progress(None, total=2, every=1) as progress:
        for _ in range(5):
            progress.step(lambda: pytest.fail("nothing is shown"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["nan", "inf", "0", "-1", "ten", "1e999"])
def test_positive_number_refuses(text):
    with pytest.raises((ValueError, argparse.ArgumentTypeError)):
        training.positive_number(text)
    assert training.positive_number("1e-3") == 0.001


PROGRESS = """
import sys
from minires import training
if sys.argv[1] == "plain":
    sys.modules["rich"] = None
with training.Progress("Epoch: [1]", 6, every=2) as progress:
    for i in range(6):
        progress.step(lambda i=i: f"loss {i}.5")
    if sys.argv[1] == "error":
        raise RuntimeError("stopped")
print("after")
"""


def on_a_terminal(*command: str) -> tuple[int, str]:
    """The exit code of a command whose output is a terminal, and what it wrote there."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return process.wait(timeout=30), b"".join(parts).decode()


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals of POSIX")
@pytest.mark.parametrize("mode", ["bar", "plain", "error"])
def test_progress_on_a_terminal(mode):
    if mode != "plain":
        pytest.importorskip("rich", reason="the bar is rich's")
    code, output = on_a_terminal(sys.executable, "-c", PROGRESS, mode)
    assert "Epoch: [1]" in output
    assert code == (1 if mode == "error" else 0), output
    if mode == "plain":
        assert re.findall(r"\[(\d)/6\]  loss (\d\.5)  eta", output) == [("2", "1.5"), ("4", "3.5"), ("6", "5.5")]
        assert "\x1b" not in output
    else:
        assert "6/6" in output
        assert "loss 5.5" in output
        assert "━" in output
        assert output.count("\x1b[?25h") == 1  # the cursor is shown again
    assert ("after" in output) == (mode != "error")


def test_given_folder_is_not_overwritten(tmp_path):
    given = tmp_path / "some" / "run"
    assert training.new_run_folder("digits", str(given)) == given
    assert training.new_run_folder("digits", str(given)) == given  # nothing is lost
    for name in ("log.jsonl", "last.safetensors"):
        (given / name).write_text("")
        with pytest.raises(ArgumentError, match=r"some/run holds a run already: .*--output-dir.*--resume"):
            training.new_run_folder("digits", str(given))
        (given / name).unlink()


def test_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
    clock = types.SimpleNamespace(datetime=types.SimpleNamespace(now=lambda: moment))
    monkeypatch.setattr(training, "datetime", clock)
    folders = [training.new_run_folder("digits") for _ in range(3)]
    assert folders[0].as_posix() == "runs/digits-20260102-030405"
    assert len(set(folders)) == 3
    assert all(folder.is_dir() and folder.name.startswith(folders[0].name) for folder in folders)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (DataError("no data in x"), 2, "script.py: error: no data in x\n"),
        (FileNotFoundError(2, "No such file", "y"), 2, "script.py: error: [Errno 2] No such file: 'y'\n"),
        (DataError("several\nlines"), 2, "script.py: error: several\nlines\n"),
        (DataError("from a server: \x1b[2J\r고양이"), 2, "script.py: error: from a server: ?[2J?고양이\n"),
        (KeyboardInterrupt(), 130, "script.py: interrupted\n"),
    ],
    ids=["none", "ours", "OSError", "lines", "escapes", "Ctrl-C"],
)
def test_exit_code(monkeypatch, capsys, error, code, message):
    def main() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["some/script.py"])
    assert training.exit_code(main) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_exit_code_lets_bugs_through():
    with pytest.raises(ZeroDivisionError):
        training.exit_code(lambda: print(1 // 0))


class Clock:
    """Stands for the module time: a step takes as many seconds as `advance` says."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_stopwatch_measures_steps_over_and_over(monkeypatch):
    monkeypatch.setattr(training, "time", clock := Clock())
    watch = training.Stopwatch([("a",), ("b",)], 0.0)
    seen = []
    for number, batch in enumerate(watch):
        seen.append(batch)
        clock.now += [100.0, 3.0, 1.0, 2.0][number]  # the first does not count
    assert seen == [("a",), ("b",), ("a",), ("b",)]
    assert (len(watch), watch.times, watch.median) == (2, [100.0, 3.0, 1.0, 2.0], 2.0)


def test_stopwatch_goes_on_for_its_time(monkeypatch):
    monkeypatch.setattr(training, "time", clock := Clock())
    watch = training.Stopwatch([("a",)], 10.0)
    for _ in watch:
        clock.now += 1.5
    assert watch.times == [1.5] * 7


def test_duration():
    assert [training.duration(s) for s in (0.4, 3723, 2 * 86400 + 60)] == ["0:00:00", "1:02:03", "2 days, 0:01:00"]
