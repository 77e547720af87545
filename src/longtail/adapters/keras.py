"""The class-balanced losses for Keras 3, written in its own operations: one class for every backend.

Classes are in the last dimension, as everywhere in Keras. Tested with the backends torch and JAX.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from longtail import _arrays, _checks
from longtail.weights import DEFAULT_BETA, EVERY_SCHEME, Default, weigh

try:
    import keras
    from keras import ops
    from keras.src.backend import set_keras_mask
except ModuleNotFoundError as error:
    if error.name == "keras":
        raise ModuleNotFoundError(
            "longtail.adapters.keras needs keras; pip install 'longtail[keras]'", name="keras"
        ) from error
    raise ModuleNotFoundError(
        f"Keras's backend needs {(error.name or '').split('.')[0]}, which is not installed; set the "
        "environment variable KERAS_BACKEND to torch, jax or tensorflow before anything imports keras",
        name=error.name,
    ) from error

__all__ = ["ClassBalancedLoss"]

LOSSES = ("softmax", "sigmoid", "focal", "softmax_focal")


@keras.saving.register_keras_serializable(package="longtail")
class ClassBalancedLoss(keras.losses.Loss):
    """Class-balanced loss for ``model.compile(loss=...)``: `longtail.ClassBalancedLoss` in Keras.

    It takes logits: give the last layer no activation. ``y_true`` holds class indices, (N) or (N, 1), or
    one-hot, multi-hot or soft labels of ``y_pred``'s shape (N, C); tokens and pixels have their dimensions
    before the classes. One output with the counts of two classes is binary: labels 0 and 1, or between. The
    mean divides by the samples, without those of ``ignore_class`` and those that Keras masks; Keras's
    ``sample_weight`` and ``class_weight`` are multiplied in.

    A saved model is loaded where ``longtail.adapters.keras`` has been imported.

    Args:
        class_counts: training samples per class, in the order of the outputs: an array, a list, or a mapping;
            not needed beside `weight`.
        loss: "softmax" | "sigmoid" | "focal" | "softmax_focal", as for `longtail.ClassBalancedLoss`.
        beta: of the effective number, in [0, 1]: one for all classes or one per class.
        gamma: focal losses' exponent, >= 0.
        scheme: "effective" | "inverse" | "inverse_sqrt" | "power" | "none": see `longtail.class_weights`.
        volume: N = 1 / (1 - beta), instead of ``beta``.
        power: exponent of scheme "power".
        max_weight: no weight exceeds it.
        empty: weight of a class without samples: "zero" | "one" | "error".
        weight: one weight a class of your own, taken as it is, instead of a scheme.
        label_smoothing: epsilon in [0, 1).
        ignore_class: class indices, or labels of one output, of this value have loss 0 and are not counted.
        from_logits: False takes probabilities, clipped at 1e-7, beyond which they have no gradient.
        reduction: Keras's "sum_over_batch_size" | "mean_with_sample_weight" | "sum" | "none" | None.
        name: the loss's name in Keras's logs.
        dtype: of the computation, float32 whatever the model's policy: bfloat16 has no class index 257.

    Attributes:
        weight: float64 array, one weight a class.

    Raises:
        TypeError: neither counts nor weights, or such that are no numbers.
        ValueError: counts, options or parameters out of range; in a call, shapes that do not fit, a model
            that ends in an activation, and labels out of range where they can be read (torch on a CPU).

    Example::

        model.compile("adam", loss=ClassBalancedLoss([5000, 50], loss="focal", gamma=0.5))

    Source: Cui et al. (CVPR 2019), equation 12.
    """

    def __init__(
        self,
        class_counts: object = None,
        *,
        loss: str = "softmax",
        beta: object = DEFAULT_BETA,
        gamma: float = 2.0,
        scheme: str = "effective",
        volume: object = None,
        power: float = 0.5,
        max_weight: float | None = None,
        empty: str = "zero",
        weight: object = None,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        from_logits: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "class_balanced_loss",
        dtype: object = None,
    ) -> None:
        exact = keras.config.floatx() == "float64"
        super().__init__(name, reduction, dtype or ("float64" if exact else "float32"))
        _checks.choice("scheme", scheme, EVERY_SCHEME)
        if class_counts is None and weight is None:
            raise TypeError(
                "class_counts is missing; give the training samples per class, class_counts(labels), or "
                "weight="
            )
        counts = None
        if class_counts is not None:
            _arrays.refuse_weights("class_counts", class_counts)
            counts = _arrays.in_output_order("class_counts", class_counts)
            beta, volume = (_arrays.align(n, v, counts) for n, v in (("beta", beta), ("volume", volume)))
        if weight is None:
            options = scheme, beta, volume, "classes", empty, power, max_weight
            self.weight = np.asarray(_numbers(weigh("class_counts", counts, *options)))
        else:
            if scheme != "effective" or volume is not None or not isinstance(beta, Default):
                raise ValueError(
                    "weight is given beside scheme, beta or volume, which make one of the counts; give one"
                )
            self.weight = _given(weight, counts)
        self.class_counts, self._own = None if counts is None else _numbers(counts), weight is not None
        self.power, self.max_weight, self.empty = power, max_weight, empty
        self.loss = _checks.choice("loss", loss, LOSSES)
        if (
            len(self.weight) == 1
            and not self._own
            and (scheme != "none" or loss in ("softmax", "softmax_focal"))
        ):
            raise ValueError(
                "class_counts has one class, whose weight does nothing; for one output give both classes' "
                "counts, those of label 0 and of label 1"
            )
        self.beta, self.volume, self.scheme = beta, volume, scheme
        self.gamma = _checks.number("gamma", gamma, low=0.0, open_high=True, remedy="0.5 to 5 are usual")
        self.label_smoothing = _checks.number(
            "label_smoothing", label_smoothing, low=0.0, high=1.0, open_high=True, remedy="0.1 is usual"
        )
        self.ignore_class = (
            None if ignore_class is None else _checks.integer("ignore_class", ignore_class, low=-(2**31))
        )
        self.from_logits = from_logits

    def get_config(self) -> dict[str, object]:
        """Return what a saved model keeps: numbers, lists and text."""
        own = ("loss", "gamma", "scheme", "label_smoothing", "ignore_class", "from_logits", "class_counts")
        given = {} if isinstance(self.beta, Default) else {"beta": _numbers(self.beta)}
        given |= {} if self.volume is None else {"volume": _numbers(self.volume)}
        given |= {"weight": self.weight.tolist()} if self._own else {}
        given |= {"power": self.power} if self.scheme == "power" else {}
        given |= {} if self.max_weight is None else {"max_weight": self.max_weight}
        given |= {} if self.empty == "zero" else {"empty": self.empty}
        return {**super().get_config(), **{name: getattr(self, name) for name in own}, **given}

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of a batch, reduced."""
        y_true, y_pred, sample_weight = (
            np.asarray(x) if isinstance(x, (list, tuple)) else x for x in (y_true, y_pred, sample_weight)
        )
        if self.from_logits and hasattr(y_pred, "_keras_logits"):
            raise ValueError(
                "y_pred comes out of an activation, but the loss takes logits; give the last layer no "
                "activation, or pass from_logits=False"
            )
        if sample_weight is not None and 0 < len(sample_weight.shape) < len(y_pred.shape) - 1:
            sample_weight = ops.convert_to_tensor(sample_weight)  # one a sample, for all of its tokens
            while len(sample_weight.shape) < len(y_pred.shape) - 1:
                sample_weight = ops.expand_dims(sample_weight, -1)
            sample_weight = sample_weight * ops.ones_like(y_pred[..., 0], dtype=sample_weight.dtype)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return one weighed loss a sample, of ``y_pred``'s shape without classes."""
        z = ops.expand_dims(y_pred, -1) if len(y_pred.shape) == 1 else y_pred
        binary = z.shape[-1] == 1 and len(self.weight) == 2
        if not binary and z.shape[-1] != len(self.weight):
            raise ValueError(
                f"y_pred must have {len(self.weight)} outputs, one a class of class_counts"
                f"{', or one' if len(self.weight) == 2 else ''}, got shape {tuple(z.shape)}; count as many "
                "classes as the model has outputs"
            )
        y, sparse = _labels(y_true, z)
        _look(y, z, sparse, self.ignore_class)
        valid = None
        if self.ignore_class is not None:
            if not (sparse or binary):
                raise ValueError(
                    f"ignore_class={self.ignore_class} is for class indices, but y_true has y_pred's shape "
                    f"{tuple(z.shape)}; give class indices, or leave it out"
                )
            valid = ops.not_equal(y, self.ignore_class)
            y = ops.where(valid, y, ops.zeros_like(y))
            valid = valid if sparse else ops.squeeze(valid, -1)
        if not self.from_logits:
            z = _logits(z, binary or self.loss in ("sigmoid", "focal"))
        losses = self._losses(y, z, sparse, binary)
        if valid is not None:
            losses = ops.where(valid, losses, ops.zeros_like(losses))
            set_keras_mask(losses, valid)
        return losses

    def _losses(self, y: Any, z: Any, sparse: bool, binary: bool) -> Any:
        w, e = ops.convert_to_tensor(self.weight, dtype=z.dtype), self.label_smoothing
        gamma = self.gamma if "focal" in self.loss else 0.0
        if binary:
            own = w[0] + (w[1] - w[0]) * y
            sides = (1 - e) * y * w[1] + e / 2 * own, (1 - e) * (1 - y) * w[0] + e / 2 * own
            return ops.squeeze(_two_sided(z, (1 - e) * y + e / 2, gamma, *sides), -1)
        if sparse:
            index = ops.cast(y, "int32")
            own = ops.take(w, index)
            hot = ops.equal(ops.expand_dims(index, -1), ops.arange(len(self.weight), dtype="int32"))
            t = ops.cast(hot, z.dtype)
        else:
            t = y
            mass = ops.sum(t, -1)
            lacking = ops.relu(1 - mass)
            own = (ops.sum(t * w, -1) + lacking) / (mass + lacking)
        if self.loss in ("sigmoid", "focal"):
            if sparse and e == 0:
                return own * ops.sum(_focal(ops.where(hot, -z, z), gamma), -1)
            smooth = (1 - e) * t + e / (len(self.weight) if sparse else 2)
            return own * ops.sum(_two_sided(z, smooth, gamma, smooth, 1 - smooth), -1)
        if sparse and e == 0:
            return own * ops.squeeze(_softmax(z, gamma, ops.expand_dims(index, -1)), -1)
        per_class = _softmax(z, gamma)
        return (1 - e) * ops.sum(t * w * per_class, -1) + e * own * ops.mean(per_class, -1)


