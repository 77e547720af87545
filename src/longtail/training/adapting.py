"""Little of a large network: frozen weights, adapters, a cosine head that starts at the class means.

What Shi et al. (ICML 2024, LIFT) found to be best for rare classes: train well under a hundredth of the
parameters, with a logit-adjusted loss. Their adapters are AdaptFormer's; these are LoRA's (Hu et al., ICLR
2022), which are merged into the weights at the end, so that the finished model needs no library of adapters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from longtail.models.cosine import CosineLinear
from longtail.models.image_classifiers import head_of
from longtail.sources.counted import needs

__all__ = [
    "as_plain_linear",
    "head_inputs",
    "merge_adapters",
    "start_at_class_means",
    "trained_share",
    "train_little",
    "with_cosine_classifier",
]

# of attention: its query and value, as networks of the transformers library and of others name them
_ADAPTED: Final = frozenset(
    (
        "query",
        "value",
        "q_proj",
        "v_proj",
        "q_lin",
        "v_lin",
        "to_q",
        "to_v",
        "q",
        "v",
        "qkv",
        "query_key_value",
    )
)


def with_cosine_classifier(model: nn.Module, scale: float, *, keep: bool = False) -> nn.Module:
    """Give a classifier a cosine head in place of its last linear layer, and return it.

    Args:
        model: any network.
        scale: of the cosines.
        keep: whether the new head has the class vectors of the old one; else it is drawn anew.

    Raises:
        ValueError: its last layer is not linear.
    """
    head = head_of(model)
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"the model's head is a {type(head).__name__}, and a cosine head replaces a Linear layer; give "
            "another model, or a method without a cosine head"
        )
    made = CosineLinear(head.in_features, head.out_features, scale).to(head.weight)
    made.had_bias = head.bias is not None
    if keep:
        made.weight = head.weight
    _replace(model, head, made)
    return model


def train_little(model: nn.Module, *, lora_rank: int | None, seed: int) -> nn.Module:
    """Freeze a classifier but for its head, in place, and add adapters if a rank is given.

    A frozen batch norm normalises by what it has seen, and sees no more.

    Args:
        model: the classifier.
        lora_rank: of the adapters at each query and value of attention; None for none.
        seed: of the adapters' first weights.

    Raises:
        ValueError: it has no attention where adapters go.
        ModuleNotFoundError: peft is not installed.
    """
    head = head_of(model)
    if lora_rank is None:
        model.requires_grad_(False)
    else:
        names = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.rpartition(".")[2] in _ADAPTED and module is not head
        ]
        if not names:
            raise ValueError(
                f"model {type(model).__name__} has no attention for LoRA's adapters; freeze_backbone trains "
                "its head alone"
            )
        needs("peft", "LoRA needs", "peft")
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        config = LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=names)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            LoraModel(
                model, {"default": config}, "default"
            )  # works on the model itself, and freezes the rest
    head.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.register_forward_pre_hook(_stays_as_it_is)
    return model


def _stays_as_it_is(module: nn.Module, _: object) -> None:
    module.training = False  # which train() of the whole network sets again


def trained_share(model: nn.Module) -> tuple[int, int]:
    """Return how many of a network's parameters are trained, and how many it has."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


def head_inputs(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what reaches a classifier's head in evaluation, and the labels, batch by batch, on the device.

    Args:
        model: the classifier.
        batches: with ``pixel_values`` and ``labels``.
        device: of the model.
    """
    seen: list[Tensor] = []
    hook = head_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    before = model.training
    model.to(device).eval()
    try:
        for batch in batches:
            model(pixel_values=batch["pixel_values"].to(device))
            yield seen.pop(), batch["labels"].to(device)
    finally:
        hook.remove()
        model.train(before)


@torch.inference_mode()
def start_at_class_means(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], device: torch.device
) -> None:
    """Set a cosine head's class vectors to the mean direction of each class's features, in place.

    Its decisions are then those of the nearest class mean, by angle. Where several processes train together,
    each gives its part of the images, and all get the same means.

    Args:
        model: with a `CosineLinear` head.
        batches: with ``pixel_values`` and ``labels``; the label -100 is left out.
        device: of the model.

    Raises:
        ValueError: a feature that is not finite.
    """
    head = head_of(model)
    assert isinstance(head, CosineLinear)
    sums = torch.zeros(head.weight.shape, dtype=torch.float64, device=device)
    for features, labels in head_inputs(model, batches, device):
        directions, known = nn.functional.normalize(features.double(), dim=-1), labels >= 0
        sums.index_add_(0, labels[known], directions[known])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
    if not sums.isfinite().all():
        raise ValueError("the model gives NaN or infinite features; give another model")
    head.weight.copy_(nn.functional.normalize(sums, dim=-1))


def merge_adapters(model: nn.Module) -> nn.Module:
    """Add adapters to the weights that they adapt, in place: the plain network that computes the same."""
    for name, module in [*model.named_modules()]:
        if callable(merge := getattr(module, "merge", None)) and hasattr(module, "base_layer"):
            merge()
            _put(model, name, module.get_base_layer())
    return model


@contextlib.contextmanager
def as_plain_linear(model: nn.Module) -> Iterator[None]:
    """Show a cosine head as a linear layer of the same decisions, so that any reader of the weights has them.

    The logits then grow with the length of the features, which changes no decision, only the certainty.
    """
    head = head_of(model)
    if not isinstance(head, CosineLinear):
        yield
        return
    plain = nn.Linear(head.in_features, head.out_features, bias=head.had_bias).to(head.weight)
    with torch.no_grad():
        plain.weight.copy_(nn.functional.normalize(head.weight, dim=-1))
        if plain.bias is not None:
            plain.bias.zero_()
    _replace(model, head, plain)
    try:
        yield
    finally:
        _replace(model, plain, head)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    _put(model, next(name for name, module in model.named_modules() if module is old), new)


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    place, _, last = name.rpartition(".")
    setattr(model.get_submodule(place), last, new)
