"""The classifier's last layer: its prior bias, and its place in the optimizer.

Cui et al. (CVPR 2019), section 5: with sigmoid and focal losses the last bias starts at
``-log((1 - pi) / pi)`` and is not decayed, since decay would pull it back to a prior of one half.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from longtail import _arrays, _checks
from longtail.adjust import logit_shift
from longtail.counts import ClassCounts

Layer = TypeVar("Layer", bound=nn.Module)
Head = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def last_layer(model: nn.Module) -> Head | None:
    """Return a model's last Linear or Conv layer, whose outputs are the classes, if it has one."""
    return next((module for module in reversed([*model.modules()]) if isinstance(module, Head)), None)


def init_prior_bias_(layer: Layer, prior: object = None) -> Layer:
    """Set a classifier's bias so that its sigmoid outputs start at the prior, in place.

    Use it before training with a sigmoid or focal loss: all C one-vs-all outputs start near "absent"
    instead of one half, and the first steps are not spent on the C - 1 negatives of each sample.

    Args:
        layer: the last layer (Linear, Conv, or any module with a 1-D ``bias``).
        prior: pi, in (0, 1): a number or one a class, in the order of the outputs; or a mapping or Series
            from class to pi, whole numbers being class indices. Default: 1 / C for C outputs.
            `longtail.ClassCounts` are divided by the number of samples; of two shares or counts and one
            output, pi is that of class 1.

    Returns:
        ``layer``, its bias set to ``-log((1 - pi) / pi)``.

    Raises:
        TypeError: the layer has no bias, or the prior is no numbers.
        ValueError: a prior outside (0, 1), or not one per output.

    Example:
        >>> init_prior_bias_(nn.Linear(4, 10)).bias[0].item()
        -2.197...

    Source: section 5, "Implementation"; Lin et al. (ICCV 2017), section 4.1.
    """
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, Tensor) or bias.ndim != 1:
        raise TypeError(f"layer must have a 1-D bias, got {type(layer).__name__} without one; pass bias=True")
    size = bias.numel()
    if prior is None:
        if size == 1:
            raise ValueError("prior of a single output cannot be 1 / C = 1; pass the positive class's share")
        prior = 1.0 / size
    _arrays.refuse_weights("prior", prior)
    values, _ = _arrays.unwrap("prior", _arrays.in_output_order("prior", prior))
    pi = torch.as_tensor(values, dtype=torch.float64)
    if isinstance(prior, ClassCounts):
        pi = pi / (getattr(prior, "num_samples", None) or prior.total)
    if size == 1 and pi.shape == (2,) and bool((pi > 0).all()):  # both classes of one output
        pi = pi[1] / pi.sum()
    if pi.ndim > 1 or (pi.ndim == 1 and pi.numel() != size):
        raise ValueError(
            f"prior must be a number or {size} numbers, one per output, got shape {tuple(pi.shape)}"
        )
    if not bool(((pi > 0) & (pi < 1)).all()):
        worst = pi.reshape(-1)[~((pi > 0) & (pi < 1)).reshape(-1)][0].item()
        raise ValueError(f"prior must be in (0, 1), got {worst!r}; give each class's share of the samples")
    with torch.no_grad():
        bias.copy_((torch.log(pi) - torch.log1p(-pi)).to(bias.dtype).expand(size))
    return layer


