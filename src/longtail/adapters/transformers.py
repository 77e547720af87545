"""The loss, the evaluation and the denominator of a step, for a trainer or a loop of your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from longtail import _checks
from longtail.evaluation import Evaluation, Evaluator
from longtail.losses.module import ClassBalancedLoss

__all__ = ["TrainerMetrics", "step_denominator", "trainer_loss"]


def trainer_loss(criterion: ClassBalancedLoss) -> Callable[..., Tensor]:
    """Return the loss as ``Trainer(compute_loss_func=...)`` wants it.

    Twelve samples give the same gradient in one batch, in three accumulated ones or on two processes: each
    part is divided by the samples of the whole step, which the Trainer counts. It counts labels other than
    -100 over all processes (``average_tokens_across_devices``, on by default), and every entry of multi-hot
    labels, of which C are one sample here and in the loss's own mean. Mark unknown ones by -100, not by NaN,
    which the Trainer would count. Outside of training it takes the loss of the bare logits.

    Tokens are (B, T, C) logits with (B, T) labels, pixels (B, C, H, W) with (B, H, W); every label counts.
    Where T = C, so that shapes cannot tell, three dimensions are (B, T, C), as in all of transformers.

    Args:
        criterion: with ``reduction="mean"``, ``normalizer="samples"`` and ``ignore_index=-100``.

    Returns:
        A function ``(outputs, labels, num_items_in_batch=None)``; without a number, the batch's own counts.

    Raises:
        ValueError: a criterion that divides otherwise, or ignores other labels, than the Trainer counts; and
            from the function, logits and labels that do not fit each other.

    Example:
        >>> compute_loss = trainer_loss(ClassBalancedLoss([90, 10]))
        >>> compute_loss({"logits": torch.zeros(2, 2)}, torch.tensor([0, 1]), num_items_in_batch=4)
        tensor(0.3466)
    """
    wanted = {"reduction": "mean", "normalizer": "samples", "ignore_index": -100}
    for name, value in wanted.items():
        if (given := getattr(criterion, name)) != value:
            void = f"; in the labels, labels.masked_fill(labels == {given}, -100) of int64"
            raise ValueError(
                f"criterion has {name}={given!r}, but the Trainer counts the labels that are not -100 and "
                f"divides by their number; pass {name}={value!r}{void if name == 'ignore_index' else ''}"
            )

    def compute_loss(outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None) -> Tensor:
        logits = logits_of(outputs)
        if labels is None:
            raise ValueError("the batch has no 'labels'; name the label column 'labels'")
        if "CausalLM" in type(outputs).__name__:
            raise ValueError(
                "a causal language model's logits are of the next token; shift both in a function of your "
                "own, compute_loss(outputs.logits[:, :-1], labels[:, 1:], num_items_in_batch)"
            )
        classes = criterion.weight.numel()
        logits, labels = _classes_second(logits, labels, classes)
        if criterion.weight.device != logits.device:
            criterion.to(logits.device)
        # the Trainer's evaluation has no gradients, by which alone the criterion can tell it
        criterion.train(torch.is_grad_enabled())
        if num_items_in_batch is None:
            loss: Tensor = criterion(logits, labels)
            return loss
        # one number; under DataParallel one a device, though the batch comes whole: the Trainer multiplies by
        # the number of devices afterwards
        total = torch.as_tensor(num_items_in_batch, device=logits.device).sum()
        if labels.is_floating_point() and logits.ndim > 1:
            total = total / logits.shape[1]
        step: Tensor = criterion(logits, labels, denominator=total)
        return step

    return compute_loss


def _classes_second(logits: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return logits as (N, C) or (N, C, d1, ...), and their labels."""
    shape, soft = tuple(logits.shape), labels.is_floating_point()
    if classes == 2 and 1 in (logits.ndim, *shape[1:2], *shape[2:3]):  # one output
        tokens = logits.ndim == 3 and shape[2] == 1 and tuple(labels.shape) in (shape, shape[:2])
        return (logits.reshape(-1), labels.reshape(-1)) if tokens else (logits, labels)
    if logits.ndim > 2 and shape[-1] == classes and labels.shape == (shape if soft else shape[:-1]):
        second = shape[1] == classes and (soft or labels.shape == (shape[0], *shape[2:]))
        if logits.ndim == 3 or not second:
            return logits.reshape(-1, classes), labels.reshape(-1, classes) if soft else labels.reshape(-1)
    if logits.ndim < 2 or shape[1] != classes:
        raise ValueError(
            f"the model's logits have shape {shape}, but the loss has the counts of "
            f"{classes} classes; give the counts of this data set, and a model with one output a class"
        )
    if logits.ndim == 4 and labels.ndim == 3 and labels.shape[1:] != shape[2:]:
        raise ValueError(
            f"the model's logits are maps of {shape[2]} x {shape[3]} and the labels of "
            f"{labels.shape[1]} x {labels.shape[2]}; upsample in a function of your own, "
            'torch.nn.functional.interpolate(outputs.logits, labels.shape[-2:], mode="bilinear"), and hand '
            "that to this one"
        )
    return logits, labels


