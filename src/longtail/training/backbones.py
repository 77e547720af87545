"""Pretrained networks of the transformers library without their heads: what makes features."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from longtail import _checks
from longtail.datasets.decoding import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, upright
from longtail.models.image_classifiers import quiet, transformers_library

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["POOLINGS", "ImageBackbone", "TextBackbone", "image_backbone", "quiet", "text_backbone"]

POOLINGS: Final = ("auto", "pooler", "mean", "first")
_READ: Final = ("*.safetensors", "*.safetensors.index.json", "*.json")
_VOCABULARY: Final = ("vocab.txt", "merges.txt", "*.model")  # of tokenizers that older versions wrote
_PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
# tensors that a model may lack without giving other features
_SPARE: Final = re.compile(r"mask_token|position_ids|relative_position_index|num_batches_tracked")


@dataclass(frozen=True, eq=False)
class ImageBackbone:
    """A network that takes images to vectors.

    Attributes:
        name: as it was given.
        model: in evaluation mode.
        processor: of the transformers library, or an `EvalTransform`.
        side: pixels of a side that the processor wants, as far as it says; 0 otherwise.
        pooling: how its output becomes a vector, in words.
        digest: sha256 of its files and of how images are prepared.
    """

    name: str
    model: Any
    processor: Any
    side: int
    pooling: str
    digest: str

    def prepare(self, image: Image) -> npt.NDArray[np.float32]:
        """Return float32 (3, H, W) of an image that was just opened; a large JPEG is not decoded in full."""
        if isinstance(self.processor, EvalTransform):
            square: npt.NDArray[np.float32] = self.processor(image)
            return square
        whole = upright(image, self.side)
        pixels = np.asarray(self.processor(images=whole, return_tensors="np")["pixel_values"], np.float32)
        if pixels.ndim != 4:
            raise ValueError(
                f"model {self.name!r} takes images in parts, of shape {pixels.shape[1:]}; give another model"
            )
        one: npt.NDArray[np.float32] = pixels[0]
        return one

    def features(self, batch: Sequence[npt.NDArray[np.float32]], device: torch.device) -> Tensor:
        """Return float32 features (N, D) of prepared images."""
        if len({pixels.shape for pixels in batch}) > 1:
            raise ValueError(
                f"model {self.name!r} prepares images in different shapes; give size=, which makes them alike"
            )
        pixels = torch.from_numpy(np.stack(batch)).to(device)
        if device.type == "cpu":  # convolutions are a fifth faster so
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return _pooled(self.model, {"pixel_values": pixels}, self.pooling)


def image_backbone(name: str, *, pooling: str = "auto", size: int | None = None) -> ImageBackbone:
    """Load an image model of the transformers library, with its image processor.

    Args:
        name: a folder that ``save_pretrained`` wrote, with weights as safetensors; or a name of the hub.
        pooling: "auto": image features where the model has text, too (CLIP, SigLIP); else its pooler's output
            where the weights have one; else the mean over tokens, or over places. "pooler", "mean" and
            "first" (the first token, CLS) ask for one.
        size: None prepares images as the model's processor does; else height and width, for
            `longtail.datasets.images.EvalTransform` with the processor's mean and standard deviation, or
            ImageNet's where there is none.

    Raises:
        ValueError: no such model, one without weights or with pickled weights only, none that takes images,
            none with an image processor, or one that cannot be pooled so.
        ModuleNotFoundError: transformers is not installed.
    """
    _checks.choice("pooling", pooling, POOLINGS)
    library = transformers_library()
    with quiet(library):
        folder = _folder(name)
        processor, side = _processor(library, name, folder, size)
        model, missing = _model(library, name, folder)
        sees = hasattr(model, "get_image_features")
        if not sees and getattr(model, "main_input_name", "") != "pixel_values":
            raise ValueError(f"model {name!r} ({type(model).__name__}) takes no images; give an image model")
        if missing and pooling == "pooler":
            raise ValueError(f"model {name!r} has no weights for its pooler; give pooling='mean' or 'first'")
        draft = ImageBackbone(name, model, processor, side, "", "")
        noise = np.random.default_rng(0).integers(0, 256, (max(side, 64), max(side, 64), 3), np.uint8)
        from PIL.Image import fromarray

        pixels = torch.from_numpy(draft.prepare(fromarray(noise))[None])
        try:
            with torch.inference_mode():
                how, features = _pooling(model, pixels, pooling, missing, name)
                again = _pooled(model, {"pixel_values": pixels}, how)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"model {name!r} ({type(model).__name__}) gives no features of an image of shape "
                f"{tuple(pixels.shape[1:])}: {_first_line(error)}; give another model or size"
            ) from error
    _check_same(features, again, name, model, "an image")
    digest = _digest(folder, how, size, library.__version__)
    return ImageBackbone(name, model, processor, side, how, digest)


@dataclass(frozen=True, eq=False)
class TextBackbone:
    """A network that takes text to vectors: the mean over its tokens.

    Attributes:
        name: as it was given.
        model: in evaluation mode.
        tokenizer: of the transformers library.
        longest: tokens after which a text is cut.
        digest: sha256 of its files and of how text is prepared.
    """

    name: str
    model: Any
    tokenizer: Any
    longest: int
    digest: str

    def features(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Return float32 features (N, D); what pads a batch does not count."""
        given = self.tokenizer(
            [*texts], padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        known = getattr(self.model.get_input_embeddings(), "num_embeddings", math.inf)
        if (most := int(given["input_ids"].max())) >= known:
            raise ValueError(
                f"the tokenizer of model {self.name!r} has a token {most}, and its network knows {known}; "
                "give model and tokenizer that belong together"
            )
        given = given.to(device)
        mask = given["attention_mask"].unsqueeze(-1)
        hidden = self.model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])[0].float()
        mean: Tensor = torch.where(mask > 0, hidden, 0.0).sum(1) / mask.sum(1).clamp(min=1)
        return mean


