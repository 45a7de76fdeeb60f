"""Degradation: deeper plain nets train worse, deeper residual nets do not (He et al., 2015, figures 1, 6 and 7).

    python examples/degradation.py --data-path DATA                    # about ten minutes, whatever the machine
    python examples/degradation.py --data-path DATA --resume auto      # go on with the newest run
    python examples/degradation.py --data-path DATA --nets plain18 plain34 resnet18 resnet34 --minutes 60
    python examples/degradation.py --data-path DATA --device cuda --full   # the paper's 64,000 steps for each net

Every net has the same batches, crops and flips, rate, decay and number of steps. A plain net and the residual net of
its depth start from the same weights, and have equally many: shortcuts pass zeros for channels that are new (option A).
The number of steps is what the minutes are enough for, measured at the start; the rate falls to a tenth after half of
them, and again after three quarters, as in the paper. What each layer gives, and the gradient that it gets, is measured
before and after training, and in the same nets without batch norm.
"""

import argparse
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

from minires import checkpoint, data, depth, device, environment, kernels, models, optim, plots, training
from minires.errors import ArgumentError, CheckpointError
from minires.files import write_whole
from minires.nn import functional as F
from minires.optim import lr_scheduler

NETS = ["plain20", "plain56", "resnet20", "resnet56"]
# Section 4.2 of the paper; every image of the test set is looked at after about each epoch.
FULL = {"steps": 64000, "batch_size": 128, "lr": 0.1, "limit_test": 10000, "points": 160}
# What makes two runs different experiments. It is written down at the start, and a resumed run has it from there.
EXPERIMENT = ["nets", "minutes", "steps", "points", "batch_size", "lr", "momentum", "weight_decay", "seed"]
EXPERIMENT += ["limit_train", "limit_test", "precision"]


def options() -> argparse.ArgumentParser:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    names = [name for name in models.BUILDERS if not name.startswith("keras")]
    add("--nets", nargs="+", choices=names, default=NETS, metavar="NET", help=f"of {', '.join(names)}")
    budget = parser.add_mutually_exclusive_group()
    add_budget = budget.add_argument
    minutes = "how long all of it may take, which sets the number of steps (default %(default)g)"
    add_budget("--minutes", type=training.positive_number, default=10.0, help=minutes)
    add_budget("--steps", type=training.positive, help="this many steps of each net instead, however long they take")
    full = f"the paper's: {', '.join(f'--{name} {value}' for name, value in FULL.items()).replace('_', '-')}"
    add_budget("--full", action="store_true", help=full)
    add(
        "--data-path",
        default=os.environ.get("MINIRES_DATA", "data"),
        help="CIFAR-10's archive or folder, or where they are (default: $MINIRES_DATA or data)",
    )
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default %(default)s)")
    add("-j", "--workers", type=training.natural, default=1, help="threads that prepare batches (default %(default)s)")
    add("-b", "--batch-size", type=training.positive, default=32, help="images in a step (default %(default)s)")
    rate = "the first learning rate (default %(default)s: a quarter of the paper's, as the batch is)"
    add("--lr", type=float, default=0.025, help=rate)
    add("--momentum", type=float, default=0.9, help="of SGD (default %(default)s)")
    decay = "of all weights (default %(default)s)"
    add("--wd", "--weight-decay", dest="weight_decay", type=float, default=1e-4, help=decay)
    add("--seed", type=training.natural, default=0, help="of weights, order, crops and flips (default %(default)s)")
    add("--points", type=training.positive, default=8, help="how often a net is tested and saved (default %(default)s)")
    add("--limit-train", type=training.positive, metavar="N", help="train on the first N images only")
    tested = "test on the first N images only (default %(default)s)"
    add("--limit-test", type=training.positive, default=1000, metavar="N", help=tested)
    add("--print-freq", type=training.positive, default=100, help="batches between two lines (default %(default)s)")
    add("--output-dir", help="folder of the run (default: runs/degradation-<date>)")
    add("--resume", metavar="FOLDER|auto", help="go on with a run, or with the newest in runs/degradation-*")
    training.add_kernel_options(parser)
    return parser


