"""The class-balanced loss as a module: it holds counts and weight, and calls the functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from longtail import _arrays, _checks
from longtail.losses import batch, functional, softmax
from longtail.losses.fast import fused
from longtail.losses.forms import FORMS, MANY_LABELS, SOFTMAX, WEIGHTINGS, form_of
from longtail.losses.reduction import Reduction
from longtail.weights import DEFAULT_BETA, EVERY_SCHEME, Default, positive_weights, weigh


class ClassBalancedLoss(nn.Module):
    """Class-balanced loss: any of four losses, or your own, weighed by class.

    Used as ``torch.nn.CrossEntropyLoss``: ``criterion(logits, target)``.

    Args:
        class_counts: training samples per class, in the order of the model's outputs: an array, list,
            tensor or :class:`longtail.ClassCounts`; or a mapping name -> count, in its own order,
            whole numbers (False, True and 1.0 too) being class indices 0..C-1 in any order. Of two classes
            and one output, those of the labels 0 and 1. None where ``weight`` is given.
        loss: "softmax" | "sigmoid" | "focal" (sigmoid form, as in the paper) | "softmax_focal" |
            "asymmetric" | "distribution_balanced" (the last two for many labels), or a callable
            ``(input, target) -> per-sample loss``.
        beta: of the effective number, in [0, 1]: one for all classes or one per class.
        gamma: focal losses' exponent, >= 0.
        scheme: "effective" | "inverse" | "inverse_sqrt" | "power" | "none": see
            :func:`longtail.class_weights`.
        reduction: "mean" | "sum" | "none" | "elements".
        normalizer: what a mean divides by: "samples" (the paper) | "weights" (torch's rule).
        ignore_index: targets of this value have loss 0 and are not counted; a class of this index has no
            weight and takes no part in the scaling of the others.
        label_smoothing: epsilon in [0, 1); not for a callable loss.
        volume: N = 1 / (1 - beta), instead of ``beta``.
        offset: added to the logits, one number a class: an array, list or tensor in the order of the outputs,
            or a mapping with the names of ``class_counts``. Like scale and margin it acts in training mode
            only: in evaluation mode the loss is that of the bare logits, by which the network decides.
        scale: multiplies the logits, likewise, before the offset is added.
        margin: taken from the logit of the sample's class, likewise.
        backend: "auto" | "torch" | "fused": see :mod:`longtail.losses.functional`; not for a callable loss.
        inplace_backward: let the fused path write the gradient over the logits.
        weighting: "sample" | "class" | "positive", for the sigmoid losses: see
            :mod:`longtail.losses.functional`.
        num_samples: number of training samples, for many labels with ``weighting="positive"`` or
            "distribution_balanced"; default: what ``class_counts`` carry.
        weight: one weight a class, in place of counts and scheme: as ``offset``.
        empty: weight of classes without samples: "zero" | "one" | "error".
        power: exponent of scheme "power".
        max_weight: no weight exceeds it.
        validate_args: False skips the look at the labels of every batch but the first, for the softmax loss
            of small batches on a CPU with ``normalizer="weights"``: torch's kernel alone then decides what is
            ignored. A batch where all is ignored has the loss NaN, as in torch, and the gradient of a NaN in
            the logits of an ignored label is NaN.
        smooth_to: what label smoothing moves labels to: "uniform", 1 / C (1 / 2 of labels of their own), or
            "prior", the classes' shares of the samples. Towards the prior, no smoothing outweighs an offset
            of the log prior.
        gamma_neg: of "asymmetric": exponent of the negatives, 4 by default.
        gamma_pos: of "asymmetric": exponent of the positives, 1 by default.
        clip: of "asymmetric": probability below which a negative costs nothing, 0.05 by default.
        map_alpha: of "distribution_balanced", as all that follow: see
            :func:`longtail.functional.class_balanced_distribution_balanced_loss`.
        map_beta: likewise.
        map_mu: likewise.
        neg_scale: likewise.
        init_bias: likewise.
        focal_balance: likewise.

    Attributes:
        weight: float32, (C), on the module's device. It stays out of the state_dict (a saved loss weight
            breaks the loading of checkpoints), and stays float32 when the module is cast to half. On the
            meta device, where transformers builds what it loads, it has no values; afterwards it has.
        class_counts: float64, (C), on the CPU; None where ``weight`` was given alone.
        offset, scale, margin: as weight, or None.

    Raises:
        TypeError: counts that are no numbers, a loss that is neither a name nor a callable.
        ValueError: counts, options or parameters out of range.

    Example:
        >>> criterion = ClassBalancedLoss([5000, 50], loss="softmax", beta=0.999)
        >>> criterion(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor(0.6931)

    Source: Cui et al. (CVPR 2019), equation 12; the offset Menon et al. (ICLR 2021), equation 10.
    """

    class_counts: Tensor | None

    def __init__(
        self,
        class_counts: object = inspect.Parameter.empty,  # without weight= it is required
        *,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "softmax",
        beta: object = DEFAULT_BETA,
        gamma: float = 2.0,
        scheme: str = "effective",
        reduction: str = "mean",
        normalizer: str = "samples",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        volume: object = None,
        backend: str = "auto",
        inplace_backward: bool = False,
        offset: object = None,
        scale: object = None,
        margin: object = None,
        weighting: str = "sample",
        num_samples: int | None = None,
        weight: object = None,
        empty: str = "zero",
        power: float = 0.5,
        max_weight: float | None = None,
        validate_args: bool = True,
        smooth_to: str = "uniform",
        gamma_neg: float | None = None,
        gamma_pos: float | None = None,
        clip: float | None = None,
        map_alpha: float | None = None,
        map_beta: float | None = None,
        map_mu: float | None = None,
        neg_scale: float | None = None,
        init_bias: float | None = None,
        focal_balance: float | None = None,
    ) -> None:
        super().__init__()
        self._form = None
        shifts = {"offset": offset, "scale": scale, "margin": margin}
        shifts = {name: values for name, values in shifts.items() if values is not None}
        if isinstance(loss, str):
            if loss not in FORMS and loss not in MANY_LABELS:
                known_as = _KNOWN_AS.get(loss.lower().replace("_", "").replace("-", "").removesuffix("loss"))
                suggestion = f"; did you mean {known_as!r}?" if known_as else ""
                _checks.choice(
                    "loss", loss, (*FORMS.names, *MANY_LABELS), also=" or a callable", hint=suggestion
                )
            self._form = form_of(loss)
            self._formula = self._form.load()
        elif isinstance(loss, (type, nn.Module)) and (isinstance(loss, type) or _reduces(loss)):
            _refuse_torch_loss(loss)
        elif not callable(loss):
            names = ", ".join(map(repr, FORMS))
            raise TypeError(f"loss must be one of {names} or a callable, got {_checks.describe(loss)}")
        elif label_smoothing != 0.0:
            raise ValueError(
                f"label_smoothing={label_smoothing!r} needs a named loss; smooth inside your callable"
            )
        elif shifts:
            raise ValueError(f"{', '.join(shifts)} needs a named loss; shift the logits inside your callable")
        activation = "" if self._form is None else self._form.activation
        own = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip, "map_alpha": map_alpha}
        own |= {"map_beta": map_beta, "map_mu": map_mu, "neg_scale": neg_scale, "init_bias": init_bias}
        own |= {"focal_balance": focal_balance}
        settings = {name: value for name, value in own.items() if value is not None}
        known = {} if self._form is None else self._form.settings
        if unknown := [name for name in settings if name not in known]:
            raise ValueError(
                f"{unknown[0]}={settings[unknown[0]]!r} does nothing in loss {loss!r}, which takes "
                f"{', '.join(known) or 'no settings of its own'}; leave it out"
            )
        _checks.choice("scheme", scheme, EVERY_SCHEME)
        _checks.choice("weighting", weighting, WEIGHTINGS)
        if weighting != "sample":
            if activation != "sigmoid":
                raise ValueError(
                    f"weighting={weighting!r} is for the sigmoid losses, got loss={loss!r}; "
                    "pass weighting='sample'"
                )
            if normalizer != "samples":
                raise ValueError(
                    f"normalizer={normalizer!r} sums weights of samples, but with weighting={weighting!r} "
                    "they have none; pass normalizer='samples'"
                )
        Reduction(reduction, normalizer).check()
        if reduction == "elements" and activation != "sigmoid":
            raise ValueError(
                f"reduction='elements' is for the sigmoid losses, got loss={loss!r}; pass 'none'"
            )
        fused.check_backend(backend)
        self.ignore_index = batch.check_ignore_index(ignore_index)
        counts, named = None, None
        class_counts = None if class_counts is inspect.Parameter.empty else class_counts
        if class_counts is not None:
            counts = named = _read_counts(class_counts)
        elif weight is None:
            raise TypeError(
                "class_counts is missing; give the training samples per class, class_counts(labels), or "
                "weight="
            )
        num_samples = getattr(class_counts, "num_samples", None) if num_samples is None else num_samples
        if weight is not None:
            if scheme != "effective" or volume is not None or not isinstance(beta, Default):
                raise ValueError(
                    "weight is given beside scheme, beta or volume, which make one of the counts; give one"
                )
            named = weight if counts is None else counts
            per_class: object = _given_weight(weight, counts)
        elif self._form is not None and self._form.takes_counts:
            if scheme not in ("effective", "none"):
                raise ValueError(f"loss {loss!r} weighs by itself; leave scheme={scheme!r} out")
            per_class = np.ones(len(counts) if counts is not None else 0)
        elif weighting == "positive":
            per_class = _positive(counts, num_samples, scheme, beta, volume, power, max_weight, empty)
        else:
            options = scheme, beta, volume, "classes", empty, power, max_weight
            per_class = weigh("class_counts", counts, *options)
            if 0 <= self.ignore_index < len(counts):  # type: ignore[arg-type]
                per_class = _scaled_without(self.ignore_index, per_class, counts, options)
        self._weight = _vector(per_class, torch.float32)
        if self._weight.numel() == 1:
            _check_one(loss, activation, scheme, weighting, weight)
        self.loss = loss
        self.beta = float(beta) if isinstance(beta, Default) else beta
        self.volume = volume
        self.gamma = batch.check_gamma(gamma)
        self.scheme = "none" if self._form is not None and self._form.takes_counts else scheme
        self.reduction = reduction
        self.normalizer = normalizer
        self.backend = backend
        self.inplace_backward = inplace_backward
        self.label_smoothing = batch.check_smoothing(label_smoothing)
        self.weighting = weighting
        self.num_samples = num_samples
        self.validate_args = bool(validate_args)
        self._short = softmax.ShortWay()
        # plain attributes, which no cast rounds and which keep their values while the module is on meta;
        # the buffer only tells where the module is, and in which dtype
        self.class_counts = None if counts is None else _vector(counts, torch.float64)
        self._shifts = {name: _shift(name, values, named) for name, values in shifts.items()}
        _checks.choice("smooth_to", smooth_to, ("uniform", "prior"))
        self.smooth_to = smooth_to
        if smooth_to == "prior":
            if not activation or counts is None:
                raise ValueError(
                    "smooth_to='prior' needs class_counts and a named loss; give both, or smooth_to='uniform'"
                )
            sizes = _vector(counts, torch.float64)
            total = sizes.sum() if num_samples is None else float(num_samples)
            self._shifts["prior"] = (sizes / total).float()
        elif offset is not None and activation:
            batch.check_offset(self._shifts["offset"], activation, self.label_smoothing)
        self._settings: dict[str, object] = {}
        if self._form is not None and self._form.settings:
            self._settings = functional.check_settings(self._form, settings)
        if self._form is not None and self._form.takes_counts:
            self._settings["num_samples"] = _check_num_samples(loss, counts, num_samples)
            self._shifts["counts"] = _vector(counts, torch.float32)
        self.register_buffer("_place", torch.zeros(1, dtype=torch.float32), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The class weights, where the module is."""
        place, weight = self._buffers["_place"], self._weight  # self._place takes three times as long
        assert place is not None
        dtype = torch.float64 if place.dtype is torch.float64 else torch.float32
        if weight.dtype is not dtype or weight.device != place.device:
            weight = weight.to(place.device, dtype)
            if not place.is_meta and not torch.is_inference_mode_enabled():
                self._weight = weight
        return weight

    @weight.setter
    def weight(self, weight: Tensor) -> None:
        self._weight = weight

    @property
    def offset(self) -> Tensor | None:
        """What is added to the logits in training, where the module is."""
        return self._placed("offset")

    @property
    def scale(self) -> Tensor | None:
        """What the logits are multiplied by in training, where the module is."""
        return self._placed("scale")

    @property
    def margin(self) -> Tensor | None:
        """What is taken from the logit of the sample's class in training, where the module is."""
        return self._placed("margin")

    def _placed(self, name: str) -> Tensor | None:
        shift, weight = self._shifts.get(name), self.weight
        if shift is not None and (shift.dtype is not weight.dtype or shift.device != weight.device):
            shift = shift.to(weight)
            if not weight.is_meta and not torch.is_inference_mode_enabled():
                self._shifts[name] = shift
        return shift

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        denominator: Tensor | float | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            input: logits, (N, C) or (N, C, d1, ...); of one output (N), (N, 1) or (N, 1, d1, ...).
            target: class indices, (N) or (N, d1, ...), or floats of ``input``'s shape; of one output 0 and 1.
            denominator: replaces the mean's divisor: the sum of :meth:`count` over all batches and
                processes that share an optimizer step (divided by the number of processes where the
                trainer averages gradients over them, as DistributedDataParallel does).
            sample_weight: one number a sample, >= 0: one of weight 2 counts as two samples.

        Returns:
            A 0-d tensor, or per-sample losses for ``reduction="none"``.

        Raises:
            TypeError: unfit dtypes.
            ValueError: unfit shapes, labels out of range.
        """
        weight, form, offset = self.weight, self._form, None
        acts = self._shifts if self.training else {}
        if (
            form is SOFTMAX
            and denominator is None
            and sample_weight is None
            and self.reduction == "mean"
            and not self.label_smoothing
            and self.backend != "fused"
            and (not acts or acts.keys() == {"offset"})
        ):
            how = self.normalizer, self.ignore_index, self.validate_args
            loss = self._short.mean(input, target, weight, self.offset if acts else None, *how)
            if loss is not None:
                return loss
        if acts:
            input, offset = self._scaled(input, target), self.offset
        if form is None:
            return functional.class_balanced_callable(
                self.loss,  # type: ignore[arg-type]
                input,
                target,
                weight,
                reduction=self.reduction,
                normalizer=self.normalizer,
                ignore_index=self.ignore_index,
                denominator=denominator,
                sample_weight=sample_weight,
            )
        formula = self._formula
        if self._settings:
            counts = {"counts": self._placed("counts")} if form.takes_counts else {}
            formula = functools.partial(formula, **self._settings, **counts)
        return functional.class_balanced(
            form,
            formula,
            self.gamma,
            input,
            target,
            weight,
            self.reduction,
            self.normalizer,
            self.ignore_index,
            self.label_smoothing,
            denominator,
            self.backend,
            self.inplace_backward,
            offset,
            sample_weight,
            self.weighting,
            self._placed("prior") if self.smooth_to == "prior" else None,
        )

    def _scaled(self, input: Tensor, target: Tensor) -> Tensor:
        """Return ``s * z - m_y * onehot_y`` in the shape of the logits."""
        scale, margin, per_class = self.scale, self.margin, (-1, *[1] * (input.ndim - 2))
        if input.ndim == 1 or (input.ndim > 1 and input.shape[1] == 1 and self.weight.numel() == 2):
            if scale is not None:
                raise ValueError("scale needs one logit a class, got one output; give the model two")
            if margin is None or target.numel() != input.numel():
                return input
            label = target.to(input.dtype).reshape(input.shape)
            return input - label * margin[1] + (1.0 - label) * margin[0]
        if scale is not None:
            input = input * scale.view(per_class)
        if margin is None:
            return input
        if not target.is_floating_point():
            classes = torch.arange(input.shape[1], device=input.device).view(per_class)
            target = classes == target.unsqueeze(1)
        return input - margin.view(per_class) * target

    def count(self, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """Return what this batch adds to the denominator of a mean over several batches.

        Args:
            target: as for :meth:`forward`. Labels of two classes and one output count each entry; floats of
                shape (N, 2), ... are taken for two outputs.
            sample_weight: as for :meth:`forward`.

        Returns:
            A 0-d tensor on ``target``'s device: the number of samples that are not ignored, or the sum of
            their weights, as ``normalizer`` says. A sample with unknown labels counts by the share of them
            that is known.

        Raises:
            TypeError: a target of an unfit dtype.
        """
        return batch.count(
            target,
            self.weight,
            normalizer=self.normalizer,
            ignore_index=self.ignore_index,
            sample_weight=sample_weight,
        )

    def extra_repr(self) -> str:
        """Name the settings that change the loss."""
        loss = (
            self.loss
            if isinstance(self.loss, str)
            else getattr(self.loss, "__name__", type(self.loss).__name__)
        )
        parts = [f"num_classes={self.weight.numel()}", f"loss={loss!r}", f"scheme={self.scheme!r}"]
        if self.scheme == "effective":
            parts.append(f"beta={self.beta!r}" if self.volume is None else f"volume={self.volume!r}")
        if self._form is not None and self._form.takes_gamma:
            parts.append(f"gamma={self.gamma:g}")
        parts += [f"{name}={value:g}" for name, value in self._settings.items()]
        parts += [f"{name}=..." for name in self._shifts if name not in ("counts", "prior")]
        if self.weighting != "sample":
            parts.append(f"weighting={self.weighting!r}")
        parts += [f"reduction={self.reduction!r}", f"normalizer={self.normalizer!r}"]
        return ", ".join(parts)


# what other packages call these losses, in small letters, without _, - and "loss" at the end
_KNOWN_AS = (
    dict.fromkeys(("softmax", "crossentropy", "ce", "nll", "logitadjusted", "categorical"), "softmax")
    | dict.fromkeys(("categoricalcrossentropy", "sparsecategoricalcrossentropy", "xent"), "softmax")
    | dict.fromkeys(
        ("sigmoid", "bce", "binary", "bcewithlogits", "binarycrossentropy", "logistic"), "sigmoid"
    )
    | dict.fromkeys(("multilabelsoftmargin", "binarycrossentropywithlogits"), "sigmoid")
    | dict.fromkeys(("focal", "binaryfocal", "sigmoidfocal", "binaryfocalcrossentropy"), "focal")
    | dict.fromkeys(("softmaxfocal", "categoricalfocalcrossentropy", "multiclassfocal"), "softmax_focal")
    | dict.fromkeys(("asl", "asymmetric"), "asymmetric")
    | dict.fromkeys(("db", "dbfocal", "distributionbalanced"), "distribution_balanced")
)


def _reduces(loss: nn.Module) -> bool:
    return getattr(loss, "reduction", "none") != "none"


def _refuse_torch_loss(loss: Any) -> NoReturn:
    """Refuse a class in place of what it makes, and a loss that has reduced what shall be weighed."""
    name = loss.__name__ if isinstance(loss, type) else type(loss).__name__
    ours = {"CrossEntropyLoss": "softmax", "NLLLoss": "softmax", "BCEWithLogitsLoss": "sigmoid"}
    ours |= {"BCELoss": "sigmoid"}
    if name in ours:
        remedy = f"did you mean loss={ours[name]!r}?"
    elif isinstance(loss, type):
        remedy = f"give {name}(reduction='none') if it is one value a sample"
    else:
        remedy = "pass reduction='none' to it"
    given = f"the class {name}" if isinstance(loss, type) else f"{name} with reduction={loss.reduction!r}"
    raise TypeError(f"loss must return one value a sample, got {given}; {remedy}")


def _read_counts(class_counts: object) -> Any:
    """Return counts in the order of the outputs; refuse what are none."""
    _arrays.refuse_weights("class_counts", class_counts)
    if isinstance(class_counts, Tensor):
        class_counts = class_counts.detach().cpu()
        if class_counts.dtype is torch.bfloat16:
            class_counts = class_counts.double()
        class_counts = class_counts.numpy()
    values = _arrays.unwrap("class_counts", class_counts)[0]
    if values.ndim == 1 and np.isfinite(values).all():
        _arrays.check_counts("class_counts", class_counts, values, strict=True)
    return _arrays.in_output_order("class_counts", class_counts)


def _scaled_without(index: int, per_class: object, counts: object, options: tuple[Any, ...]) -> Any:
    """Return weights scaled as if there were no class ``index``, which keeps its ratio to the others."""
    sizes = _arrays.unwrap("class_counts", counts)[0]
    whole = _vector(per_class, torch.float64).numpy()
    rest = [size if i != index else 0.0 for i, size in enumerate(sizes.tolist())]
    if not any(rest):
        return per_class
    named = dict(zip(counts, rest, strict=True)) if isinstance(counts, Mapping) else rest
    scaled = _vector(weigh("class_counts", named, *options), torch.float64).numpy()
    others = [i for i, size in enumerate(rest) if size > 0]
    scaled[index] = whole[index] * scaled[others[0]] / whole[others[0]]
    return scaled if options[-1] is None else np.minimum(scaled, options[-1])


def _positive(
    counts: Any,
    num_samples: int | None,
    scheme: str,
    beta: Any,
    volume: Any,
    power: float,
    max_weight: float | None,
    empty: str,
) -> Any:
    """Return weights of the positive terms; of two classes and one output, those of the labels 0 and 1."""
    options: dict[str, Any] = {"scheme": scheme, "power": power, "max_weight": max_weight, "empty": empty}
    if num_samples is not None:
        return positive_weights(counts, num_samples, beta, volume=volume, **options)
    values = _arrays.unwrap("class_counts", counts)[0]
    if values.shape != (2,):
        raise ValueError(
            "weighting='positive' needs num_samples, the number of training samples; pass it, or counts of "
            "multi-hot labels, class_counts(labels)"
        )
    negatives, positives = values.tolist()
    if positives + negatives != int(positives + negatives):
        raise ValueError(
            f"class_counts must be whole for weighting='positive', got {values.tolist()}; give num_samples"
        )
    (weight,) = positive_weights([positives], int(positives + negatives), beta, volume=volume, **options)
    return np.array([1.0, weight])


def _check_one(loss: object, activation: str, scheme: str, weighting: str, weight: object) -> None:
    """Refuse one class where its loss or its weight does nothing."""
    remedy = "for one output give both classes' counts, those of label 0 and of label 1"
    if activation == "softmax":
        raise ValueError(f"class_counts has one class, whose softmax is always 1; {remedy}")
    if activation == "sigmoid" and scheme != "none" and weighting != "positive" and weight is None:
        raise ValueError(
            f"class_counts has one class, whose weight does nothing; {remedy}, or pass num_samples= and "
            "weighting='positive' for one label"
        )


def _check_num_samples(loss: object, counts: object, num_samples: int | None) -> float:
    values = _arrays.unwrap("class_counts", counts)[0]
    if num_samples is None:
        raise ValueError(
            f"loss {loss!r} needs num_samples, the number of training samples; pass it, or counts of "
            "multi-hot labels, class_counts(labels)"
        )
    total = _checks.integer("num_samples", num_samples, low=1)
    if values.max() > total:
        raise ValueError(
            f"num_samples must be at least the largest count, {values.max():g}, got {total}; it counts "
            "samples"
        )
    return float(total)


def _given_weight(weight: object, counts: object) -> Any:
    """Return weights of the caller's, finite and >= 0, in the order of the outputs."""
    values = _shift("weight", weight, weight if counts is None else counts).double().numpy()
    if (values < 0).any() or not (values > 0).any():
        raise ValueError(
            f"weight must be >= 0, and above 0 for one class, got {values.min():g} to {values.max():g}; 0 "
            "leaves a class out"
        )
    return values


def _shift(name: str, values: Any, counts: Any) -> Tensor:
    """Return one finite number a class, in the order of the counts."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = _arrays.to_numpy(name, _arrays.beside(name, values, counts, "class_counts"))
    if array.ndim != 1 or array.shape != (len(counts),):
        raise ValueError(
            f"{name} must have shape ({len(counts)},), one number for each of class_counts, got shape "
            f"{array.shape}; give one for every output of the model"
        )
    if not np.isfinite(array).all():
        at = int(np.isfinite(array).argmin())
        raise ValueError(
            f"{name} must be finite, got {array[at]} at position {at}; "
            "give an empty class the value of the smallest one"
        )
    return _vector(array, torch.float32)


def _vector(per_class: object, dtype: torch.dtype) -> Tensor:
    values = list(per_class.values()) if isinstance(per_class, Mapping) else per_class
    # a copy, since torch reads no negative strides, on the CPU whatever device is the default
    with torch.inference_mode(False):  # of which no gradient could be taken later
        return torch.tensor(np.array(values, dtype=np.float64), dtype=dtype, device="cpu")