def text_backbone(name: str) -> TextBackbone:
    """Load a text encoder of the transformers library, with its tokenizer.

    Args:
        name: a folder that ``save_pretrained`` wrote, with weights as safetensors; or a name of the hub.

    Raises:
        ValueError: no such model, one without weights or with pickled weights only, none with a tokenizer,
            or none that encodes text.
        ModuleNotFoundError: transformers is not installed.
    """
    library = transformers_library()
    with quiet(library):
        folder = _folder(name, (*_READ, *_VOCABULARY))
        try:
            tokenizer = library.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # each kind of tokenizer raises its own
            raise ValueError(
                f"model {name!r} has no tokenizer ({_first_line(error)}); give a model of text, with the "
                "files of its tokenizer"
            ) from error
        # transformers makes an empty tokenizer where files are missing
        if len(tokenizer) <= len({*tokenizer.all_special_ids}):
            raise ValueError(
                f"model {name!r} has a tokenizer without words; give a model of text, with the files of its "
                "tokenizer"
            )
        model, _ = _model(library, name, folder)
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        longest = _longest(folder, tokenizer, model.config)
        backbone = TextBackbone(name, model, tokenizer, longest, "")
        try:
            with torch.inference_mode():
                texts = ["one", " ".join(["a longer text"] * longest)]  # as long as any that is let through
                features, again = (backbone.features(texts, torch.device("cpu")) for _ in range(2))
        except Exception as error:  # of the tokenizer or the network
            raise ValueError(
                f"model {name!r} ({type(model).__name__}) gives no features of text: {_first_line(error)}; "
                "give a text encoder"
            ) from error
    _check_same(features, again, name, model, "a text")
    digest = _digest(folder, "mean over tokens", longest, library.__version__, kinds=(*_READ, *_VOCABULARY))
    return TextBackbone(name, model, tokenizer, longest, digest)


def _longest(folder: Path, tokenizer: Any, config: Any) -> int:
    """Return how many tokens of a text a model reads: the least that its files say."""
    places = getattr(config, "max_position_embeddings", None) or 514
    wanted = [int(tokenizer.model_max_length), places - (2 if config.model_type.endswith("roberta") else 0)]
    told = folder / "sentence_bert_config.json"
    if told.is_file():
        said = _checks.parse_json(told.read_bytes(), str(told))
        if isinstance(said, dict) and isinstance(own := said.get("max_seq_length"), int):
            wanted.append(own)
    return min(wanted)


def _folder(name: str, wanted: Sequence[str] = _READ) -> Path:
    """Return the folder of a model, fetched from the hub if need be, without files that run code."""
    if not isinstance(name, str):
        raise TypeError(f"model must be a folder or a name of the hub, got {_checks.describe(name)}")
    folder = _checks.folder("model", name)
    if not folder.is_dir():
        if folder.exists() or name.startswith(("/", ".", "~")) or name.count("/") > 1 or not name:
            raise ValueError(f"model folder {name!r} is not there; check the path")
        import huggingface_hub

        try:
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=[*wanted]))
        except (OSError, ValueError, RuntimeError, huggingface_hub.errors.HfHubHTTPError) as error:
            raise ValueError(
                f"model {name!r} is no folder, and the Hugging Face hub did not give it "
                f"({_first_line(error)}); check the name and the connection, or give a folder"
            ) from error
    if not (folder / "config.json").is_file():
        raise ValueError(f"model {name!r} has no config.json; give a folder that save_pretrained() wrote")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for kind in _PICKLED for p in folder.glob(kind))
        if pickled:
            raise ValueError(
                f"model {name!r} has its weights only in {pickled[0]}, which runs code when it is read; load "
                "it where you trust it and save it again by save_pretrained(), which writes safetensors"
            )
        raise ValueError(
            f"model {name!r} has no weights (no .safetensors beside its config.json), and random ones make "
            "no features; give a trained model"
        )
    return folder


