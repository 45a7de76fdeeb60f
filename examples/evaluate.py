"""Measure a trained net: accuracy and loss on CIFAR-10, CIFAR-100 or images in a .npz file.

    python examples/evaluate.py runs/resnet18-cifar10-.../last.safetensors --data-path DATA
    python examples/evaluate.py resnet20-12fca82f.th --arch resnet20 --normalization imagenet --data-path DATA

A checkpoint of train_cifar10.py says itself which net it holds and how its images were normalized. Of weights from
elsewhere, in any format that minires.weights reads, --arch and --normalization must say so: a net wants the mean and
the std that it was trained with.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from minires import Tensor, checkpoint, data, device, environment, kernels, models, recipes, training, weights
from minires.errors import ArgumentError, CheckpointError
from minires.nn import Module

DATASETS = {"cifar10": data.CIFAR10, "cifar100": data.CIFAR100}
OF_A_NET = ["shortcut", "stem", "num_classes"]


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    add = parser.add_argument
    add("weights", help="a checkpoint of train_cifar10.py, or with --arch weights from elsewhere")
    add("-a", "--arch", help=f"the net of weights from elsewhere: {', '.join(models.BUILDERS)}")
    add("--shortcut", choices=models.SHORTCUTS, help="its shortcuts where the size changes (default: the net's)")
    add("--stem", choices=["cifar", "imagenet"], help="its first layers (default: cifar)")
    presets = [name for name, preset in data.NORMALIZATION.items() if len(preset.mean) == 3]
    add("--normalization", choices=presets, help="mean and std that it was trained with")
    add("-d", "--dataset", choices=DATASETS, help="whose images (default: the checkpoint's, or cifar10)")
    add(
        "--data-path",
        default=os.environ.get("MINIRES_DATA", "data"),
        help="the data set's archive or folder, or where they are (default: $MINIRES_DATA or data)",
    )
    add(
        "--npz",
        metavar="FILE",
        help="images and labels of a .npz file instead: test_images and test_labels, see --split",
    )
    add("--layout", choices=["NHWC", "NCHW"], default="NHWC", help="the axes of its images (default %(default)s)")
    add("--num-classes", type=training.positive, help="classes of the net, where --npz does not hold all of them")
    add(
        "--split",
        choices=["test", "train", ""],
        default="test",
        help='"": images, labels of --npz (default %(default)s)',
    )
    add("--limit-test", type=training.positive, metavar="N", help="the first N images only")
    add("-b", "--batch-size", type=training.positive, default=100, help="images at once (default %(default)s)")
    add("-j", "--workers", type=training.natural, default=1, help="threads that prepare batches (default %(default)s)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default %(default)s)")
    training.add_kernel_options(parser)
    args = parser.parse_args()
    if not args.split and not args.npz:
        raise ArgumentError('--split "" is for --npz: a data set has test and train')
    if args.num_classes and not args.npz:
        raise ArgumentError("--num-classes is for --npz: a data set says itself how many there are")
    settings = [f"--{name.replace('_', '-')}" for name in OF_A_NET if vars(args)[name] is not None]
    if settings and not args.arch:
        raise ArgumentError(f"{', '.join(settings)}: for weights from elsewhere, with --arch; a checkpoint says it")
    return args


def main() -> None:
    args = arguments()
    training.set_kernel_options(args)
    place = device.use(args.device)
    if args.arch:
        if not args.normalization:
            raise ArgumentError("--arch: also say by --normalization with which mean and std the net was trained")
        recipe, preset = vars(args), data.NORMALIZATION[args.normalization]
    else:
        model, saved = trained(args.weights)
        recipe, preset = saved.info["recipe"], saved.info["normalize"]
        if args.normalization:
            preset = data.NORMALIZATION[args.normalization]
    normalize = data.Normalize(*preset)
    if args.npz:
        classes = args.num_classes and [str(number) for number in range(args.num_classes)]
        images = data.NpzDataset(args.npz, args.split, normalize, layout=args.layout, classes=classes)
    else:
        dataset = DATASETS[args.dataset or recipe["dataset"] or "cifar10"]
        images = dataset(args.data_path, train=args.split == "train", transform=normalize)
    if args.arch:
        model = recipes.build(recipe, len(images.classes))
        weights.load(args.weights, model)
    model.to(place)
    images = images.take(args.limit_test).to(place)
    batches = data.DataLoader(images, args.batch_size, num_workers=args.workers)

    count = sum(p.numel() for p in model.parameters())
    parts = [f"device {device.describe(place)}", f"{recipe['arch']} {count / 1e6:.2f}M params"]
    print(environment.header(*parts, kernels.setting(place), f"data {images.name}"))
    mean, std = (" ".join(map(str, values)) for values in preset[:2])
    place_of_data = args.npz or args.data_path
    print(f"{len(images):,} images of {images.name} from {place_of_data}, normalized by mean {mean}, std {std}")
    top = (1, 5) if len(images.classes) > 5 else (1,)
    loss, *accuracies = training.evaluate(model, with_progress(batches), place, top)
    shown = " ".join(f"Acc@{k} {accuracy:.2f}" for k, accuracy in zip(top, accuracies, strict=True))
    right = round(accuracies[0] * len(images) / 100)
    print(f"{args.split.title() or 'All'}: {shown} loss {loss:.4f} ({right:,} of {len(images):,} right)")


def trained(path: str) -> tuple[Module, checkpoint.Checkpoint]:
    """The net of a checkpoint, and the checkpoint. CheckpointError says what weights from elsewhere want."""
    try:
        return recipes.restore(path)
    except CheckpointError as error:
        if not Path(path).is_file():
            raise
        ours = Path(path).suffix == ".safetensors"  # as of all checkpoints
        what = error if ours else f"{path} is no checkpoint of train_cifar10.py"
        raise CheckpointError(f"{what}; weights from elsewhere want the name of their net: --arch") from error


def with_progress(batches: data.DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, with a bar on a terminal."""
    if not sys.stdout.isatty():
        yield from batches
        return
    with training.Progress("Evaluating", len(batches)) as progress:
        for batch in batches:
            yield batch
            progress.step(lambda: "")


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