def with_prior(
    model: Layer,
    counts: object,
    *,
    target: object = "uniform",
    weight: object = None,
    offset: object = None,
    sampling: object = None,
    tau: float = 1.0,
    activation: str = "softmax",
    num_samples: int | None = None,
) -> Layer:
    """Return a copy of a model whose last bias holds the adjustment of `longtail.adjust_logits`.

    What is exported from it (ONNX, TorchScript, safetensors) needs no code of ours.

    Args:
        model: its last Linear or Conv layer gives the logits, as the last thing that the model does.
        counts: as for `longtail.adjust_logits`, and so are all others; two counts fit one output, too.
        target: see `longtail.adjust_logits`.
        weight: see `longtail.adjust_logits`.
        offset: see `longtail.adjust_logits`.
        sampling: see `longtail.adjust_logits`.
        tau: see `longtail.adjust_logits`.
        activation: see `longtail.adjust_logits`.
        num_samples: see `longtail.adjust_logits`.

    Returns:
        The copy. A last layer without a bias has one in it.

    Raises:
        TypeError: `model` is no module.
        ValueError: no Linear or Conv layer, another number of outputs than counts, and as
            `longtail.adjust_logits`.

    Example:
        >>> layer = with_prior(nn.Linear(4, 2), [90, 10])
        >>> other = with_prior(layer, [10, 90])  # and back again
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.describe(model)}")
    model = copy.deepcopy(model)
    head = last_layer(model)
    if head is None:
        raise ValueError("model has no Linear or Conv layer; give the layer that makes the logits")
    outputs = head.weight.shape[0]
    _checks.choice("activation", activation, ("softmax", "sigmoid"))
    one = outputs == 1 and num_samples is None and getattr(counts, "num_samples", None) is None
    shift = logit_shift(
        counts,
        target=target,
        weight=weight,
        offset=offset,
        sampling=sampling,
        tau=tau,
        activation="softmax" if one else activation,  # of one output they are the same
        num_samples=num_samples,
    )
    if one and len(shift) == 2:
        shift = shift[1:] - shift[:1]
    if outputs != len(shift):
        raise ValueError(
            f"model's last layer has {outputs} outputs, but counts are {len(shift)}; count its classes"
        )
    with torch.no_grad():
        if head.bias is None:
            head.bias = nn.Parameter(head.weight.new_zeros(outputs))
        head.bias += torch.as_tensor(shift, dtype=head.bias.dtype, device=head.bias.device)
    return model


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    no_decay: str | nn.Module | nn.Parameter | Iterable[str | nn.Module | nn.Parameter] = "head",
) -> list[dict[str, object]]:
    """Split a model's parameters into decayed and undecayed groups, for any torch optimizer.

    Args:
        model: its trainable parameters, each exactly once, are the groups' content.
        weight_decay: >= 0, for all but the exempt ones.
        no_decay: what is exempt. "head": the last Linear or Conv layer's bias (the paper's rule for
            sigmoid and focal losses); "bias_and_norm": every parameter of at most one dimension;
            "none": nothing (the paper's rule for softmax). Or a list of parameter names, patterns such
            as "head.*", modules (with all their parameters) or parameters; or one module or parameter.

    Returns:
        One or two dictionaries with ``params`` and ``weight_decay``; the exempt group comes second.

    Raises:
        ValueError: a negative decay, an unknown word, or an entry that matches no parameter.
        TypeError: ``model`` is no module, or an entry is no name, module or parameter.

    Example:
        >>> groups = parameter_groups(nn.Linear(4, 10), weight_decay=2e-4)
        >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
        [(1, 0.0002), (1, 0.0)]

    Source: section 5, "Implementation".
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.describe(model)}")
    decay = _checks.number("weight_decay", weight_decay, low=0.0, open_high=True, remedy="0 switches it off")
    named = dict(model.named_parameters())  # shared parameters appear once
    exempt = {id(p) for p in _exempt(model, named, no_decay)}
    trained = [p for p in named.values() if p.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trained if id(p) not in exempt], "weight_decay": decay},
        {"params": [p for p in trained if id(p) in exempt], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]] or groups[:1]


def _exempt(
    model: nn.Module,
    named: dict[str, nn.Parameter],
    no_decay: str | nn.Module | nn.Parameter | Iterable[str | nn.Module | nn.Parameter],
) -> list[Tensor]:
    if isinstance(no_decay, str):
        word = _checks.choice("no_decay", no_decay, ("head", "bias_and_norm", "none"))
        if word == "none":
            return []
        if word == "bias_and_norm":
            return [p for p in named.values() if p.ndim <= 1]
        head = last_layer(model)
        if head is None:
            raise ValueError(
                "no_decay='head' found no Linear or Conv layer in model; name the parameters instead"
            )
        return [] if head.bias is None else [head.bias]
    if isinstance(no_decay, (nn.Module, nn.Parameter)):
        no_decay = [no_decay]
    elif not isinstance(no_decay, Iterable):
        raise TypeError(
            "no_decay must be 'head', 'bias_and_norm', 'none' or a list of names, modules and parameters, "
            f"got {_checks.describe(no_decay)}"
        )
    aliases = dict(model.named_parameters(remove_duplicate=False))  # a shared parameter has several names
    chosen: list[Tensor] = []
    for entry in no_decay:
        if isinstance(entry, nn.Module):
            found = list(entry.parameters())
        elif isinstance(entry, nn.Parameter):
            found = [entry]
        elif isinstance(entry, str):
            found = [p for name, p in aliases.items() if fnmatchcase(name, entry)]
        else:
            raise TypeError(
                f"no_decay entries must be names, modules or parameters, got {_checks.describe(entry)}"
            )
        if not found or not {id(p) for p in found} <= {id(p) for p in named.values()}:
            what = repr(entry) if isinstance(entry, str) else type(entry).__name__
            raise ValueError(
                f"no_decay entry {what} matches no parameter of model; it has {_checks.shorten(aliases)}"
            )
        chosen += found
    return chosen