def parse_args() -> tuple[argparse.Namespace, dict | None]:
    """The options, and what config.json says of the run to go on with, from which they have their defaults, or None."""
    parser = options()
    args = parser.parse_args()
    if args.full:
        parser.set_defaults(**FULL)
    config = None
    if args.resume:
        if args.output_dir:
            raise ArgumentError("--resume goes on in the run's folder: leave --output-dir out")
        config = load_config(args.resume)
        parser.set_defaults(**config["experiment"])
    args = parser.parse_args()
    args.nets = list(dict.fromkeys(args.nets))
    if config is None and args.steps is not None:
        args.minutes = None  # they set nothing
    if config is not None:
        changed = [name for name, value in config["experiment"].items() if getattr(args, name) != value]
        if args.full and not config["full"]:
            changed.append("full")
        if changed:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise ArgumentError(f"{config['folder']} was begun with other values of {named}: leave them out")
    return args, config


def load_config(resume: str) -> dict:
    """What is written down of a run. Raises CheckpointError where there is none."""
    found = sorted(Path("runs").glob("degradation-*/config.json"), key=lambda p: p.stat().st_mtime)
    if resume == "auto" and not found:
        raise CheckpointError("--resume auto found no runs/degradation-*/config.json")
    folder = found[-1].parent if resume == "auto" else Path(resume)
    config = read_json(folder / "config.json")
    missing = {"experiment", "full", "data"} - set(config) or set(EXPERIMENT) - set(config["experiment"])
    if missing:
        raise CheckpointError(f"{folder / 'config.json'} was not written by this script: it has no {min(missing)}")
    return config | {"folder": folder}


def main() -> None:
    begin = time.perf_counter()
    args, config = parse_args()
    training.set_kernel_options(args)
    place = device.use(args.device)
    preset = data.NORMALIZATION["cifar10"]
    normalize = data.Normalize(*preset)
    crop, flip = data.RandomCrop(32, 4, seed=args.seed), data.RandomHorizontalFlip(seed=args.seed)
    augment = data.Compose([crop, flip, normalize])
    train_set = data.CIFAR10(args.data_path, train=True, transform=augment)
    test_set = data.CIFAR10(args.data_path, train=False, transform=normalize)
    identity = {"name": train_set.name, "train": train_set.fingerprint, "test": test_set.fingerprint}
    if config is not None and config["data"] != identity:
        raise CheckpointError(f"{config['folder']} was begun on other pictures, of {config['data']['name']}")
    train_set = train_set.take(args.limit_train).to(place)
    test_set = test_set.take(args.limit_test).to(place)
    train_loader = data.DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers, seed=args.seed)
    test_loader = data.DataLoader(test_set, 100, num_workers=args.workers)
    first = train_set.take(args.batch_size)  # the layers are measured on these, as they are: no crop, no flip
    first.transform = normalize
    probe = next(iter(data.DataLoader(first, args.batch_size)))

    parts = [f"device {device.describe(place)}", f"seed {args.seed}", kernels.setting(place), f"data {train_set.name}"]
    print(environment.header(*parts))
    layers: dict = {}
    if config is None:
        if args.output_dir:
            training.unused(args.output_dir)
        for net in args.nets:
            layers[net] = {
                "no batch norm": measured(build(net, args, place, batch_norm=False), probe, place),
                "before": measured(build(net, args, place), probe, place),
            }
        if args.steps is None:
            args.steps = affordable(begin, args, train_loader, test_loader, place)
        folder = training.new_run_folder("degradation", args.output_dir)
        write_json(folder / "layers.json", layers)
        experiment = {name: getattr(args, name) for name in EXPERIMENT}
        write_json(folder / "config.json", {"experiment": experiment, "full": args.full, "data": identity})
    else:
        folder = config["folder"]
        layers = read_json(folder / "layers.json")
    images = f"{len(train_set):,} training and {len(test_set):,} test images"
    epochs = args.steps / len(train_loader)
    print(f"{args.steps:,} steps of {args.batch_size} for each net, {epochs:.3g} epochs; {images}; run in {folder}")

    saved = {net: checkpoint.load(path) for net in args.nets if (path := folder / f"{net}.safetensors").exists()}
    log = training.RunLog(folder / "log.jsonl", [r for old in saved.values() for r in old.info["history"]])
    about = f"{train_set.name}, {args.steps:,} steps of {args.batch_size}, seed {args.seed}"
    draw(log.records, layers, folder, about)
    info = {"data": identity, "normalize": preset, "classes": test_set.classes}  # as examples/evaluate.py wants it
    for net in args.nets:
        path = folder / f"{net}.safetensors"
        model = train(net, saved.get(net), train_loader, test_loader, log, path, info, args, place)
        if "after" not in layers[net]:
            layers[net]["after"] = measured(model, probe, place)
            write_json(folder / "layers.json", layers)
        draw(log.records, layers, folder, about)
    print_table(log.records, args)
    print(f"{training.duration(time.perf_counter() - begin)}, {environment.peak_memory(place)}; pictures in {folder}")


