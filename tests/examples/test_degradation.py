"""The degradation experiment on a few pictures: what is equal for all nets, what it writes, and how it goes on."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minires import Tensor, checkpoint, data, recipes, training
from minires.errors import ArgumentError
from tests.data import cifar_files
from tests.examples.running import EXAMPLES, command, environment, only_run, refused, run

pytest.importorskip("matplotlib", reason="the examples draw with matplotlib")

SCRIPT = "degradation.py"
# 20 pictures in batches of 6, the last of 2: an epoch has four steps, and the third point is amid the second epoch.
SETTINGS = ["--nets", "plain20", "resnet20", "--steps", 8, "--points", 4, "-b", 6, "--lr", 0.01]
PICTURES = {"curves.png", "responses.png", "gradients.png"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("degradation", EXAMPLES / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run without a stop, and what it printed."""
    cwd = tmp_path_factory.mktemp("straight")
    process = run(SCRIPT, *SETTINGS, "--data-path", pictures, "--output-dir", "run", cwd=cwd)
    assert (process.returncode, process.stderr) == (0, "")
    return cwd / "run", process.stdout


def test_a_run(straight):
    folder, printed = straight
    nets = ["plain20", "resnet20"]
    files = {"config.json", "layers.json", "log.jsonl", *(f"{net}.safetensors" for net in nets)} | PICTURES
    assert {p.name for p in folder.iterdir()} == files
    records = log_of(folder)
    assert [(r["net"], r["step"]) for r in records] == [(net, step) for net in nets for step in (2, 4, 6, 8)]
    assert [r["lr"] for r in records] == pytest.approx(2 * [0.01, 0.01, 0.001, 0.0001])  # a half, three quarters
    assert all(0 <= r[f"{split}_error"] <= 100 and r[f"{split}_loss"] > 0 for r in records for split in SPLITS)
    assert "8 steps of 6 for each net, 2 epochs; 20 training and 10 test images; run in run\n" in printed
    rows = [line.split() for line in printed.splitlines() if line.split()[0] in nets and "after" not in line]
    rows = [row for row in rows if "steps" not in row]
    assert [(row[0], row[1], row[2], row[3], row[5]) for row in rows] == [
        (r["net"], "269,722", f"{r['train_loss']:.4f}", f"{r['train_error']:.2f}", f"{r['test_error']:.2f}")
        for r in records
        if r["step"] == 8
    ]


SPLITS = ("train", "test")


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_checkpoints_are_as_evaluate_wants_them(straight, pictures):
    _, test_loader = loaders(pictures)
    for net, shortcut in (("plain20", None), ("resnet20", "A")):
        model, saved = recipes.restore(straight[0] / f"{net}.safetensors")
        assert model.layer1[0].plain == (shortcut is None)
        assert saved.info["recipe"] == {"arch": net, "shortcut": shortcut, "dataset": "cifar10"}
        assert {"data", "normalize", "classes"} <= saved.info.keys()
        (group,) = saved.optimizer["param_groups"]
        assert (group["momentum"], group["weight_decay"]) == (0.9, 1e-4)
        last = saved.info["history"][-1]
        expected = [pytest.approx(last["test_loss"], rel=1e-3), 100 - last["test_error"]]
        assert list(training.evaluate(model, test_loader)) == expected


def test_layers(straight):
    layers = json.loads((straight[0] / "layers.json").read_text())
    assert list(layers) == ["plain20", "resnet20"]
    for cases in layers.values():
        assert list(cases) == ["no batch norm", "before", "after"]
        for case in cases.values():
            assert len(case["layers"]) == len(case["responses"]) == len(case["gradients"]) == 19
            assert min(case["gradients"]) > 0
        np.testing.assert_allclose(cases["before"]["responses"], 1, rtol=1e-3)  # batch norm's weights are 1
        assert cases["after"]["responses"] != cases["before"]["responses"]
        assert cases["after"]["gradients"] != cases["before"]["gradients"]
    plain, residual = (layers[net]["no batch norm"]["responses"] for net in layers)
    assert residual[-1] > 4 * residual[0]  # each of nine blocks adds its variance to what passes it
    assert plain[-1] < 2 * plain[0]