def _focal(margin: object, gamma: float) -> Any:
    """``(1 - p)^gamma * -log p`` for p = sigmoid(-margin), finite for every margin, as its gradient is."""
    loss = ops.softplus(margin)
    return loss if gamma == 0.0 else ops.exp(gamma * ops.log_sigmoid(margin)) * loss


def _two_sided(z: Any, t: Any, gamma: float, positive: Any, negative: Any) -> Any:
    """``(1 - p_t)^gamma`` times -log p and -log(1 - p), each times its factor; p_t of soft labels t."""
    loss = positive * ops.softplus(-z) + negative * ops.softplus(z)
    if gamma == 0.0:
        return loss
    miss = ops.sigmoid(z) * (1 - t) + ops.sigmoid(-z) * t  # 1 - p_t
    tiny = float(np.finfo(keras.backend.standardize_dtype(z.dtype)).tiny) ** 0.5
    return ops.exp(gamma * ops.log(ops.maximum(miss, tiny))) * loss


def _softmax(z: Any, gamma: float, index: Any = None) -> Any:
    """``(1 - p)^gamma * -log p`` of the class at an index, or of every class."""
    log_p = ops.log_softmax(z, -1)
    if gamma == 0.0:
        return -log_p if index is None else -ops.take_along_axis(log_p, index, -1)
    one = ops.cast(ops.expand_dims(ops.argmax(z, -1), -1), "int32") if index is None else index
    # of one class the odds against it are summed from the others, since 1 - p would cancel
    chosen = ops.equal(one, ops.arange(z.shape[-1], dtype="int32"))
    rivals = ops.where(chosen, ops.full_like(z, -1e30), z)
    largest = ops.stop_gradient(ops.max(rivals, -1, keepdims=True))
    own = ops.take_along_axis(z, one, -1)
    margin = ops.logsumexp(rivals - largest, -1, keepdims=True) - (own - largest)
    if index is not None:
        return _focal(margin, gamma)
    safe = ops.where(chosen, ops.full_like(z, -1.0), log_p)  # of the others p <= 1/2
    rest = ops.exp(gamma * ops.log1p(-ops.exp(safe))) * -safe
    return ops.where(chosen, _focal(margin, gamma), rest)


