"""Long-tailed digits with and without class balancing: the readable twin of `longtail compare`.

    python examples/train_digits_lt.py [--epochs 60] [--seeds 3]

Public names only; one loop, nothing hidden.
"""

import argparse

import torch
from torch import nn

import longtail


def build_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def to_tensors(split: longtail.datasets.Split) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(split.inputs).float() / 8 - 1, torch.from_numpy(split.targets)


def train(scheme: str, seed: int, epochs: int) -> longtail.Evaluation:
    data, _ = longtail.datasets.digits().long_tailed(50, seed=seed)
    counts = data.class_counts
    inputs, targets = to_tensors(data.train)

    torch.manual_seed(seed)
    model = build_model()
    longtail.init_prior_bias_(model[-1])
    criterion = longtail.ClassBalancedLoss(counts, loss="sigmoid", scheme=scheme, beta=0.99)
    optimizer = torch.optim.SGD(longtail.parameter_groups(model, weight_decay=5e-4), lr=0.02, momentum=0.9)

    for _ in range(epochs):
        for batch in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            criterion(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()

    test_inputs, test_targets = to_tensors(data.test)
    with torch.inference_mode():
        return longtail.evaluate(model(test_inputs), test_targets, counts, activation="sigmoid")


def main() -> None:
    parser = argparse.ArgumentParser(description="Long-tailed digits with and without class balancing.")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for scheme in ("none", "effective"):
        for seed in range(args.seeds):
            print(f"{scheme:<10} seed {seed}: {train(scheme, seed, args.epochs)}")


if __name__ == "__main__":
    main()