def test_pictures_show_the_layers(script, tmp_path, monkeypatch):
    drawn: dict[str, dict] = {}
    monkeypatch.setattr(script.plots, "by_layer", lambda cases, path, *texts: drawn.update({path.name: cases}))
    cases = {name: {"responses": [i, 9, 1], "gradients": [i, 5]} for i, name in enumerate(("no batch norm", "before"))}
    script.draw(
        [], {"plain20": cases | {"after": {"responses": [2, 9, None, 1], "gradients": [2, 5]}}}, tmp_path, "a run"
    )
    without, before, after = (
        "no batch norm, before training",
        "batch norm, before training",
        "batch norm, after training",
    )
    by_size = f"{after}, by size"  # without what was no finite number
    expected = {"responses.png": {without: [0, 9, 1], after: [2, 9, None, 1], by_size: [9, 2, 1]}}
    expected["gradients.png"] = {without: [0, 5], before: [1, 5], after: [2, 5]}
    assert drawn == {name: {case: {"plain20": of} for case, of in shown.items()} for name, shown in expected.items()}


def comparable(folder: Path) -> tuple:
    """All of a run that does not depend on the clock: weights, momentum, records and layers."""
    tensors = {
        path.name: {name: array.tobytes() for name, array in checkpoint.load_tensors(path)[0].items()}
        for path in folder.glob("*.safetensors")
    }
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in log_of(folder)]
    return tensors, records, json.loads((folder / "layers.json").read_text())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX's")
