"""Train a residual net on CIFAR-10 or CIFAR-100.

    python examples/train_cifar10.py --data-path DATA                 # DATA holds cifar-10-python.tar.gz or its folder
    python examples/train_cifar10.py --data-path DATA --resume auto   # go on with the newest run
    python examples/train_cifar10.py --data-path DATA --config examples/recipes/he2015_resnet20.toml --dry-run
    python examples/train_cifar10.py --data-path DATA --limit-train 2560 --limit-test 1000 --epochs 2 --lr 0.01

The defaults are the recipe of a widely read post: ResNet-18, batch 32, 20 epochs, rate 0.1 divided by 10 at epochs 100
and 150 (never reached in 20), weight decay 2e-4, crop and flip. Its std is kept, too, though it is the mean of the
images' own deviations; --normalization cifar10 takes the data set's. For batches of 32 its rate is high: the first few
hundred steps stay near chance, in PyTorch as here. A short run wants --lr 0.01. Other recipes are in examples/recipes;
--dry-run says how long one takes here.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from minires import checkpoint, data, device, environment, kernels, models, optim, plots, recipes, training
from minires.errors import ArgumentError, CheckpointError
from minires.nn import functional as F
from minires.optim import lr_scheduler

DATASETS = {"cifar10": (data.CIFAR10, "cifar10_post"), "cifar100": (data.CIFAR100, "cifar100")}
SCHEDULES = ["multisteplr", "cosineannealinglr", "onecyclelr"]
# What makes two runs different experiments: a resumed run must agree with its checkpoint on all of these.
RECIPE = ["arch", "shortcut", "zero_init_residual", "dataset", "normalization", "crop_padding", "val_split"]
RECIPE += ["batch_size", "lr", "momentum", "nesterov", "weight_decay", "label_smoothing"]
RECIPE += ["lr_scheduler", "milestones", "lr_gamma", "lr_warmup_epochs", "lr_warmup_method", "lr_warmup_decay"]
RECIPE += ["seed", "limit_train", "limit_test", "precision"]


def options() -> argparse.ArgumentParser:
    parser = training.ArgumentParser(__doc__)
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("-a", "--arch", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)")
    add("--shortcut", choices=models.SHORTCUTS, help="where a shortcut changes size (default: the net's)")
    add("--zero-init-residual", action=switch, help="start with residual branches of 0 (default: the net's)")
    add("-d", "--dataset", choices=DATASETS, default="cifar10", help="what to train on (default %(default)s)")
    add(
        "--data-path",
        default=os.environ.get("MINIRES_DATA", "data"),
        help="the data set's archive or folder, or where they are (default: $MINIRES_DATA or data)",
    )
    add("--download", action="store_true", help="fetch the data set into --data-path if it is not there")
    presets = [name for name, preset in data.NORMALIZATION.items() if len(preset.mean) == 3]
    add("--normalization", choices=presets, help="mean and std of each channel (default: cifar10_post or cifar100)")
    add(
        "--crop-padding",
        type=training.natural,
        default=4,
        help="pixels around an image before the random crop (default %(default)s)",
    )
    held = "hold out the last N training images: epochs are measured by them, and the test set is used once, at the end"
    add("--val-split", type=training.natural, default=0, metavar="N", help=held)
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default %(default)s)")
    add("-j", "--workers", type=training.natural, default=1, help="threads that prepare batches (default %(default)s)")
    add("-b", "--batch-size", type=training.positive, default=32, help="images in a step (default %(default)s)")
    add("--epochs", type=training.positive, default=20, help="passes over the images (default %(default)s)")
    add("--lr", type=float, default=0.1, help="the first learning rate, or one-cycle's highest (default %(default)s)")
    add("--momentum", type=float, default=0.9, help="of SGD (default %(default)s)")
    add("--nesterov", action=switch, default=False, help="Nesterov's momentum (default: no)")
    decay = "of all weights (default %(default)s)"
    add("--wd", "--weight-decay", dest="weight_decay", type=float, default=2e-4, help=decay)
    smoothing = "part of the labels that is spread over all classes (default %(default)s)"
    add("--label-smoothing", type=float, default=0.0, help=smoothing)
    add("--lr-scheduler", choices=SCHEDULES, default=SCHEDULES[0], help="how the rate falls (default %(default)s)")
    falls = "epochs after which multisteplr's rate falls (default %(default)s)"
    add("--milestones", type=training.positive, nargs="*", default=[100, 150], help=falls)
    add("--lr-gamma", type=float, default=0.1, help="what the rate is multiplied by then (default %(default)s)")
    lower = "first epochs with a lower rate (default %(default)s)"
    add("--lr-warmup-epochs", type=training.natural, default=0, help=lower)
    warm_up = "one rate, or a line up to --lr (default %(default)s)"
    add("--lr-warmup-method", choices=["constant", "linear"], default="constant", help=warm_up)
    add("--lr-warmup-decay", type=float, default=0.01, help="that rate's part of --lr (default %(default)s)")
    add("--seed", type=training.natural, default=0, help="of weights, order, crops and flips (default %(default)s)")
    add("--limit-train", type=training.positive, metavar="N", help="train on the first N images only")
    add("--limit-test", type=training.positive, metavar="N", help="test on the first N images only")
    add("--print-freq", type=training.positive, default=100, help="batches between two lines (default %(default)s)")
    add("--output-dir", help="folder of the run (default: runs/<arch>-<dataset>-<date>)")
    add("--resume", metavar="PATH|auto", help="go on from a checkpoint, or from the newest in runs/<arch>-<dataset>-*")
    dry = "measure steps for some seconds (default %(const)s), say how long the run would take here, and write nothing"
    add("--dry-run", type=training.positive_number, nargs="?", const=10.0, metavar="SECONDS", help=dry)
    training.add_kernel_options(parser)
    return parser


def main() -> None:
    args = recipes.parse_args(options())
    args.normalization = args.normalization or DATASETS[args.dataset][1]
    if args.resume and args.output_dir:
        raise ArgumentError("--resume goes on in the checkpoint's folder: leave --output-dir out")
    training.set_kernel_options(args)
    place = device.use(args.device)
    preset = data.NORMALIZATION[args.normalization]
    normalize = data.Normalize(*preset)
    crop, flip = data.RandomCrop(32, args.crop_padding, seed=args.seed), data.RandomHorizontalFlip(seed=args.seed)
    augment = data.Compose([crop, flip, normalize])
    dataset, _ = DATASETS[args.dataset]
    train_set = dataset(args.data_path, train=True, transform=augment, download=args.download)
    test_set = dataset(args.data_path, train=False, transform=normalize)
    # Which data these are, exactly: what a result or a checkpoint is worth depends on it.
    name = train_set.name if train_set.name == test_set.name else f"{train_set.name}, tested on {test_set.name}"
    identity = {"name": name, "train": train_set.fingerprint, "test": test_set.fingerprint}
    kept = len(train_set) - args.val_split
    if kept < 1:
        raise ArgumentError(f"--val-split {args.val_split} leaves nothing of {len(train_set)} training images")
    val_set = data.ImageDataset(train_set.images[kept:], train_set.labels[kept:], train_set.classes, normalize)
    train_set = train_set.take(kept).take(args.limit_train).to(place)
    val_set, test_set = val_set.to(place), test_set.take(args.limit_test).to(place)
    if args.limit_train or args.limit_test:
        name += f", {len(train_set):,} training and {len(test_set):,} test images"
    train_loader = data.DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers, seed=args.seed)
    test_loader = data.DataLoader(test_set, 100, num_workers=args.workers)
    val_loader = data.DataLoader(val_set, 100, num_workers=args.workers)
    held, held_loader = ("val", val_loader) if args.val_split else ("test", test_loader)  # what epochs are measured by

    model = recipes.build(vars(args), len(train_set.classes), np.random.default_rng(args.seed)).to(place)
    optimizer = optim.SGD(
        model.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay, nesterov=args.nesterov
    )
    scheduler = schedule(optimizer, args, len(train_loader))
    each_step = scheduler if args.lr_scheduler == "onecyclelr" else None  # the others step after each epoch

    recipe = {name: getattr(args, name) for name in RECIPE}
    if args.lr_scheduler != "multisteplr":  # their rates depend on where the run is to end
        recipe["epochs"] = args.epochs
    history: list[dict] = []
    if args.resume:
        saved = load(args.resume, recipe, identity)
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
        scheduler.load_state_dict(saved.scheduler)
        history = saved.info["history"]

    weights = sum(p.numel() for p in model.parameters())
    parts = [f"device {device.describe(place)}", f"{args.arch} {weights / 1e6:.2f}M params", f"seed {args.seed}"]
    print(environment.header(*parts, kernels.setting(place), f"data {name}"))
    if len(history) >= args.epochs:
        print(f"Nothing to do: {len(history)} epochs are done, --epochs is {args.epochs}")
        return
    if args.dry_run is not None:
        dry_run(model, optimizer, train_loader, held_loader, test_loader, args, place, len(history))
        return
    if args.resume:
        folder = saved.path.parent
    else:
        folder = training.new_run_folder(f"{args.arch}-{args.dataset}", args.output_dir)
    held_out = f", {len(val_set):,} held out" if args.val_split else ""
    counts = f"{len(train_set):,} training and {len(test_set):,} test images{held_out}"
    print(f"{counts} from {args.data_path}, run in {folder}")
    if history:
        print(f"Resumed after epoch {len(history)}")
    recipes.write(folder / "config.toml", recipe | {"epochs": args.epochs}, "For --config of train_cifar10.py")
    log = training.RunLog(folder / "log.jsonl", history)
    for epoch in range(len(history) + 1, args.epochs + 1):
        start, lr = time.perf_counter(), scheduler.get_last_lr()[0]
        train_loader.set_epoch(epoch)  # order, crops and flips are those that a run without a break would have
        scores = {"train": train_epoch(model, train_loader, optimizer, each_step, args, place, f"Epoch: [{epoch}]")}
        seconds = time.perf_counter() - start
        scores[held] = training.evaluate(model, held_loader, place)
        if epoch == args.epochs and held != "test":
            scores["test"] = training.evaluate(model, test_loader, place)
        if each_step is None:
            scheduler.step()
        results = {}
        for split, (loss, acc) in scores.items():
            results |= {f"{split}_loss": loss, f"{split}_acc": acc}
        log.write(epoch=epoch, lr=lr, **results, images_per_second=len(train_set) / seconds, data=name)
        info = {"recipe": recipe, "data": identity, "normalize": preset, "classes": test_set.classes}
        info["history"] = log.records
        checkpoint.save(folder / "last.safetensors", model, optimizer, scheduler, info)
        plots.curves(log.records, folder / "curves.png", f"{args.arch} on {name}, seed {args.seed}")
        best = max(record[f"{held}_acc"] for record in log.records)
        train_loss, train_acc = scores["train"]
        about = f" (train {train_acc:.2f} {train_loss:.4f}, best {held} {best:.2f})"
        for split in list(scores)[1:]:
            loss, acc = scores[split]
            print(f"{split.title()}: Acc@1 {acc:.2f} loss {loss:.4f}{about if split == held else ''}", flush=True)
    files = "config.toml, last.safetensors, log.jsonl and curves.png"
    print(f"Wrote {files} to {folder} ({environment.peak_memory(place)})")


def schedule(optimizer, args, steps: int) -> lr_scheduler.LRScheduler:
    """The learning rate of each epoch, or with onecyclelr of each of the `steps` in an epoch."""
    warm_up = args.lr_warmup_epochs
    if args.lr_scheduler == "onecyclelr":
        if warm_up:
            raise ArgumentError("--lr-scheduler onecyclelr begins with a warm-up of its own: no --lr-warmup-epochs")
        return lr_scheduler.OneCycleLR(optimizer, args.lr, args.epochs * steps, cycle_momentum=False)
    if not warm_up < args.epochs:
        raise ArgumentError(f"--lr-warmup-epochs {warm_up} must be less than --epochs {args.epochs}")
    if args.lr_scheduler == "cosineannealinglr":
        after = lr_scheduler.CosineAnnealingLR(optimizer, args.epochs - warm_up)
    else:
        after = lr_scheduler.MultiStepLR(optimizer, [m - warm_up for m in args.milestones], args.lr_gamma)
    if not warm_up:
        return after
    warming = lr_scheduler.ConstantLR if args.lr_warmup_method == "constant" else lr_scheduler.LinearLR
    before = warming(optimizer, args.lr_warmup_decay, total_iters=warm_up)
    return lr_scheduler.SequentialLR(optimizer, [before, after], [warm_up])


def train_epoch(model, loader, optimizer, each_step, args, place: str, title: str | None) -> tuple[float, float]:
    """One pass over the training images, with a schedule for each step or None: mean loss and accuracy in percent."""
    loss, right = training.Average(), training.Average()
    start = time.perf_counter()

    def status() -> str:  # a GPU works ahead of this program: only what is shown waits for it
        training.check_finite(loss)
        speed = loss.count / (time.perf_counter() - start)
        rate = optimizer.param_groups[0]["lr"]
        shown = f"loss {loss.last:.4f} ({loss.mean:.4f})  acc1 {right.last:.2f} ({right.mean:.2f})"
        return f"lr {rate:.4g}  img/s {speed:.1f}  {shown}"

    with training.Progress(title, len(loader), args.print_freq) as progress:
        for images, labels in loader:
            images, labels = images.to(place), labels.to(place)
            logits = model(images)
            batch_loss = F.cross_entropy(logits, labels, label_smoothing=args.label_smoothing)
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
            loss.add(batch_loss, len(images))
            right.add(training.accuracy(logits, labels), len(images))
            progress.step(status)
            if each_step is not None:
                each_step.step()
    training.check_finite(loss)
    return loss.mean, right.mean


def dry_run(model, optimizer, train_loader, held_loader, test_loader, args, place: str, done: int) -> None:
    """Measure some training steps and test batches, and print what the epochs that are not `done` would take here."""
    steps, tests = (training.Stopwatch(loader, args.dry_run, place) for loader in (train_loader, test_loader))
    train_epoch(model, steps, optimizer, None, args, place, None)
    training.evaluate(model, tests, place)
    batch = min(args.batch_size, len(train_loader.dataset))
    speed = f"{batch / steps.median:.1f} images/s; median of {len(steps.times) - 1}"
    print(f"A step of {batch} images takes {steps.median:.3g} s ({speed}), a test batch {tests.median:.3g} s")
    epoch = len(train_loader) * steps.median + len(held_loader) * tests.median
    left = args.epochs - done
    run = left * epoch + (len(test_loader) * tests.median if args.val_split else 0)
    an_epoch = f"An epoch of {len(train_loader):,} steps takes {training.duration(epoch)}"
    epochs = f"{left} more" if done else left
    print(f"{an_epoch}, {epochs} take {training.duration(run)} ({environment.peak_memory(place)})")


def load(resume: str, recipe: dict, identity: dict) -> checkpoint.Checkpoint:
    """The checkpoint to go on from. Raises CheckpointError if it belongs to another model, recipe or data set.

    Where it does not say the precision, as older ones, `recipe` does not say it afterwards either.
    """
    arch, pattern = recipe["arch"], f"{recipe['arch']}-{recipe['dataset']}-*/last.safetensors"
    found = sorted(Path("runs").glob(pattern), key=lambda p: p.stat().st_mtime)
    if resume == "auto" and not found:
        raise CheckpointError(f"--resume auto found no runs/{pattern}")
    saved = checkpoint.load(found[-1] if resume == "auto" else resume)
    theirs = saved.info.get("recipe", {})
    if theirs.get("arch") != arch:
        raise CheckpointError(
            f"{saved.path} holds the model {theirs.get('arch', 'of another script')!r}, this run trains {arch!r}"
        )
    defaults = options()  # which an older checkpoint had without saying so
    theirs = {name: defaults.get_default(name) for name in recipe} | {"precision": None} | theirs
    if theirs["precision"] is None:  # it may have been any: what goes on from there is of no known one
        recipe["precision"] = None
    changed = [f"--{n.replace('_', '-')} was {theirs[n]}, is {v}" for n, v in recipe.items() if theirs[n] != v]
    if changed:
        raise CheckpointError(f"{saved.path} was trained by another recipe: {'; '.join(changed)}")
    before = saved.info["data"]
    if before["name"] != identity["name"]:
        raise CheckpointError(f"{saved.path} was trained on {before['name']}, these are {identity['name']}")
    if before != identity:
        print(f"Warning: {saved.path} was trained on other pixels than these, though both are {identity['name']}")
    return saved


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
