"""Image classifiers of the transformers library: the paper's large ResNets, and whatever users have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch import nn

from longtail.head import Head, last_layer
from longtail.sources.counted import needs

__all__ = ["RESNETS", "build_classifier", "head_of", "transformers_library"]

RESNETS: Final = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def build_classifier(name: str, class_names: Sequence[str]) -> nn.Module:
    """Make an image classifier with one output a class.

    The ResNets are those of He et al. (CVPR 2016) with the stride in the 3x3 convolution, freshly drawn from
    torch's default generator; the last normalisation of every block starts at 0, so that the block starts as
    the identity (Goyal et al., 2017, section 5.1).

    Args:
        name: "resnet50", "resnet101" or "resnet152"; a folder with a model, or with a configuration alone,
            which is then freshly drawn; or a name of the Hugging Face hub. A head for other classes is
            replaced.
        class_names: one a class.

    Returns:
        A network that takes ``pixel_values`` of shape (N, 3, H, W) and returns an output with ``logits``.

    Raises:
        ValueError: no such model, or none that classifies images.
        ModuleNotFoundError: transformers is not installed.
    """
    library = transformers_library()
    labels = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: i for i, name in enumerate(class_names)},
    }
    if name in RESNETS:
        config = library.ResNetConfig(
            depths=[*RESNETS[name]], hidden_sizes=[256, 512, 1024, 2048], layer_type="bottleneck", **labels
        )
        return _start_as_identity(library.ResNetForImageClassification(config))
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"model folder {name} has no config.json; give one that save_pretrained() wrote")
    try:
        if folder.is_dir() and not any(found for kind in _WEIGHTS for found in folder.glob(kind)):
            config = library.AutoConfig.from_pretrained(name, **labels)
            model: nn.Module = library.AutoModelForImageClassification.from_config(config)
        else:
            model = library.AutoModelForImageClassification.from_pretrained(
                name, ignore_mismatched_sizes=True, **labels
            )
    except OSError as error:
        raise ValueError(
            f"model {name!r} is no folder with a model, and the Hugging Face hub did not give it "
            f"({_first_line(error)}); check the name and the connection, or give a folder, or one of "
            f"{', '.join(RESNETS)}"
        ) from error
    except (ValueError, KeyError) as error:
        raise ValueError(f"model {name!r} is no image classifier: {_first_line(error)}") from error
    return model


def head_of(model: nn.Module) -> Head:
    """Return the last linear or convolutional layer, whose outputs are the classes.

    Raises:
        ValueError: there is none.
    """
    head = last_layer(model)
    if head is None:
        raise ValueError(f"model {type(model).__name__} has no Linear or Conv layer, so no head; add one")
    return head


def transformers_library() -> Any:
    """Import transformers, or say how to get it."""
    return needs("transformers", "image classifiers need", "images")


def _start_as_identity(model: nn.Module) -> nn.Module:
    for block in model.modules():
        layer = getattr(block, "layer", None)
        if type(block).__name__ == "ResNetBottleNeckLayer" and isinstance(layer, nn.Module):
            last = [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)][-1]
            nn.init.zeros_(last.weight)
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
