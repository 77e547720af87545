"""The class-balanced loss as a module: it holds counts and weight, and calls the functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from longtail import _arrays, _checks
from longtail.losses import functional, fused
from longtail.losses.reduction import check_options
from longtail.weights import DEFAULT_BETA, SCHEMES, Default, weigh

LOSSES = ("softmax", "sigmoid", "focal", "softmax_focal")


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
        backend: "auto" | "torch" | "fused": see :mod:`longtail.losses.functional`; not for a callable loss.
        inplace_backward: let the fused path write the gradient over the logits.

    Attributes:
        weight: float32 buffer, (C). It moves with the module, stays out of its state_dict (a saved loss
            weight breaks the loading of checkpoints), and stays float32 when the module is cast to half. On
            the meta device, where transformers builds what it loads, it has no values; afterwards it has.
        class_counts: float64 buffer, (C), likewise.

    Raises:
        TypeError: counts that are no numbers, a loss that is neither a name nor a callable.
        ValueError: counts, options or parameters out of range.

    Example:
        >>> criterion = ClassBalancedLoss([5000, 50], loss="softmax", beta=0.999)
        >>> criterion(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor(0.6931)

    Source: Cui et al. (CVPR 2019), equation 12.
    """

    weight: Tensor
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
    ) -> None:
        super().__init__()
        if isinstance(loss, str):
            _checks.choice("loss", loss, LOSSES, also=" or a callable")
        elif not callable(loss):
            names = ", ".join(map(repr, LOSSES))
            raise TypeError(f"loss must be one of {names} or a callable, got {_checks.describe(loss)}")
        elif label_smoothing != 0.0:
            raise ValueError(
                f"label_smoothing={label_smoothing!r} needs a named loss; smooth inside your callable"
            )
        _checks.choice("scheme", scheme, SCHEMES)
        check_options(reduction, normalizer)
        fused.check_backend(backend)
        counts = _arrays.in_output_order("class_counts", class_counts)
        if isinstance(counts, Tensor):
            counts = counts.detach().cpu().numpy()
        weight = weigh("class_counts", counts, scheme, beta, volume, "classes", "zero")
        self._exact = {"weight": _values(weight), "class_counts": _values(counts)}
        self.loss = loss
        self.beta = float(beta) if isinstance(beta, Default) else beta
        self.volume = volume
        self.gamma = _checks.number("gamma", gamma, low=0.0, open_high=True, remedy=functional.GAMMA)
        self.scheme = scheme
        self.reduction = reduction
        self.normalizer = normalizer
        self.backend = backend
        self.inplace_backward = inplace_backward
        self.ignore_index = _checks.integer("ignore_index", ignore_index, low=-(2**63))
        self.label_smoothing = _checks.number(
            "label_smoothing", label_smoothing, low=0.0, high=1.0, open_high=True, remedy=functional.SMOOTHING
        )
        for name, dtype in (("weight", torch.float32), ("class_counts", torch.float64)):
            self.register_buffer(name, torch.tensor(self._exact[name], dtype=dtype), persistent=False)

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
        loss, weight = self.loss, self._buffers["weight"]  # a third of the time that `self.weight` takes
        if loss == "softmax":  # spelt out: for small batches a dict of options is a measurable part
            return functional.class_balanced_cross_entropy(
                input,
                target,
                weight,
                reduction=self.reduction,
                normalizer=self.normalizer,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                denominator=denominator,
                backend=self.backend,
                inplace_backward=self.inplace_backward,
            )
        options: dict[str, Any] = {
            "reduction": self.reduction,
            "normalizer": self.normalizer,
            "ignore_index": self.ignore_index,
            "denominator": denominator,
        }
        if not isinstance(loss, str):
            return functional.class_balanced_callable(loss, input, target, weight, **options)
        options["label_smoothing"] = self.label_smoothing
        options["backend"], options["inplace_backward"] = self.backend, self.inplace_backward
        if loss == "sigmoid":
            return functional.class_balanced_binary_cross_entropy(input, target, weight, **options)
        if loss == "focal":
            return functional.class_balanced_focal_loss(input, target, weight, gamma=self.gamma, **options)
        return functional.class_balanced_softmax_focal_loss(
            input, target, weight, gamma=self.gamma, **options
        )

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
        return functional.count(
            target, self.weight, normalizer=self.normalizer, ignore_index=self.ignore_index
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
        if self.loss in ("focal", "softmax_focal"):
            parts.append(f"gamma={self.gamma:g}")
        parts += [f"reduction={self.reduction!r}", f"normalizer={self.normalizer!r}"]
        return ", ".join(parts)

    def __setattr__(self, name: str, value: Any) -> None:
        # what follows a buffer on the meta device is memory that nobody has written
        if name in self.__dict__.get("_exact", ()) and (buffer := getattr(self, name)).is_meta:
            value = torch.tensor(self._exact[name], dtype=buffer.dtype, device=value.device)
        super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClassBalancedLoss:
        before = {name: getattr(self, name) for name in self._exact}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            cast = getattr(self, name)
            if buffer.is_meta:  # to_empty() does not go through __setattr__
                self._buffers[name] = buffer
                setattr(self, name, cast)
            elif cast.dtype in (torch.float16, torch.bfloat16):  # .half() would leave 3 digits of the weight
                setattr(self, name, buffer.to(cast.device))
        return self


def _values(per_class: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = list(per_class.values()) if isinstance(per_class, Mapping) else per_class
    return np.array(values, dtype=np.float64)  # a copy: torch reads no negative strides