def build(net: str, args, place: str, **settings):
    """A net at its start. Those of one depth have the same initial weights, plain or not."""
    settings |= {"shortcut": shortcut(net), "generator": np.random.default_rng(args.seed)}
    return models.build(net, num_classes=10, stem="cifar", **settings).to(place)


def shortcut(net: str) -> str | None:
    return None if net.startswith("plain") else "A"


def training_tools(model, args, steps: int) -> tuple[optim.SGD, lr_scheduler.LRScheduler]:
    optimizer = optim.SGD(model.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    return optimizer, lr_scheduler.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4])


def train_step(model, optimizer, images, labels):
    """Loss and accuracy of a batch, before its step."""
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss, training.accuracy(logits, labels)


def batches(loader: data.DataLoader, done: int):
    """The batches after those of `done` steps, epoch after epoch: the same for every net, and for a resumed run."""
    epoch, seen = divmod(done, len(loader))
    while True:
        loader.set_epoch(epoch)
        yield from itertools.islice(loader, seen, None)
        epoch, seen = epoch + 1, 0


def train(net: str, saved, train_loader, test_loader, log: training.RunLog, path: Path, info: dict, args, place: str):
    """Train a net from its checkpoint, or its start, to the end, with a record and a checkpoint at each point."""
    info = info | {"recipe": {"arch": net, "shortcut": shortcut(net), "dataset": "cifar10"}}
    model = build(net, args, place)
    optimizer, scheduler = training_tools(model, args, args.steps)
    history = []
    if saved is not None:
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
        scheduler.load_state_dict(saved.scheduler)
        history = saved.info["history"]
    done = history[-1]["step"] if history else 0
    seconds = history[-1]["seconds"] if history else 0.0
    source = batches(train_loader, done)
    for point in points(args.steps, args.points):
        if point <= done:
            continue
        loss, right = training.Average(), training.Average()
        start, lr = time.perf_counter(), optimizer.param_groups[0]["lr"]
        with training.Progress(f"{net}: steps {done + 1} to {point} ", point - done, args.print_freq) as progress:
            for images, labels in itertools.islice(source, point - done):
                images, labels = images.to(place), labels.to(place)
                batch_loss, accuracy = train_step(model, optimizer, images, labels)
                scheduler.step()
                loss.add(batch_loss, len(images))
                right.add(accuracy, len(images))
                progress.step(lambda loss=loss, right=right: f"loss {loss.mean:.4f}  acc1 {right.mean:.2f}")
        training.check_finite(loss)
        device.synchronize(place)
        seconds, done = seconds + time.perf_counter() - start, point
        test_loss, test_acc = training.evaluate(model, test_loader, place)
        record = {"net": net, "step": point, "lr": lr, "train_loss": loss.mean, "train_error": 100 - right.mean}
        record |= {"test_loss": test_loss, "test_error": 100 - test_acc, "seconds": seconds}
        history.append(record)
        log.write(**record)
        checkpoint.save(path, model, optimizer, scheduler, info | {"history": history})
        errors = f"train error {record['train_error']:.2f} %, test error {record['test_error']:.2f} %"
        print(f"{net} after {point:,} steps: {errors}, loss {loss.mean:.4f} and {test_loss:.4f}", flush=True)
    source.close()
    return model


