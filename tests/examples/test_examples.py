"""The examples as a user runs them, and what they refuse."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from minires import checkpoint, device
from minires.models import ResNet
from tests.data import cifar_files
from tests.examples.running import (
    EXAMPLES,
    SETTINGS,
    contents,
    killed_in_epoch_2,
    log,
    only_run,
    refused,
    run,
    train,
    trained_alike,
)

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib")

FILES = {"config.toml", "last.safetensors", "log.jsonl", "curves.png"}
NAME = "unrecognised CIFAR-10 files (20 images), tested on unrecognised CIFAR-10 files (10 images)"


def test_digits(tmp_path):
    process = run("train_digits.py", "--epochs", 1, "--output-dir", "run", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert lines[0].startswith("minires ")
    assert lines[0].endswith(" | seed 0 | precision fast")
    assert lines[1].startswith("Epoch: [1/1]  lr ")
    files = "last.safetensors, log.jsonl, curves.png and predictions.png"
    assert re.fullmatch(rf"Wrote {files} to run \(peak memory 0\.\d\d GB\)", lines[-1])
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "last.safetensors",
        "log.jsonl",
        "curves.png",
        "predictions.png",
    }
    (record,) = log(tmp_path / "run")
    assert record["epoch"] == 1


def test_one_epoch(first_epoch):
    folder = only_run(first_epoch)
    assert folder.name.startswith("resnet18-cifar10-")
    assert {p.name for p in folder.iterdir()} == FILES
    (record,) = log(folder)
    assert (record["epoch"], record["lr"]) == (1, 0.1)
    assert record["data"] == NAME
    saved = checkpoint.load(folder / "last.safetensors")
    assert saved.info["data"]["name"] == record["data"]
    assert saved.info["normalize"] == [[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.201], None]
    assert saved.info["history"] == [record]
    assert len(saved.model) == 122


def test_resumed_run_is_the_straight_run(begun, pictures, straight):
    output = train(begun, "--data-path", pictures, "--epochs", 2, "--resume", "auto", "-j", 3)
    assert "Resumed after epoch 1\n" in output
    assert [record["epoch"] for record in log(only_run(begun))] == [1, 2]
    assert trained_alike(only_run(begun), straight)
    saved = contents(begun)
    train(begun, "--data-path", pictures, "--epochs", 2, "--resume", "auto")  # nothing is left to do
    assert contents(begun) == saved


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_run_killed_in_an_epoch_goes_on(begun, pictures, straight):
    killed_in_epoch_2(begun, "--data-path", pictures, "--epochs", 2, "--resume", "auto")
    assert len(log(only_run(begun))) == 1
    train(begun, "--data-path", pictures, "--epochs", 2, "--resume", only_run(begun) / "last.safetensors")
    assert len(log(only_run(begun))) == 2
    assert trained_alike(only_run(begun), straight)


WRONG = {
    "no data": (["--data-path", "nowhere"], "nowhere: put cifar-10-python.tar.gz"),
    "folder in use": (["--output-dir", "used"], "used holds a run already"),
    "unknown model": (["--arch", "resnet19"], "unknown model 'resnet19' (nearest: 'resnet1"),
    "unknown device": (["--device", "tpu"], "unknown device 'tpu'"),
    "no GPU": (["--device", "cuda"], "device 'cuda' cannot be used: "),
    "no checkpoint": (["--resume", "absent"], "no checkpoint at absent"),
    "another recipe": (["--resume", "auto", "--lr", "0.2", "--seed", "1"], "--lr was 0.1, is 0.2; --seed was 0, is 1"),
    "another model": (["--resume", "other.safetensors"], "holds the model 'resnet34', this run trains 'resnet18'"),
    "no recipe": (["--resume", "bare.safetensors"], "holds the model 'of another script'"),
    "truncated": (["--resume", "short.safetensors"], "short.safetensors is damaged"),
    "changed": (["--resume", "flipped.safetensors"], "flipped.safetensors is damaged: "),
    "bad workers": (["-j", "-1"], "argument -j/--workers: -1 is less than 0"),
    "no images": (["--limit-train", "0"], "argument --limit-train: 0 is less than 1"),
    "no lines": (["--print-freq", "many"], "invalid positive value: 'many'"),
    "fall before the start": (["--milestones", "5", "0"], "argument --milestones: 0 is less than 1"),
    "endless dry run": (["--dry-run", "nan"], "argument --dry-run: nan is no finite number above 0"),
    "unknown flag": (["--sped", "3"], "unrecognized arguments: --sped 3 (see --help)"),
    "two folders": (["--resume", "bare.safetensors", "--output-dir", "new"], "leave --output-dir out"),
}


@pytest.fixture(scope="module")
def wrong_files(first_epoch, tmp_path_factory) -> Path:
    """The folder of the first epoch with checkpoints beside it that no run can go on from."""
    cwd = Path(shutil.copytree(first_epoch, tmp_path_factory.mktemp("wrong") / "cwd"))
    good = only_run(cwd) / "last.safetensors"
    content = bytearray(good.read_bytes())
    (cwd / "short.safetensors").write_bytes(content[: len(content) // 2])
    content[-1000] ^= 4
    (cwd / "flipped.safetensors").write_bytes(content)
    model = ResNet((1,), 10, widths=(4,), generator=np.random.default_rng(0))
    checkpoint.save(cwd / "other.safetensors", model, info={"recipe": {"arch": "resnet34"}})
    checkpoint.save(cwd / "bare.safetensors", model)
    (cwd / "used").mkdir()
    (cwd / "used" / "log.jsonl").write_text("{}\n")
    return cwd


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_training_refuses_in_one_line(wrong_files, pictures, arguments, message):
    if arguments == ["--device", "cuda"] and device.gpu_missing() is None:
        pytest.skip("this machine has a GPU")
    line = refused("train_cifar10.py", *SETTINGS, "--data-path", pictures, "--epochs", 2, *arguments, cwd=wrong_files)
    assert message in line


def test_resume_auto_without_runs(tmp_path, pictures):
    line = refused("train_cifar10.py", "--data-path", pictures, "--resume", "auto", cwd=tmp_path)
    assert "--resume auto found no runs/resnet18-cifar10-*/last.safetensors" in line


def test_digits_refuses_a_folder_in_use(wrong_files):
    assert "used holds a run already" in refused("train_digits.py", "--output-dir", "used", cwd=wrong_files)


def test_predictions(begun, pictures):
    saved = only_run(begun) / "last.safetensors"
    process = run("show_predictions.py", saved, "--data-path", pictures, "--count", 7, "--first", 3, cwd=begun)
    assert (process.returncode, process.stderr) == (0, "")
    right = int(process.stdout.split()[0])
    assert process.stdout == f"{right} of 7 right; wrote {saved.with_name('predictions.png')}\n"
    assert 0 <= right <= 7
    assert saved.with_name("predictions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.safetensors"], "no checkpoint at absent"),
        (["bare.safetensors"], "bare.safetensors was not written by train_cifar10.py"),
        (["flipped.safetensors"], "is damaged"),
    ],
    ids=["absent", "of another script", "changed"],
)
def test_predictions_refuse_in_one_line(wrong_files, pictures, arguments, message):
    assert message in refused("show_predictions.py", *arguments, "--data-path", pictures, cwd=wrong_files)


def test_predictions_on_other_pictures_warn_in_one_line(begun, tmp_path):
    cifar_files.write(tmp_path / "other", np.random.default_rng(1), train=20, test=10)
    saved = only_run(begun) / "last.safetensors"
    process = run("show_predictions.py", saved, "--data-path", tmp_path / "other", "--count", 7, cwd=begun)
    assert (process.returncode, process.stderr) == (0, "")
    warning, line = process.stdout.splitlines()
    assert warning.startswith(f"Warning: trained on {NAME}; these are other test pic")
    assert " of 7 right" in line


def test_resuming_on_other_pictures(begun, tmp_path):
    form, other = "CIFAR-10 binary", tmp_path / "other"
    other.mkdir()
    generator = np.random.default_rng(1)
    cifar_files.put(form, other, cifar_files.contents(form, *cifar_files.drawn(form, generator, 30), 20), packed=True)
    arguments = ["--data-path", other, "--epochs", 2, "--resume", "auto"]
    assert "was trained on other pixels than these, though both are unrecognised" in train(begun, *arguments)
    fewer = tmp_path / "fewer"
    cifar_files.write(fewer, generator, train=10, test=10)
    line = refused("train_cifar10.py", *SETTINGS, "--epochs", 3, "--data-path", fewer, "--resume", "auto", cwd=begun)
    assert f"was trained on {NAME}, these are unrecognised CIFAR-10 files (10 images)\n" in line


def test_cifar100_from_its_archive(tmp_path):
    form = "CIFAR-100 python"
    files = cifar_files.contents(form, *cifar_files.drawn(form, np.random.default_rng(0), 14), 10)
    path = cifar_files.put(form, tmp_path, files, packed=True)
    output = train(tmp_path, "--dataset", "cifar100", "--data-path", path, "--epochs", 1)
    assert "| data unrecognised CIFAR-100 files (10 images), tested on" in output.splitlines()[0]
    folder = only_run(tmp_path)
    assert folder.name.startswith("resnet18-cifar100-")
    saved = checkpoint.load(folder / "last.safetensors")
    assert saved.model["fc.weight"].shape[0] == len(saved.info["classes"]) == 100
    process = run("show_predictions.py", folder / "last.safetensors", "--data-path", path, "--count", 4, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("where", [["--count", "32"], ["--first", "10", "--count", "1"]], ids=str)
def test_predictions_of_pictures_that_are_not_there(wrong_files, pictures, where):
    saved = only_run(wrong_files) / "last.safetensors"
    line = refused("show_predictions.py", saved, "--data-path", pictures, *where, cwd=wrong_files)
    assert "there are 10 test pictures" in line


@pytest.mark.parametrize(("flag", "value"), [("--count", 0), ("--first", -1)])
def test_predictions_of_a_number_that_cannot_be(tmp_path, flag, value):
    assert f"argument {flag}: {value} is less than" in refused("show_predictions.py", "x", flag, value, cwd=tmp_path)


@pytest.mark.parametrize(
    "script", ["train_digits.py", "train_cifar10.py", "show_predictions.py", "evaluate.py", "degradation.py"]
)
def test_help(script, tmp_path):
    process = run(script, "--help", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"usage: {script}")
    assert f"python examples/{script}" in process.stdout
    assert not re.search(r"^ +-.*\s{2,}default", process.stdout, re.MULTILINE)  # each says what it is first
    assert not contents(tmp_path)


@pytest.mark.skipif(
    not (EXAMPLES / "backprop_by_hand.py").is_file(), reason="examples/backprop_by_hand.py is not there"
)
def test_backprop_by_hand(tmp_path):
    process = run("backprop_by_hand.py", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout


def test_real_pictures(cifar10_root, tmp_path):
    limits = ["--limit-train", 64, "--limit-test", 20, "-b", 16, "--epochs", 1, "--output-dir", "run"]
    output = train(tmp_path, "--data-path", cifar10_root, *limits)
    assert "64 training and 20 test images" in output
    (record,) = log(tmp_path / "run")
    assert re.fullmatch(r"CIFAR-10[^,]*, 64 training and 20 test images", record["data"])
    assert 1 < record["train_loss"] < 10