class TrainerMetrics:
    """Our evaluation as ``Trainer(compute_metrics=...)`` wants it.

    With ``TrainingArguments(batch_eval_metrics=True)`` the scores of a batch are read and dropped; without,
    the Trainer gathers those of the whole test set in every process.

    Args:
        class_counts: training samples per class, as for `longtail.evaluate`.
        activation: "softmax" | "sigmoid", as the loss reads logits.
        ignore_index: labels of this value are left out; -100 always is, as the Trainer pads with it.

    Attributes:
        last: the last `longtail.Evaluation`, with all that is no single number; None before the first.

    Example:
        >>> metrics = TrainerMetrics([90, 10])
        >>> metrics((np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([0, 1])))["error"]
        0.5
    """

    def __init__(self, class_counts: Any, *, activation: str = "softmax", ignore_index: int = -100) -> None:
        self._counts = class_counts
        self._ignored = _checks.integer("ignore_index", ignore_index, low=-(2**63))
        self._activation = _checks.choice("activation", activation, ("softmax", "sigmoid"))
        self._evaluator: Evaluator | None = None
        self.last: Evaluation | None = None

    def __call__(self, predictions: Any, compute_result: bool = True) -> dict[str, float]:
        """Evaluate an ``EvalPrediction``, or scores and labels.

        Args:
            predictions: of the whole test set, or of its next batch: scores of (N, C), of tokens (B, T, C),
                of pixels (B, C, H, W); or the predicted classes in the shape of the labels.
            compute_result: whether this was the last batch; before it, nothing is returned.

        Raises:
            ValueError: scores and labels that do not fit each other, and as `longtail.evaluate`.
        """
        scores, labels = predictions
        if isinstance(scores, tuple):  # models that return more than logits
            scores = scores[0]
        labels = labels if isinstance(labels, Tensor) else np.asarray(labels)
        known = (labels != -100) & (labels != self._ignored)
        soft = labels.is_floating_point() if isinstance(labels, Tensor) else labels.dtype.kind == "f"
        if soft and labels.ndim > 1 and labels.shape[-1] > 1:
            raise ValueError(
                f"TrainerMetrics reads one label a sample, got float labels of shape {tuple(labels.shape)}; "
                "for many labels pass compute_metrics=lambda p: {'macro_f1': longtail.evaluate("
                "p.predictions, p.label_ids, counts, activation='sigmoid').macro_f1}"
            )
        dense = labels.ndim > 1 and not soft
        if dense:
            scores = _classes_last(scores, labels, len(self._counts))
        if dense or not known.all():
            scores, labels = scores[known], labels[known]
        evaluator = self._evaluator or Evaluator(self._counts, activation=self._activation)
        self._evaluator = None  # after an error the next batch is a first one
        if len(labels):
            evaluator.add(scores, labels)
        if not compute_result:
            self._evaluator = evaluator
            return {}
        self.last = evaluator.result()
        shown = {
            "error": self.last.error,
            "balanced_error": self.last.balanced_error,
            "top5_error": self.last.top5_error,
            "many_error": self.last.many_error,
            "medium_error": self.last.medium_error,
            "few_error": self.last.few_error,
            "macro_f1": self.last.macro_f1,
            "calibration_error": self.last.expected_calibration_error,
        }
        return {name: value for name, value in shown.items() if value is not None}


def _classes_last(scores: Any, labels: Any, classes: int) -> Any:
    """Return the scores of tokens or pixels as (B, d1, ..., C), or predicted classes as they are."""
    scores = scores if isinstance(scores, Tensor) else np.asarray(scores)
    shape, wanted = tuple(scores.shape), tuple(labels.shape)
    second = len(shape) > 2 and shape[1] == classes and wanted == (shape[0], *shape[2:])
    if shape == wanted or (wanted == shape[:-1] and not (second and len(shape) > 3)):
        return scores
    if second:
        return scores.movedim(1, -1) if isinstance(scores, Tensor) else np.moveaxis(scores, 1, -1)
    if classes == 2 and shape[1:2] == (1,) and wanted == (shape[0], *shape[2:]):  # maps of one output
        return scores[:, 0]
    raise ValueError(
        f"the predictions have shape {shape} and the labels {wanted}; for maps of another size pass "
        "Trainer(preprocess_logits_for_metrics=lambda logits, labels: torch.nn.functional.interpolate("
        'logits, labels.shape[-2:], mode="bilinear").argmax(1))'
    )


def step_denominator(criterion: ClassBalancedLoss, *targets: Tensor) -> Tensor:
    """Return the ``denominator=`` of every batch of an optimizer step, for a loop of your own.

    Args:
        criterion: the loss.
        *targets: the targets of this process's batches of the step.

    Returns:
        The sum of ``criterion.count`` over the batches and all processes, divided by the number of processes,
        because DistributedDataParallel and its like average gradients over them. A 0-d tensor. A trainer that
        also divides the loss by the number of accumulated batches, as ``accelerator.backward`` does, needs it
        divided by that number.

    Raises:
        ValueError: no targets.

    Example:
        >>> step_denominator(ClassBalancedLoss([90, 10]), torch.tensor([0, 1]), torch.tensor([1, -100]))
        tensor(3.)
    """
    if not targets:
        raise ValueError(
            "step_denominator needs the targets of the step's batches; pass them after the criterion"
        )
    total = torch.stack([criterion.count(target) for target in targets]).sum()
    world = 1
    if dist.is_available() and dist.is_initialized():
        world = dist.get_world_size()
        dist.all_reduce(total)
    return total / world


def logits_of(outputs: Any) -> Tensor:
    """Return a network's logits, whatever it wraps them in."""
    if isinstance(outputs, Mapping):
        outputs = outputs["logits"]
    elif isinstance(outputs, (tuple, list)):
        outputs = outputs[0]
    logits: Tensor = getattr(outputs, "logits", outputs)
    return logits