def points(steps: int, count: int) -> list[int]:
    """The steps after which a net is tested and saved: `count`, evenly, or each of the steps if these are fewer."""
    return sorted({max(1, round(steps * i / count)) for i in range(1, count + 1)})


def affordable(begin: float, args, train_loader, test_loader, place: str) -> int:
    """How many steps of every net fit into --minutes, when what came before `begin` is over: throw-away nets are timed.

    Raises ArgumentError where not even one step for each point does.
    """
    a_step = a_test = 0.0  # seconds, of all nets together
    for net in args.nets:
        model = build(net, args, place)
        optimizer, _ = training_tools(model, args, args.points)
        steps, tests = (training.Stopwatch(loader, 2.0, place) for loader in (train_loader, test_loader))
        for images, labels in steps:
            train_step(model, optimizer, images.to(place), labels.to(place))
        training.evaluate(model, tests, place)
        a_step, a_test = a_step + steps.median, a_test + len(test_loader) * tests.median
    spent = time.perf_counter() - begin
    steps = steps_within(60 * args.minutes - spent, a_step, a_test, args.points)
    print(f"A step of every net takes {a_step:.3g} s together, a test {a_test:.3g} s; {spent:.0f} s are spent")
    if steps < args.points:
        least = (spent + args.points * (a_step + a_test)) / 60
        raise ArgumentError(f"--minutes {args.minutes:g} is not enough here: it takes {1.2 * least:.1f} or more")
    return steps


def steps_within(seconds: float, a_step: float, a_test: float, points: int) -> int:
    """Steps for which there is time beside tests at all points, and layers to be measured at the end (two steps each).

    Five percent are kept for checkpoints and pictures.
    """
    return int((0.95 * seconds - points * a_test) / a_step) - 2


def measured(model, probe, place: str) -> dict:
    """`depth.strengths` for JSON: what is no finite number any more, in very deep nets without batch norm, is None."""
    found = depth.strengths(model, *(tensor.to(place) for tensor in probe))
    finite = {name: [v if math.isfinite(v) else None for v in getattr(found, name)] for name in found._fields[1:]}
    return {"layers": found.layers, **finite}


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no run to go on with: {path} is not there") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} was not written by this script")
    return content


def write_json(path: Path, content: dict) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def draw(records: list[dict], layers: dict, folder: Path, about: str) -> None:
    """curves.png, responses.png and gradients.png of what is there so far."""
    if records:
        plots.depths(records, folder / "curves.png", about)

    def case(name: str, what: str) -> dict[str, list]:
        return {net: cases[name][what] for net, cases in layers.items() if name in cases}

    # With batch norm all responses are 1 before training: its weights are.
    after = case("after", "responses")
    by_size = {net: sorted((v for v in values if v is not None), reverse=True) for net, values in after.items()}
    responses = {
        "no batch norm, before training": case("no batch norm", "responses"),
        "batch norm, after training": after,
        "batch norm, after training, by size": by_size,
    }
    gradients = {
        "no batch norm, before training": case("no batch norm", "gradients"),
        "batch norm, before training": case("before", "gradients"),
        "batch norm, after training": case("after", "gradients"),
    }
    plots.by_layer(responses, folder / "responses.png", about, "standard deviation of the response")
    plots.by_layer(gradients, folder / "gradients.png", about, "norm of the weight's gradient")


def print_table(records: list[dict], args) -> None:
    """How each net ended. Training errors and losses are means over the steps since the last point but one."""
    print(f"{'net':<18} {'parameters':>10} {'train loss':>10} {'train error':>11} {'test error':>10} {'images/s':>8}")
    for net in args.nets:
        last = [record for record in records if record["net"] == net][-1]
        count = sum(p.numel() for p in build(net, args, "cpu").parameters())
        speed = last["step"] * args.batch_size / last["seconds"]
        errors = f"{last['train_loss']:>10.4f} {last['train_error']:>9.2f} % {last['test_error']:>8.2f} %"
        print(f"{net:<18} {count:>10,} {errors} {speed:>8.0f}")


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
