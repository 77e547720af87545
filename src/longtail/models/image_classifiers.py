"""Image classifiers of the transformers library: the paper's large ResNets, and whatever users have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from torch import nn

from longtail.head import Head, last_layer
from longtail.sources.counted import needs

__all__ = ["RESNETS", "build_classifier", "head_of", "read_classifier", "transformers_library"]

RESNETS: Final = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_PROBLEMS: Final = {
    "missing_keys": "lacks",
    "mismatched_keys": "has another shape for",
    "unexpected_keys": "has what the network does not:",
    "error_msgs": "cannot be loaded:",
}


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
    labels = _labels(class_names)
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
            config = library.AutoConfig.from_pretrained(name, trust_remote_code=False, **labels)
            model: nn.Module = library.AutoModelForImageClassification.from_config(
                config, trust_remote_code=False
            )
        else:
            model = library.AutoModelForImageClassification.from_pretrained(
                name, ignore_mismatched_sizes=True, trust_remote_code=False, **labels
            )
    except OSError as error:
        raise ValueError(
            f"model {name!r} is no folder with a model, and the Hugging Face hub did not give it "
            f"({_first_line(error)}); check the name and the connection, or give a folder, or one of "
            f"{', '.join(RESNETS)}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"model {name!r} is no image classifier: {_first_line(error)}"
            "; give one that AutoModelForImageClassification loads"
        ) from error
    return model


def read_classifier(folder: Path, class_names: Sequence[str]) -> nn.Module:
    """Read an image classifier back that ``save_pretrained`` wrote; nothing of it is drawn anew.

    No code of the folder is run, and nothing is fetched.

    Args:
        folder: with config.json and the weights as safetensors.
        class_names: one a class.

    Raises:
        ValueError: the weights are missing, or are not those of the network that config.json describes.
        ModuleNotFoundError: transformers is not installed.
    """
    library = transformers_library()
    if not any(found for kind in _WEIGHTS if "safetensors" in kind for found in folder.glob(kind)):
        raise ValueError("model.safetensors is missing")
    model: nn.Module
    with quiet(library):
        model, found = library.AutoModelForImageClassification.from_pretrained(
            str(folder),
            **_labels(class_names),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    for problem, words in _PROBLEMS.items():
        if names := sorted(str(x[0] if isinstance(x, tuple) else x) for x in found.get(problem, ())):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"model.safetensors {words} {names[0]!r}{more}")
    outputs = head_of(model).weight.shape[0]
    if outputs != len(class_names):
        raise ValueError(f"config.json has {outputs} classes, and the run {len(class_names)}")
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


def _labels(class_names: Sequence[str]) -> dict[str, dict[Any, Any]]:
    return {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: i for i, name in enumerate(class_names)},
    }


@contextlib.contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Silence the library's bar and its report on a file: what is wrong is said in one line here."""
    logging = library.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _start_as_identity(model: nn.Module) -> nn.Module:
    for block in model.modules():
        layer = getattr(block, "layer", None)
        if type(block).__name__ == "ResNetBottleNeckLayer" and isinstance(layer, nn.Module):
            last = [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)][-1]
            nn.init.zeros_(last.weight)
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
