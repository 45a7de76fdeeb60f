"""Draw 32 CIFAR test pictures with what a trained model takes them for: green if right, red if wrong.

python examples/show_predictions.py runs/resnet18-cifar10-.../last.safetensors --data-path DATA
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from minires import data, no_grad, plots, recipes, training
from minires.errors import ArgumentError
from minires.nn import functional as F


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="a last.safetensors of train_cifar10.py")
    parser.add_argument(
        "--data-path",
        default=os.environ.get("MINIRES_DATA", "data"),
        help="the data set's archive or folder, or where they are (default: $MINIRES_DATA or data)",
    )
    parser.add_argument(
        "--first", type=training.natural, default=0, help="number of the first test picture (default %(default)s)"
    )
    parser.add_argument("--count", type=training.positive, default=32, help="how many pictures (default %(default)s)")
    parser.add_argument(
        "--output", type=Path, help="file of the picture (default: predictions.png beside the checkpoint)"
    )
    training.add_kernel_options(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    training.set_kernel_options(args)
    model, saved = recipes.restore(args.checkpoint)
    model.eval()
    recipe, classes = saved.info["recipe"], saved.info["classes"]

    dataset = {"cifar10": data.CIFAR10, "cifar100": data.CIFAR100}[recipe["dataset"]]
    normalize, trained_on = data.Normalize(*saved.info["normalize"]), saved.info["data"]
    test_set = dataset(args.data_path, train=False, transform=normalize)
    if trained_on["test"] != test_set.fingerprint:
        print(f"Warning: trained on {trained_on['name']}; these are other test pictures: {test_set.name}")
    if not 0 <= args.first < args.first + args.count <= len(test_set):
        raise ArgumentError(
            f"--first {args.first} --count {args.count}: there are {len(test_set)} test pictures, counted from 0"
        )
    index = np.arange(args.first, args.first + args.count)
    images, labels = test_set.batch(index, epoch=0)
    with no_grad():
        probabilities = F.softmax(model(images), dim=1).numpy()
    output = args.output or args.checkpoint.with_name("predictions.png")
    title = f"{recipe['arch']} after {len(saved.info['history'])} epochs on {test_set.name}"
    plots.predictions(test_set.images[index] / 255, labels, probabilities, classes, output, title)
    print(f"{int((probabilities.argmax(axis=1) == labels).sum())} of {args.count} right; wrote {output}")


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
