"""Train a small residual net on 1,797 real handwritten digits, which come with minires: less than a minute on a CPU.

python examples/train_digits.py            # then look into runs/digits-...
"""

import argparse
import sys

import numpy as np

from minires import checkpoint, data, environment, kernels, models, no_grad, optim, plots, training
from minires.nn import functional as F

PRESET = data.NORMALIZATION["digits"]


def arguments() -> argparse.Namespace:
    parser = training.ArgumentParser(__doc__)
    parser.add_argument(
        "--epochs",
        type=training.positive,
        default=30,
        help="passes over the 1,437 training images (default %(default)s)",
    )
    parser.add_argument(
        "-b", "--batch-size", type=training.positive, default=64, help="images in a step (default %(default)s)"
    )
    parser.add_argument("--lr", type=float, default=0.1, help="the first learning rate (default %(default)s)")
    parser.add_argument(
        "--seed", type=training.natural, default=0, help="of initial weights, order and crops (default %(default)s)"
    )
    parser.add_argument("--output-dir", help="folder of the run (default: runs/digits-<date>)")
    training.add_kernel_options(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    training.set_kernel_options(args)
    normalize = data.Normalize(*PRESET)
    augment = data.Compose([data.RandomCrop(8, padding=1, seed=args.seed), normalize])
    train_set, test_set = data.Digits(train=True, transform=augment), data.Digits(train=False, transform=normalize)
    train_loader = data.DataLoader(train_set, args.batch_size, shuffle=True, seed=args.seed)
    test_loader = data.DataLoader(test_set, 360)

    generator = np.random.default_rng(args.seed)
    model = models.ResNet((1, 1, 1), 10, widths=(16, 32, 64), in_channels=1, generator=generator)
    optimizer = optim.SGD(model.parameters(), args.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    milestones = [max(1, args.epochs * 6 // 10), max(1, args.epochs * 17 // 20)]
    scheduler = optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)

    weights = sum(p.numel() for p in model.parameters())
    print(environment.header(f"digits, residual net of {weights:,} parameters", f"seed {args.seed}", kernels.setting()))
    folder = training.new_run_folder("digits", args.output_dir)
    log = training.RunLog(folder / "log.jsonl")
    for epoch in range(1, args.epochs + 1):
        loss, right = training.Average(), training.Average()
        for images, labels in train_loader:
            logits = model(images)
            batch_loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
            loss.add(batch_loss, len(images))
            right.add(training.accuracy(logits, labels), len(images))
        test_loss, test_acc = training.evaluate(model, test_loader)
        lr = scheduler.get_last_lr()[0]
        scheduler.step()
        log.write(
            epoch=epoch, lr=lr, train_loss=loss.mean, train_acc=right.mean, test_loss=test_loss, test_acc=test_acc
        )
        print(
            f"Epoch: [{epoch}/{args.epochs}]  lr {lr:.4g}  train loss {loss.mean:.4f} acc {right.mean:.2f}"
            f"  test loss {test_loss:.4f} acc {test_acc:.2f}",
            flush=True,
        )

    info = {"data": train_set.name, "normalize": PRESET, "classes": test_set.classes, "history": log.records}
    checkpoint.save(folder / "last.safetensors", model, optimizer, scheduler, info)
    plots.curves(log.records, folder / "curves.png", f"Digits, residual net, seed {args.seed}")
    show_hardest(model, test_set, folder / "predictions.png")
    wrong = round(len(test_set) * (1 - test_acc / 100))
    print(f"Test: Acc@1 {test_acc:.2f} loss {test_loss:.4f} ({wrong} of {len(test_set)} wrong)")
    print(
        f"Wrote last.safetensors, log.jsonl, curves.png and predictions.png to {folder} ({environment.peak_memory()})"
    )


def show_hardest(model, test_set, path) -> None:
    """Draw the 32 test digits whose true class got the least probability."""
    model.eval()
    with no_grad():
        images, labels = test_set.batch(np.arange(len(test_set)), epoch=0)
        probabilities = F.softmax(model(images), dim=1).numpy()
    hardest = np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")[:32]
    plots.predictions(
        test_set.images[hardest] / PRESET.scale, labels[hardest], probabilities[hardest], test_set.classes, path,
        "The 32 hardest of 360 test digits",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(training.exit_code(main))