def test_a_killed_run_goes_on_bit_for_bit(straight, pictures, tmp_path):
    arguments = [*SETTINGS, "--data-path", pictures]
    process = subprocess.Popen(
        command(SCRIPT, *arguments), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reached = any(line.startswith("resnet20 after 6 steps") for line in process.stdout)
    process.kill()
    process.communicate(timeout=30)
    assert reached
    assert process.returncode == -signal.SIGKILL
    folder = only_run(tmp_path)
    assert folder.name.startswith("degradation-")
    assert len(log_of(folder)) == 7
    process = run(SCRIPT, "--resume", "auto", "--data-path", pictures, "-j", 2, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert "resnet20: steps 7 to 8 [2/2]" in process.stdout
    assert "steps 5 to 6" not in process.stdout
    assert comparable(folder) == comparable(straight[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "run", "--lr", "0.2", "--seed", "1"], "was begun with other values of --lr, --seed: leave them"),
        (["--resume", "run", "--precision", "exact"], "was begun with other values of --precision: leave"),
        (["--resume", "run", "--full"], "was begun with other values of --full"),
        (["--resume", "run", "--output-dir", "new"], "leave --output-dir out"),
        (["--resume", "run", "--data-path", "other"], "run was begun on other pictures, of unrecognised CIFAR-10"),
        (["--resume", "absent"], "no run to go on with: absent/config.json is not there"),
        (["--resume", "damaged"], "damaged/config.json is damaged: "),
        (["--resume", "another"], "another/config.json was not written by this script: it has no "),
        (["--resume", "auto"], "--resume auto found no runs/degradation-*/config.json"),
        (["--minutes", "1", "--steps", "5"], "argument --steps: not allowed with argument --minutes"),
        (["--minutes", "nan"], "argument --minutes: nan is no finite number above 0"),
        (["--nets", "keras_resnet34"], "argument --nets: invalid choice: 'keras_resnet34'"),
        (["--output-dir", "run", "--nets", "plain20", "--steps", "1"], "run holds a run already"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_refused_in_one_line(straight, pictures, tmp_path, arguments, message):
    shutil.copytree(straight[0], tmp_path / "run")
    cifar_files.write(tmp_path / "other", np.random.default_rng(1), train=20, test=10)
    for name, content in (("damaged", "{"), ("another", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    assert message in refused(SCRIPT, "--data-path", pictures, *arguments, cwd=tmp_path)


def test_the_full_recipe_is_the_papers(script, monkeypatch):
    monkeypatch.setattr("sys.argv", [SCRIPT, "--full"])
    args, config = script.parse_args()
    assert config is None
    assert (args.steps, args.batch_size, args.lr, args.momentum, args.weight_decay) == (64000, 128, 0.1, 0.9, 1e-4)
    assert args.limit_test == 10000
    assert args.minutes is None
    assert args.nets == ["plain20", "plain56", "resnet20", "resnet56"]
    _, scheduler = script.training_tools(script.build("resnet20", args, "cpu"), args, args.steps)
    assert scheduler.milestones == [32000, 48000]


ARGS = argparse.Namespace(
    nets=["plain20", "resnet20"], seed=3, lr=0.01, momentum=0.9, weight_decay=1e-4, points=2, steps=6, minutes=1.0,
    print_freq=100,
)  # fmt: skip


@pytest.mark.parametrize("depth", [20, 18])
def test_a_plain_and_a_residual_net_begin_alike(script, depth):
    states = [script.build(f"{kind}{depth}", ARGS, "cpu").state_dict() for kind in ("plain", "resnet")]
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        np.testing.assert_array_equal(value.data, states[1][name].data)


def loaders(root: Path) -> list[data.DataLoader]:
    augment = data.Compose([data.RandomCrop(32, 4, seed=3), data.Normalize(*data.NORMALIZATION["cifar10"])])
    sets = [data.CIFAR10(root, train, augment if train else augment.transforms[1]) for train in (True, False)]
    return [data.DataLoader(sets[0], 6, shuffle=True, num_workers=1, seed=3), data.DataLoader(sets[1], 10)]


def test_batches_after_any_step_are_those_of_a_run_from_the_start(script, pictures):
    train_loader, _ = loaders(pictures)

    def first(count: int, done: int) -> list[np.ndarray]:
        source = script.batches(train_loader, done)
        with_labels = list(itertools.islice(source, count))
        source.close()
        return [np.append(images.data, labels.data) for images, labels in with_labels]

    whole = first(10, 0)
    assert len({batch.tobytes() for batch in whole}) == 10  # no epoch is like another
    for done in range(10):
        for got, want in zip(first(10 - done, done), whole[done:], strict=True):
            np.testing.assert_array_equal(got, want)


def test_all_nets_get_the_same_batches_and_rates(script, pictures, tmp_path, monkeypatch):
    seen: dict[str, list] = {net: [] for net in ARGS.nets}
    for net, kept in seen.items():

        def note(model, optimizer, images, labels, kept=kept) -> tuple[Tensor, Tensor]:
            kept.append((images.data.tobytes(), labels.data.tobytes(), optimizer.param_groups[0]["lr"]))
            return Tensor(np.float64(1.5)), Tensor(np.float64(30.0))

        monkeypatch.setattr(script, "train_step", note)
        run_log = training.RunLog(tmp_path / f"{net}.jsonl")
        script.train(net, None, *loaders(pictures), run_log, tmp_path / net, {}, ARGS, "cpu")
        assert {(record["train_loss"], record["train_error"]) for record in run_log.records} == {(1.5, 70.0)}
    assert seen["plain20"] == seen["resnet20"]
    assert len(set(seen["plain20"])) == 6
    assert [rate for *_, rate in seen["plain20"]] == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.0001, 0.0001])


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [(8, 4, [2, 4, 6, 8]), (10, 4, [2, 5, 8, 10]), (3, 8, [1, 2, 3]), (1, 8, [1]), (7, 1, [7])],
)
def test_points(script, steps, count, expected):
    assert script.points(steps, count) == expected


@pytest.mark.parametrize("points", [1, 5, 10])
def test_the_steps_fill_the_time(script, points):
    steps = script.steps_within(600, a_step=2.0, a_test=3.0, points=points)
    needed = (steps + 2) * 2.0 + points * 3.0
    assert needed <= 0.95 * 600 < needed + 2.0


class Watch:
    """In place of training.Stopwatch: one batch, and half a second for each."""

    median = 0.5

    def __init__(self, loader: data.DataLoader, seconds: float, place: str) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return itertools.islice(self.loader, 1)


def test_the_budget_counts_all_nets_and_what_is_spent(script, pictures, monkeypatch):
    monkeypatch.setattr(script.training, "Stopwatch", Watch)
    a_step, a_test = 2 * 0.5, 2 * 0.5  # two nets; a test is one batch of 10
    spent = 20.0
    got = script.affordable(time.perf_counter() - spent, ARGS, *loaders(pictures), "cpu")
    most = script.steps_within(60 - spent, a_step, a_test, 2)
    assert most - 6 < got <= most  # the timing itself took a moment
    with pytest.raises(ArgumentError, match=r"--minutes 1 is not enough here: it takes \d"):
        script.affordable(time.perf_counter() - 59, ARGS, *loaders(pictures), "cpu")


@pytest.fixture
def main(script, pictures, tmp_path, monkeypatch):
    """Run its main in an empty folder, with batches of 6 and without training: what it measured, and trained on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script.training, "Stopwatch", Watch)
    probes, seen = [], []

    def measured(model: Any, probe: Any, place: str) -> dict:
        probes.append(probe)
        return {"layers": ["conv1"], "responses": [1.0], "gradients": [1.0]}

    def train(net: str, saved: Any, train_loader: Any, test_loader: Any, *_: Any) -> None:
        seen.append((train_loader, test_loader))

    for name, stand_in in (("measured", measured), ("train", train), ("draw", print), ("print_table", print)):
        monkeypatch.setattr(script, name, stand_in)

    def main(*arguments: object) -> tuple[list, list]:
        given = ["--nets", "resnet20", "-b", 6, "--data-path", pictures, "--output-dir", "run", *arguments]
        monkeypatch.setattr("sys.argv", [SCRIPT, *map(str, given)])
        script.main()
        return probes, seen

    return main


def test_training_has_crops_and_flips_but_the_layers_do_not(main, pictures):
    probes, ((train_loader, _),) = main("--steps", 1)
    normalize = data.Normalize(*data.NORMALIZATION["cifar10"])
    plain = data.CIFAR10(pictures, train=True, transform=normalize)
    images, labels = next(iter(data.DataLoader(plain, 20)))
    assert len(probes) == 3  # without batch norm, before and after
    for probe_images, probe_labels in probes:
        np.testing.assert_array_equal(probe_images.data, images.data[:6])
        np.testing.assert_array_equal(probe_labels.data, labels.data[:6])
    crop, flip, last = train_loader.dataset.transform.transforms
    assert (type(crop), type(flip), type(last)) == (data.RandomCrop, data.RandomHorizontalFlip, data.Normalize)
    whole = {image.tobytes() for image in images.data}
    changed = [image.tobytes() not in whole for batch, _ in train_loader for image in batch.data]
    assert sum(changed) > 15


def test_a_refused_budget_leaves_no_folder(main, tmp_path):
    with pytest.raises(ArgumentError, match=r"--minutes 0.001 is not enough here"):
        main("--minutes", 0.001)
    assert list(tmp_path.iterdir()) == []


def test_minutes_are_written_down_where_they_count(main, tmp_path):
    main("--steps", 3)
    main("--minutes", 2, "--output-dir", "timed")
    written = [json.loads((tmp_path / run / "config.json").read_text())["experiment"] for run in ("run", "timed")]
    assert [experiment["minutes"] for experiment in written] == [None, 2]
    assert written[0]["steps"] == 3


def test_the_table_counts_images_not_steps(script, capsys):
    losses = {"train_loss": 1, "train_error": 2, "test_error": 3}
    script.print_table(
        [{"net": "resnet20", "step": 8, "seconds": 2.0, **losses}],
        argparse.Namespace(nets=["resnet20"], batch_size=6, seed=0),
    )
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "24"


def test_real_pictures(cifar10_root, tmp_path):
    limits = ["--limit-train", 64, "--limit-test", 20, "--nets", "resnet20", "--steps", 2, "-b", 16, "--points", 1]
    process = run(SCRIPT, "--data-path", cifar10_root, *limits, "--output-dir", "run", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert "64 training and 20 test images" in process.stdout
    assert [record["step"] for record in log_of(tmp_path / "run")] == [2]
