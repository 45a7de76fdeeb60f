"""Train ResNet-18 on CIFAR-10 or CIFAR-100.

    python examples/train_cifar10.py --data-path DATA                 # DATA holds cifar-10-python.tar.gz or its folder
    python examples/train_cifar10.py --data-path DATA --resume auto   # go on with the newest run
    python examples/train_cifar10.py --data-path DATA --limit-train 2560 --limit-test 1000 --epochs 2 --lr 0.01

The defaults are the recipe of a widely read post: batch 32, 20 epochs, rate 0.1 divided by 10 at epochs 100 and 150
(never reached in 20), weight decay 2e-4, crop and flip. Its std is kept, too, though it is the mean of the images' own
deviations; --normalization cifar10 takes the data set's. For batches of 32 its rate is high: the first few hundred
steps stay near chance, in PyTorch as here. A short run wants --lr 0.01.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from minires import checkpoint, data, device, environment, kernels, models, optim, plots, training
from minires.errors import ArgumentError, CheckpointError
from minires.nn import functional as F

DATASETS = {"cifar10": (data.CIFAR10, "cifar10_post"), "cifar100": (data.CIFAR100, "cifar100")}
# What makes two runs different experiments: a resumed run must agree with its checkpoint on all of these.
RECIPE = [
    "arch",
    "dataset",
    "batch_size",
    "lr",
    "momentum",
    "weight_decay",
    "milestones",
    "lr_gamma",
    "crop_padding",
    "normalization",
]
RECIPE += ["seed", "limit_train", "limit_test"]


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add("-a", "--arch", default="resnet18", help=f"one of: {', '.join(models.BUILDERS)} (default %(default)s)")
    add("-d", "--dataset", choices=DATASETS, default="cifar10", help="default %(default)s")
    add(
        "--data-path",
        default=os.environ.get("MINIRES_DATA", "data"),
        help="the data set's archive or folder, or where they are (default: $MINIRES_DATA or data)",
    )
    add("--download", action="store_true", help="fetch the data set into --data-path if it is not there")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default %(default)s)")
    add("-b", "--batch-size", type=training.positive, default=32, help="default %(default)s")
    add("--epochs", type=training.positive, default=20, help="default %(default)s")
    add("-j", "--workers", type=training.natural, default=1, help="threads that prepare batches (default %(default)s)")
    add("--lr", type=float, default=0.1, help="the first learning rate (default %(default)s)")
    add("--momentum", type=float, default=0.9, help="default %(default)s")
    add("--wd", "--weight-decay", dest="weight_decay", type=float, default=2e-4, help="default %(default)s")
    add(
        "--milestones",
        type=training.positive,
        nargs="*",
        default=[100, 150],
        help="epochs after which the rate falls (default %(default)s)",
    )
    add("--lr-gamma", type=float, default=0.1, help="what the rate is multiplied by then (default %(default)s)")
    add(
        "--crop-padding",
        type=training.natural,
        default=4,
        help="pixels around an image before the random crop (default %(default)s)",
    )
    presets = [name for name, preset in data.NORMALIZATION.items() if len(preset.mean) == 3]
    add("--normalization", choices=presets, help="mean and std of each channel (default: cifar10_post or cifar100)")
    add(
        "--seed",
        type=training.natural,
        default=0,
        help="of weights, order, crops and flips (default %(default)s)",
    )
    add("--limit-train", type=training.positive, metavar="N", help="train on the first N images only")
    add("--limit-test", type=training.positive, metavar="N", help="test on the first N images only")
    add(
        "--print-freq",
        type=training.positive,
        default=100,
        help="batches between two lines (default %(default)s)",
    )
    add("--output-dir", help="folder of the run (default: runs/<arch>-<dataset>-<date>)")
    add("--resume", metavar="PATH|auto", help="go on from a checkpoint, or from the newest in runs/<arch>-<dataset>-*")
    training.add_kernel_options(parser)
    args = parser.parse_args()
    args.normalization = args.normalization or DATASETS[args.dataset][1]
    return args


def main() -> None:
    args = arguments()
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
    train_set, test_set = train_set.take(args.limit_train).to(place), test_set.take(args.limit_test).to(place)
    if args.limit_train or args.limit_test:
        name += f", {len(train_set):,} training and {len(test_set):,} test images"
    train_loader = data.DataLoader(train_set, args.batch_size, shuffle=True, num_workers=args.workers, seed=args.seed)
    test_loader = data.DataLoader(test_set, 100, num_workers=args.workers)

    generator = np.random.default_rng(args.seed)
    model = models.build(args.arch, num_classes=len(train_set.classes), stem="cifar", generator=generator).to(place)
    optimizer = optim.SGD(model.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    scheduler = optim.lr_scheduler.MultiStepLR(optimizer, args.milestones, args.lr_gamma)

    recipe = {name: getattr(args, name) for name in RECIPE}
    if args.resume:
        saved = load(args.resume, recipe, identity)
        model.load_state_dict(saved.model)
        optimizer.load_state_dict(saved.optimizer)
        scheduler.load_state_dict(saved.scheduler)
        folder, history = saved.path.parent, saved.info["history"]
    else:
        folder, history = training.new_run_folder(f"{args.arch}-{args.dataset}", args.output_dir), []

    weights = sum(p.numel() for p in model.parameters())
    parts = [f"device {device.describe(place)}", f"{args.arch} {weights / 1e6:.2f}M params", f"seed {args.seed}"]
    print(environment.header(*parts, kernels.setting(place), f"data {name}"))
    print(f"{len(train_set):,} training and {len(test_set):,} test images from {args.data_path}, run in {folder}")
    if history:
        print(f"Resumed after epoch {len(history)}")
    if len(history) >= args.epochs:
        print(f"Nothing to do: {len(history)} epochs are done, --epochs is {args.epochs}")
        return
    log = training.RunLog(folder / "log.jsonl", history)
    for epoch in range(len(history) + 1, args.epochs + 1):
        start, lr = time.perf_counter(), scheduler.get_last_lr()[0]
        train_loader.set_epoch(epoch)  # order, crops and flips are those that a run without a break would have
        train_loss, train_acc = train_epoch(model, train_loader, optimizer, place, f"Epoch: [{epoch}]", args.print_freq)
        seconds = time.perf_counter() - start
        test_loss, test_acc = training.evaluate(model, test_loader, place)
        scheduler.step()
        log.write(
            epoch=epoch, lr=lr, train_loss=train_loss, train_acc=train_acc, test_loss=test_loss, test_acc=test_acc,
            images_per_second=len(train_set) / seconds, data=name,
        )  # fmt: skip
        info = {"recipe": recipe, "data": identity, "normalize": preset, "classes": test_set.classes}
        info["history"] = log.records
        checkpoint.save(folder / "last.safetensors", model, optimizer, scheduler, info)
        plots.curves(log.records, folder / "curves.png", f"{args.arch} on {name}, seed {args.seed}")
        best = max(record["test_acc"] for record in log.records)
        print(
            f"Test: Acc@1 {test_acc:.2f} loss {test_loss:.4f}"
            f" (train {train_acc:.2f} {train_loss:.4f}, best test {best:.2f})",
            flush=True,
        )
    print(f"Wrote last.safetensors, log.jsonl and curves.png to {folder} ({environment.peak_memory(place)})")


def train_epoch(model, loader, optimizer, place: str, title: str, print_freq: int) -> tuple[float, float]:
    """One pass over the training images: mean loss and accuracy in percent."""
    loss, right = training.Average(), training.Average()
    start = time.perf_counter()

    def status() -> str:  # a GPU works ahead of this program: only what is shown waits for it
        training.check_finite(loss)
        speed = loss.count / (time.perf_counter() - start)
        rate = optimizer.param_groups[0]["lr"]
        shown = f"loss {loss.last:.4f} ({loss.mean:.4f})  acc1 {right.last:.2f} ({right.mean:.2f})"
        return f"lr {rate:.4g}  img/s {speed:.1f}  {shown}"

    with training.Progress(title, len(loader), print_freq) as progress:
        for images, labels in loader:
            images, labels = images.to(place), labels.to(place)
            logits = model(images)
            batch_loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
            loss.add(batch_loss, len(images))
            right.add(training.accuracy(logits, labels), len(images))
            progress.step(status)
    training.check_finite(loss)
    return loss.mean, right.mean


def load(resume: str, recipe: dict, identity: dict) -> checkpoint.Checkpoint:
    """The checkpoint to go on from. Raises CheckpointError if it belongs to another model, recipe or data set."""
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
    changed = [f"--{n.replace('_', '-')} was {theirs.get(n)}, is {v}" for n, v in recipe.items() if theirs.get(n) != v]
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
