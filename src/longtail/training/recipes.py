"""Recipes to start from: functions that return one, with any of its fields changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longtail import _checks
from longtail._registry import added
from longtail.methods import get
from longtail.training.recipe import ImageRecipe, Recipe, learning_rate_at
from longtail.training.registries import DEFAULTS

__all__ = [
    "RESNETS",
    "ImageRecipe",
    "Recipe",
    "default",
    "digits",
    "fast_cifar",
    "gtsrb",
    "images",
    "learning_rate_at",
    "small_images",
]

RESNETS = ("resnet50", "resnet101", "resnet152")  # from scratch


def digits(**changes: object) -> Recipe:
    """Return the recipe for long-tailed 8x8 digits: about a second on one CPU core.

    Its beta of 0.99 (N = 100) is of the order of the largest class, 124 samples, beyond which effective
    numbers and inverse frequencies say the same; it is not the winner of a search.

    Args:
        **changes: any fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset="digits",
        imbalance_factor=50.0,
        input_scale=8.0,
        model="small_cnn",
        beta=0.99,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=5,
        epochs=100,
        batch_size=64,
        augmentation="shift",
        eval_every=10,
    )
    return start.replace(**changes)


def default(dataset: str) -> Recipe:
    """Return the recipe of a data set by name.

    Raises:
        ValueError: a data set without a recipe.
    """
    recipe: Recipe = DEFAULTS[dataset]()
    return recipe


def fast_cifar(dataset: str = "cifar10", imbalance_factor: float | None = 100.0, **changes: object) -> Recipe:
    """Return a recipe for long-tailed CIFAR that a GPU trains in seconds; no GPU has run it yet.

    `longtail.models.FastCNN`, 20 epochs of batches of 128: at imbalance 100 about 250,000 passes of 33
    million multiplications, a twentieth of the arithmetic of Table 2's recipe. Logit adjustment in the loss.
    Its errors are not those of ResNet-32: compare methods with it, not with published figures.

    Args:
        dataset: "cifar10", "cifar20" or "cifar100".
        imbalance_factor: largest over smallest class; None trains on all images.
        **changes: any other fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset=dataset,
        imbalance_factor=imbalance_factor,
        model="fast_cnn",
        method=get("logit_adjusted"),
        learning_rate=0.2,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=2,
        epochs=20,
        batch_size=128,
        augmentation="crop_flip",
        eval_every=20,
    )
    return start.replace(**changes)


def gtsrb(**changes: object) -> Recipe:
    """Return the recipe for traffic signs of 32x32 pixels: a minute or two on one CPU core.

    Images are moved, never mirrored: a sign that is mirrored is another sign. The network was chosen on
    tracks held out of the training set; beta was not chosen by any result: 0.99 is N = 100, of the order of
    the smallest class.

    Args:
        **changes: any fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    return small_images("gtsrb", **{"epochs": 8, "eval_every": 8, **changes})


def small_images(dataset: str, **changes: object) -> Recipe:
    """Return a recipe for a folder of pictures brought to 32x32 pixels, for a first look on a CPU.

    Args:
        dataset: the name of the data set that `longtail.datasets.images.in_memory` made.
        **changes: any other fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset=dataset,
        model="strided_cnn",
        beta=0.99,
        gamma=0.5,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        warmup_epochs=1,
        epochs=30,
        batch_size=64,
        augmentation="shift",
        eval_every=10,
    )
    return start.replace(**changes)


def images(dataset: str, model: str = "resnet50", **changes: Any) -> ImageRecipe:
    """Return a recipe for your own images: a start, not the winner of a search.

    SGD with a cosine after a warm-up, 30 epochs of batches of 64. The learning rate follows the batch: 0.1
    per 256 samples for "resnet50" and its like (Goyal et al., 2017), a tenth of it for all other models,
    which mostly come with weights. Mean and standard deviation are those of the model's own image processor,
    or of the run that trained it; ImageNet's where there is neither.

    With ``lora=True`` or ``freeze_backbone=True`` little of the network is trained, as Shi et al. (ICML 2024,
    LIFT) do it: the head gives cosines times 25 and starts at the class means, 10 epochs, a learning rate of
    0.01 and a weight decay of 5e-4 for 128 samples a batch, and images prepared as the model's image
    processor says. A loss that needs a bias (sigmoid, focal) keeps its linear head.

    Args:
        dataset: what to call the data in tables; `longtail.training.finetune` is given where they are.
        model: as in `ImageRecipe`.
        **changes: any other fields of `ImageRecipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start: dict[str, Any] = {
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup_epochs": 3,
        "epochs": 30,
        "batch_size": 64,
        "augmentation": "crop_flip",
    }
    frozen = bool(changes.get("lora") or changes.get("freeze_backbone"))
    if frozen:
        start |= {"weight_decay": 5e-4, "warmup_epochs": 1, "epochs": 10}
    if not {"mean", "std"} <= changes.keys() or (frozen and "size" not in changes):
        told = _processor_of(model)
        changes = {name: value for name, value in told.items() if frozen or name != "size"} | changes
    recipe = ImageRecipe(dataset=dataset, model=model, **start)
    if "epochs" in changes:
        recipe = recipe.with_epochs(changes["epochs"])
    late = {name: changes.pop(name) for name in ("head_start",) if frozen and name in changes}
    recipe = recipe.replace(**changes)
    method = recipe.method
    if frozen and not method.cosine and not method.uses_prior_bias and method.refit is None:
        late = {"method": method.replace(cosine=25.0), "head_start": "class_means"} | late
    if late:
        recipe = recipe.replace(**late)
    if "learning_rate" in changes:
        return recipe
    base = 0.1 if model in RESNETS else 0.02 if frozen else 0.01
    return recipe.replace(learning_rate=base * recipe.batch_size / 256)


def _processor_of(model: str) -> dict[str, Any]:
    """Return mean, std and size of a model's image processor, or of the run that left it; nothing without."""
    path = Path(model) / "preprocessor_config.json"
    if not path.is_file() and (recipe := path.with_name("recipe.json")).is_file():
        path = recipe
    if not Path(model).is_dir():
        if model in RESNETS:
            return {}
        import huggingface_hub

        try:
            path = Path(huggingface_hub.hf_hub_download(model, path.name))
        except huggingface_hub.errors.EntryNotFoundError as error:
            if isinstance(error, huggingface_hub.errors.LocalEntryNotFoundError):
                raise _not_given(model, error) from error
            return {}
        except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
            raise _not_given(model, error) from error
    if not path.is_file():
        return {}
    told = _checks.parse_json(path.read_bytes(), str(path))
    if not isinstance(told, dict):
        return {}
    found: dict[str, object] = {}
    for name, key in (("mean", "image_mean"), ("std", "image_std")):
        if isinstance(value := told.get(key, told.get(name)), list) and len(value) == 3:
            found[name] = tuple(map(float, value))
    if told.get("do_normalize") is False:
        found |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    wanted = (told.get("crop_size") if told.get("do_center_crop") else None) or told.get("size")
    if isinstance(wanted, dict):
        wanted = wanted.get("height", wanted.get("shortest_edge"))
    return found | ({"size": wanted} if isinstance(wanted, int) else {})


def _not_given(model: str, error: Exception) -> ValueError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ValueError(
        f"model {model!r} is no folder with a model, and the Hugging Face hub did not give it ({why}); "
        f"check the name and the connection, or give a folder, or one of {', '.join(RESNETS)}"
    )


def __getattr__(name: str) -> Any:
    return added(__name__, name)
