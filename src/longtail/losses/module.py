"""The class-balanced loss as a module: it holds counts and weight, and calls the functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from longtail import _arrays, _checks
from longtail.losses import batch, functional
from longtail.losses.fast import fused
from longtail.losses.forms import FORMS
from longtail.losses.reduction import Reduction
from longtail.weights import DEFAULT_BETA, SCHEMES, Default, weigh


class ClassBalancedLoss(nn.Module):
    """Class-balanced loss: any of four losses, or your own, weighed by class.

    Used as ``torch.nn.CrossEntropyLoss``: ``criterion(logits, target)``.

    Args:
        class_counts: training samples per class, in the order of the model's outputs: an array, list,
            tensor or :class:`longtail.ClassCounts`; or a mapping name -> count, in its own order,
            whole numbers (False, True and 1.0 too) being class indices 0..C-1 in any order.
        loss: "softmax" | "sigmoid" | "focal" (sigmoid form, as in the paper) | "softmax_focal", or a
            callable ``(input, target) -> per-sample loss``.
        beta: of the effective number, in [0, 1]: one for all classes or one per class.
        gamma: focal losses' exponent, >= 0.
        scheme: "effective" | "inverse" | "inverse_sqrt" | "none": see :func:`longtail.class_weights`.
        reduction: "mean" | "sum" | "none".
        normalizer: what a mean divides by: "samples" (the paper) | "weights" (torch's rule).
        ignore_index: index targets of this value have loss 0 and are not counted.
        label_smoothing: epsilon in [0, 1); not for a callable loss.
        volume: N = 1 / (1 - beta), instead of ``beta``.
        offset: added to the logits, one number a class: an array, list or tensor in the order of the outputs,
            or a mapping with the names of ``class_counts``. Like scale and margin it acts in training mode
            only: in evaluation mode the loss is that of the bare logits, by which the network decides.
        scale: multiplies the logits, likewise, before the offset is added.
        margin: taken from the logit of the sample's class, likewise.
        backend: "auto" | "torch" | "fused": see :mod:`longtail.losses.functional`; not for a callable loss.
        inplace_backward: let the fused path write the gradient over the logits.

    Attributes:
        weight: float32, (C), on the module's device. It stays out of the state_dict (a saved loss weight
            breaks the loading of checkpoints), and stays float32 when the module is cast to half. On the
            meta device, where transformers builds what it loads, it has no values; afterwards it has.
        class_counts: float64, (C), on the CPU.
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

    class_counts: Tensor

    def __init__(
        self,
        class_counts: Any,
        *,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "softmax",
        beta: Any = DEFAULT_BETA,
        gamma: float = 2.0,
        scheme: str = "effective",
        reduction: str = "mean",
        normalizer: str = "samples",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        volume: Any = None,
        backend: str = "auto",
        inplace_backward: bool = False,
        offset: Any = None,
        scale: Any = None,
        margin: Any = None,
    ) -> None:
        super().__init__()
        self._form = None
        shifts = {"offset": offset, "scale": scale, "margin": margin}
        shifts = {name: values for name, values in shifts.items() if values is not None}
        if isinstance(loss, str):
            if loss not in FORMS:
                _checks.choice("loss", loss, FORMS.names, also=" or a callable")
            self._form = FORMS[loss]
            self._formula = self._form.load()
        elif not callable(loss):
            names = ", ".join(map(repr, FORMS))
            raise TypeError(f"loss must be one of {names} or a callable, got {_checks.describe(loss)}")
        elif label_smoothing != 0.0:
            raise ValueError(
                f"label_smoothing={label_smoothing!r} needs a named loss; smooth inside your callable"
            )
        elif shifts:
            raise ValueError(f"{', '.join(shifts)} needs a named loss; shift the logits inside your callable")
        _checks.choice("scheme", scheme, SCHEMES)
        Reduction(reduction, normalizer).check()
        fused.check_backend(backend)
        counts = _arrays.in_output_order("class_counts", class_counts)
        if isinstance(counts, Tensor):
            counts = counts.detach().cpu().numpy()
        weight = weigh("class_counts", counts, scheme, beta, volume, "classes", "zero")
        self.loss = loss
        self.beta = float(beta) if isinstance(beta, Default) else beta
        self.volume = volume
        self.gamma = batch.check_gamma(gamma)
        self.scheme = scheme
        self.reduction = reduction
        self.normalizer = normalizer
        self.backend = backend
        self.inplace_backward = inplace_backward
        self.ignore_index = batch.check_ignore_index(ignore_index)
        self.label_smoothing = batch.check_smoothing(label_smoothing)
        # plain attributes, which no cast rounds and which keep their values while the module is on meta;
        # the buffer only tells where the module is, and in which dtype
        self.class_counts = _vector(counts, torch.float64)
        self._weight = _vector(weight, torch.float32)
        self._shifts = {name: _shift(name, values, counts) for name, values in shifts.items()}
        if offset is not None and self._form is not None:
            batch.check_offset(self._shifts["offset"], self._form.activation, self.label_smoothing)
        self.register_buffer("_place", torch.zeros(1, dtype=torch.float32), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The class weights, where the module is."""
        place, weight = self._buffers["_place"], self._weight  # self._place takes three times as long
        assert place is not None
        dtype = torch.float64 if place.dtype is torch.float64 else torch.float32
        if weight.dtype is not dtype or weight.device != place.device:
            weight = weight.to(place.device, dtype)
            if not place.is_meta:
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
            if not weight.is_meta:
                self._shifts[name] = shift
        return shift

    def forward(self, input: Tensor, target: Tensor, *, denominator: Tensor | float | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            input: logits, (N, C) or (N, C, d1, ...).
            target: class indices, (N) or (N, d1, ...), or floats of ``input``'s shape.
            denominator: replaces the mean's divisor: the sum of :meth:`count` over all batches and
                processes that share an optimizer step (divided by the number of processes where the
                trainer averages gradients over them, as DistributedDataParallel does).

        Returns:
            A 0-d tensor, or per-sample losses for ``reduction="none"``.

        Raises:
            TypeError: unfit dtypes.
            ValueError: unfit shapes, labels out of range.
        """
        weight, form, offset = self.weight, self._form, None
        if self._shifts and self.training:
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
            )
        return functional.class_balanced(
            form,
            self._formula,
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
        )

    def _scaled(self, input: Tensor, target: Tensor) -> Tensor:
        """Return ``s * z - m_y * onehot_y`` in the shape of the logits."""
        scale, margin, per_class = self.scale, self.margin, (-1, *[1] * (input.ndim - 2))
        if scale is not None:
            input = input * scale.view(per_class)
        if margin is None:
            return input
        if not target.is_floating_point():
            classes = torch.arange(input.shape[1], device=input.device).view(per_class)
            target = classes == target.unsqueeze(1)
        return input - margin.view(per_class) * target

    def count(self, target: Tensor) -> Tensor:
        """Return what this batch adds to the denominator of a mean over several batches.

        Args:
            target: as for :meth:`forward`.

        Returns:
            A 0-d tensor on ``target``'s device: the number of samples that are not ignored, or the sum of
            their weights, as ``normalizer`` says.

        Raises:
            TypeError: a target of an unfit dtype.
        """
        return batch.count(target, self.weight, normalizer=self.normalizer, ignore_index=self.ignore_index)

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
        parts += [f"{name}=..." for name in self._shifts]
        parts += [f"reduction={self.reduction!r}", f"normalizer={self.normalizer!r}"]
        return ", ".join(parts)


def _shift(name: str, values: Any, counts: Any) -> Tensor:
    """Return one finite number a class, in the order of the counts."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = _arrays.to_numpy(name, _arrays.align(name, _arrays.in_output_order(name, values), counts))
    if array.shape != (len(counts),):
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


def _vector(per_class: Any, dtype: torch.dtype) -> Tensor:
    values = list(per_class.values()) if isinstance(per_class, Mapping) else per_class
    # a copy, since torch reads no negative strides, on the CPU whatever device is the default
    return torch.tensor(np.array(values, dtype=np.float64), dtype=dtype, device="cpu")