def _logits(p: Any, sigmoid: bool) -> Any:
    """Return the logits of probabilities, within 1e-7 of 0 and 1."""
    epsilon = 1e-7
    p = ops.clip(p, epsilon, 1 - epsilon)
    return ops.log(p) - ops.log(1 - p) if sigmoid else ops.log(p)


def _labels(y: Any, z: Any) -> tuple[Any, bool]:
    """Return the labels, and whether they are class indices, (N, ...), and not of the logits' shape."""
    shape, wanted = tuple(y.shape), tuple(z.shape)
    if len(shape) == len(wanted) - 1:
        y = ops.expand_dims(y, -1)
    fits = len(y.shape) == len(wanted) and y.shape[-1] in (1, wanted[-1])
    if not fits or any(None not in (a, b) and a != b for a, b in zip(y.shape[:-1], wanted[:-1], strict=True)):
        raise ValueError(
            f"y_true must have shape {wanted[:-1]} (class indices) or {wanted} for y_pred of shape {wanted}, "
            f"got {shape}"
        )
    sparse = y.shape[-1] == 1 and wanted[-1] != 1
    return (ops.squeeze(y, -1) if sparse else y), sparse


def _look(y: Any, z: Any, sparse: bool, ignored: int | None) -> None:
    """Refuse labels out of range where looking is free: eager torch tensors on a CPU."""
    if keras.backend.backend() != "torch":
        return
    import torch

    if not y.is_cpu or torch.compiler.is_compiling() or not y.numel():
        return
    high = z.shape[-1] - 1 if sparse else 1
    bad = (y < 0) | (y > high + 1e-3) | (y != y) | ((y != y.floor()) if sparse else False)
    bad = bad if ignored is None else bad & (y != ignored)
    if bad.any():
        wanted = f"whole numbers in 0..{high}" if sparse else "in [0, 1]"
        also = "" if ignored is None else f" or ignore_class={ignored}"
        raise ValueError(
            f"y_true must be {wanted}{also}, got {float(y[bad][0]):g} ({int(bad.sum())} such); "
            "count the model's outputs, or name void labels by ignore_class="
        )


def _given(weight: object, counts: object) -> Any:
    """Return weights of the caller's, finite and >= 0, in the order of the outputs."""
    named = weight if counts is None else counts
    values = np.asarray(_numbers(_arrays.beside("weight", weight, named, "class_counts")))
    if values.ndim != 1 or (counts is not None and len(values) != len(counts)):  # type: ignore[arg-type]
        raise ValueError(
            f"weight must be one number for each of class_counts, got shape {values.shape}; give one for "
            "every output of the model"
        )
    if not (np.isfinite(values).all() and (values >= 0).all() and (values > 0).any()):
        raise ValueError(
            f"weight must be finite, >= 0, and above 0 for one class, got {values.min():g} to "
            f"{values.max():g}; 0 leaves a class out"
        )
    return values


def _numbers(values: object) -> Any:
    """Return a number, or those of an array or mapping in order, as Python's own."""
    if isinstance(values, dict):
        values = list(values.values())
    return _arrays.as_numpy("class_counts", values).tolist()
