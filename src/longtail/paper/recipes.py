"""The recipes of Cui et al. (CVPR 2019): long-tailed CIFAR, and large ResNets on iNaturalist and ImageNet."""

from __future__ import annotations

from typing import Any

from longtail.datasets.images import INATURALIST_MEAN, INATURALIST_STD
from longtail.extend import choice
from longtail.training.recipes import RESNETS, ImageRecipe, Recipe

LARGE = ("inaturalist2017", "inaturalist2018", "ilsvrc2012")


def paper_cifar(
    dataset: str = "cifar10",
    imbalance_factor: float | None = 100.0,
    loss: str = "softmax",
    *,
    scheme: str = "effective",
    beta: float = 0.9999,
    gamma: float = 1.0,
    **changes: object,
) -> Recipe:
    """Return the recipe of the paper's Table 2 (Cui et al., CVPR 2019, section 5.1).

    ResNet-32, 200 epochs of batches of 128, SGD with momentum 0.9 and weight decay 2e-4, learning rate 0.1
    after 5 epochs of linear warm-up and times 0.01 at epochs 160 and 180, pad-crop-flip, loss averaged over
    samples; for sigmoid and focal the last bias starts at the class prior and is not decayed.

    Args:
        dataset: "cifar10", "cifar20" or "cifar100".
        imbalance_factor: largest over smallest class; the paper has 200, 100, 50, 20, 10 and 1.
        loss: "softmax", "sigmoid" or "focal".
        scheme: "effective" for the class-balanced loss, "none" for the plain one.
        beta: 0.9, 0.99, 0.999 or 0.9999 in the paper.
        gamma: the focal loss's exponent; 0.5, 1 or 2 in the paper.
        **changes: any other fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset="cifar10",
        model="resnet32",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=2e-4,
        schedule="step",
        warmup_epochs=5,
        milestones=(160, 180),
        decay_factor=0.01,
        epochs=200,
        batch_size=128,
        augmentation="crop_flip",
        eval_every=10,
    )
    method = {"loss": loss, "scheme": scheme, "beta": beta, "gamma": gamma}
    return start.replace(**{"dataset": dataset, "imbalance_factor": imbalance_factor, **method, **changes})


def paper_large(
    dataset: str = "inaturalist2018",
    network: str = "resnet50",
    size: int = 224,
    loss: str = "softmax",
    **changes: Any,
) -> ImageRecipe:
    """Return the recipe of the paper's Table 3 (Cui et al., CVPR 2019, section 5.3).

    The schedule of Goyal et al. (2017): 90 epochs of batches of 1024, SGD with momentum 0.9 and weight decay
    1e-4, 5 epochs of warm-up, a tenth of the rate at epochs 30, 60 and 80. The rate is 0.1 per 256 samples
    for softmax; for focal 0.2 on ILSVRC 2012 and 0.4 on iNaturalist. Focal is class-balanced with beta 0.999
    and gamma 0.5; softmax is plain.

    Args:
        dataset: "inaturalist2017", "inaturalist2018" or "ilsvrc2012".
        network: "resnet50", "resnet101" or "resnet152".
        size: 224 or 320.
        loss: "softmax" or "focal".
        **changes: any other fields of `ImageRecipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`, or a setting that the table does not have.
    """
    choice("dataset", dataset, LARGE)
    choice("network", network, RESNETS)
    choice("loss", loss, ("softmax", "focal"))
    natural = dataset != "ilsvrc2012"
    rate = 0.1 if loss == "softmax" else 0.4 if natural else 0.2  # per 256 samples
    given: dict[str, Any] = {
        "loss": loss,
        "scheme": "none" if loss == "softmax" else "effective",
        "beta": 0.999,
        "gamma": 0.5,
        "learning_rate": 4 * rate,
        "weight_decay": 1e-4,
        "schedule": "step",
        "warmup_epochs": 5,
        "milestones": (30, 60, 80),
        "epochs": 90,
        "batch_size": 1024,
        "augmentation": "crop_flip",
        "size": size,
    }
    if natural:
        given |= {"mean": INATURALIST_MEAN, "std": INATURALIST_STD}
    return ImageRecipe(dataset=dataset, model=network, **{**given, **changes})