def _model(library: Any, name: str, folder: Path) -> tuple[Any, bool]:
    """Load a model, and say whether its pooler lacks weights."""
    try:
        model, found = library.AutoModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers and safetensors raise many kinds here
        raise ValueError(f"model {name!r} cannot be loaded: {_first_line(error)}; check its files") from error
    lost = sorted(key for key in found["missing_keys"] if not _SPARE.search(key))
    rest = [key for key in lost if "pooler" not in key and not key.startswith("head.")]
    rest += [str(key) for key in found.get("mismatched_keys", ())]
    if rest:
        raise ValueError(
            f"model {name!r} lacks {len(rest)} of its tensors, first {rest[0]}; random ones in their place "
            "make no features, so give a whole model"
        )
    if getattr(model.config, "mask_ratio", 0):
        model.config.mask_ratio = 0.0  # of masked autoencoders: features see the whole image
    return model.eval().requires_grad_(False), bool(lost)


def _processor(library: Any, name: str, folder: Path, size: int | None) -> tuple[Any, int]:
    if size is not None:
        _checks.integer("size", size, low=1)
    try:
        found = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RecursionError),
    ) as error:
        if size is not None:
            return EvalTransform(size, IMAGENET_MEAN, IMAGENET_STD), size
        raise ValueError(
            f"model {name!r} has no image processor ({_first_line(error)}); give size=, such as 224, which "
            "prepares images as networks trained on ImageNet expect them"
        ) from error
    if size is not None:
        mean, std = (
            tuple(getattr(found, what, None) or other)
            for what, other in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD))
        )
        if getattr(found, "do_normalize", True) is False:
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return EvalTransform(size, mean, std), size
    sides: list[int] = []
    for what in ("size", "crop_size"):
        wanted = getattr(found, what, None)
        values = wanted if isinstance(wanted, int) else [*dict(wanted or {}).values()]
        sides += [values] if isinstance(values, int) else [v for v in values if isinstance(v, int)]
    return found, max(sides, default=0) if getattr(found, "do_resize", False) else 0


def _check_same(features: Tensor, again: Tensor, name: str, model: object, what: str) -> None:
    if not torch.allclose(features, again, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(
            f"model {name!r} ({type(model).__name__}) draws random numbers, so that {what} has other "
            "features each time; give another model"
        )


def _pooling(model: Any, pixels: Tensor, asked: str, missing: bool, name: str) -> tuple[str, Tensor]:
    """Say how a model's output becomes a vector, and return that of these pixels."""
    given = {"pixel_values": pixels}
    if asked == "auto" and hasattr(model, "get_image_features"):
        return "image features", _pooled(model, given, "image features")
    output = _output(model, given)
    how = _way(output, asked, missing, name)
    return how, _vector(output, how)


def _way(output: Any, asked: str, missing: bool, name: str) -> str:
    pooler = getattr(output, "pooler_output", None)
    if asked == "pooler" or (asked == "auto" and pooler is not None and not missing):
        if pooler is None:
            raise ValueError(f"model {name!r} has no pooler; give pooling='mean'")
        return "pooler output"
    tokens = output.last_hidden_state.ndim == 3
    if asked == "first":
        if not tokens:
            raise ValueError(f"model {name!r} has no tokens to take the first of; give pooling='mean'")
        return "first token"
    return "mean over tokens" if tokens else "mean over places"


def _output(model: Any, given: dict[str, Tensor]) -> Any:
    vision = getattr(model, "vision_model", None)
    return (vision if hasattr(model, "get_image_features") and isinstance(vision, nn.Module) else model)(
        **given
    )


def _pooled(model: Any, given: dict[str, Tensor], how: str) -> Tensor:
    if how == "image features":
        found = model.get_image_features(**given)
        return _flat(found if isinstance(found, Tensor) else found.pooler_output)
    return _vector(_output(model, given), how)


def _vector(output: Any, how: str) -> Tensor:
    if how == "pooler output":
        return _flat(output.pooler_output)
    hidden = output.last_hidden_state
    if how == "first token":
        return _flat(hidden[:, 0])
    return _flat(hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3)))


def _flat(features: Tensor) -> Tensor:
    return features.float().flatten(1)


def _digest(folder: Path, *settings: object, kinds: Sequence[str] = _READ) -> str:
    """Hash all that decides the features: the files' content, not their names' place on this machine."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in sorted({path for kind in kinds for path in folder.glob(kind)}):
        with path.open("rb") as file:
            digest.update(f"\n{path.name} ".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
