"""Long-tailed CIFAR as the paper trains it: the readable twin of `longtail reproduce table2`.

    python examples/train_cifar_lt.py --data FOLDER [--loss focal] [--beta 0.9999] [--imbalance 100]

Public names only; one loop, nothing hidden. It trains what `longtail.recipes.paper_cifar` describes, with
random numbers of its own, so its error agrees with the fast loop's within the spread over seeds. Two hundred
epochs take hours on a CPU; `--epochs 2` shows that it runs.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

import longtail
from longtail import models


def augment(images: Tensor) -> Tensor:
    """Move each image by up to four pixels, zeros around it, and mirror half of them."""
    n, _, height, width = images.shape
    top, left = torch.randint(0, 9, (2, n, 1, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)[:, None]
    columns = left + torch.arange(width, device=images.device)
    mirrored = torch.rand(n, 1, 1, device=images.device) < 0.5
    columns = torch.where(mirrored, columns.flip(2), columns)
    padded = pad(images, (4, 4, 4, 4)).permute(0, 2, 3, 1)
    samples = torch.arange(n, device=images.device)[:, None, None]
    return padded[samples, rows, columns].permute(0, 3, 1, 2)


def scale(images: Tensor) -> Tensor:
    """Take bytes to -1 .. 1, as the authors do."""
    return images.float() / 128 - 1


def learning_rate(epoch: float, epochs: int) -> float:
    """Rise in 5 of 200 epochs, then 0.1, and 0.01 times as much from 160 and again from 180."""
    share = 200 * epoch / epochs
    if share < 5:
        return 0.1 * share / 5
    return 0.1 * 0.01 ** ((share >= 160) + (share >= 180))


def batches(count: int, size: int, device: str) -> Iterator[Tensor]:
    """Yield shuffled indices."""
    yield from torch.randperm(count).to(device).split(size)


def train(args: argparse.Namespace) -> longtail.Evaluation:
    """Cut the tail, train, and evaluate the last epoch."""
    whole = longtail.datasets.load(args.dataset, args.data)
    data, _ = whole.long_tailed(args.imbalance, seed=args.seed)
    images = torch.from_numpy(data.train.inputs).to(args.device)
    targets = torch.from_numpy(data.train.targets).to(args.device)

    torch.manual_seed(args.seed)
    model = models.build("resnet32", in_channels=3, num_classes=data.num_classes).to(args.device)
    sigmoid = args.loss != "softmax"
    if sigmoid:
        longtail.init_prior_bias_(model.head)
    criterion = longtail.ClassBalancedLoss(
        data.class_counts, loss=args.loss, beta=args.beta, gamma=args.gamma
    ).to(args.device)
    exempt = "head" if sigmoid else "none"
    groups = longtail.parameter_groups(model, weight_decay=2e-4, no_decay=exempt)
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        for step, batch in enumerate(batches(len(targets), 128, args.device)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch + step * 128 / len(targets), args.epochs)
            optimizer.zero_grad()
            loss = criterion(model(scale(augment(images[batch]))), targets[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1}/{args.epochs}  loss {total / len(targets):.3f}", flush=True)

    model.eval()
    with torch.inference_mode():
        parts = torch.from_numpy(data.test.inputs).split(1000)
        logits = torch.cat([model(scale(part.to(args.device))).cpu() for part in parts])
    activation = "sigmoid" if sigmoid else "softmax"
    return longtail.evaluate(logits, data.test.targets, data.class_counts, activation=activation)


def main() -> None:
    """Read the options, train, print."""
    parser = argparse.ArgumentParser(description="Long-tailed CIFAR as the paper trains it.")
    parser.add_argument("--data", help="folder with the data; default $LONGTAIL_DATA")
    parser.add_argument("--dataset", default="cifar10", choices=("cifar10", "cifar20", "cifar100"))
    parser.add_argument("--imbalance", type=float, default=100.0)
    parser.add_argument("--loss", default="softmax", choices=("softmax", "sigmoid", "focal"))
    parser.add_argument("--beta", type=float, default=0.9999, help="0 is the plain loss")
    parser.add_argument("--gamma", type=float, default=1.0, help="of the focal loss")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    print(train(parser.parse_args()))


if __name__ == "__main__":
    main()
