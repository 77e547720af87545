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
    labels, which is undone here.

    Args:
        criterion: with ``reduction="mean"``, ``normalizer="samples"`` and ``ignore_index=-100``.

    Returns:
        A function ``(outputs, labels, num_items_in_batch=None)``; without a number, the batch's own counts.

    Raises:
        ValueError: a criterion that divides otherwise, or ignores other labels, than the Trainer counts.

    Example:
        >>> compute_loss = trainer_loss(ClassBalancedLoss([90, 10]))
        >>> compute_loss({"logits": torch.zeros(2, 2)}, torch.tensor([0, 1]), num_items_in_batch=4)
        tensor(0.3466)
    """
    wanted = {"reduction": "mean", "normalizer": "samples", "ignore_index": -100}
    for name, value in wanted.items():
        if (given := getattr(criterion, name)) != value:
            raise ValueError(
                f"criterion has {name}={given!r}, but the Trainer counts the labels that are not -100 and "
                f"divides by their number; pass {name}={value!r}"
            )

    def compute_loss(outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None) -> Tensor:
        logits = logits_of(outputs)
        if labels is None:
            raise ValueError("the batch has no 'labels'; name the label column 'labels'")
        classes = criterion.weight.numel()
        one = classes == 2 and (logits.ndim == 1 or (logits.ndim > 1 and logits.shape[1] == 1))
        if not one and (logits.ndim < 2 or logits.shape[1] != classes):
            raise ValueError(
                f"the model's logits have shape {tuple(logits.shape)}, but the loss has the counts of "
                f"{classes} classes; give the counts of this data set, and a model with one output a class"
            )
        if criterion.weight.device != logits.device:
            criterion.to(logits.device)
        if num_items_in_batch is None:
            loss: Tensor = criterion(logits, labels)
            return loss
        # one number; under DataParallel one a device, though the batch comes whole: the Trainer multiplies by
        # the number of devices afterwards
        total = torch.as_tensor(num_items_in_batch, device=logits.device).sum()
        if labels.is_floating_point() and not one:
            total = total / classes
        step: Tensor = criterion(logits, labels, denominator=total)
        return step

    return compute_loss


class TrainerMetrics:
    """Our evaluation as ``Trainer(compute_metrics=...)`` wants it.

    With ``TrainingArguments(batch_eval_metrics=True)`` the scores of a batch are read and dropped; without,
    the Trainer gathers those of the whole test set in every process.

    Args:
        class_counts: training samples per class, as for `longtail.evaluate`.
        activation: "softmax" | "sigmoid", as the loss reads logits.

    Attributes:
        last: the last `longtail.Evaluation`, with all that is no single number; None before the first.

    Example:
        >>> metrics = TrainerMetrics([90, 10])
        >>> metrics((np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([0, 1])))["error"]
        0.5
    """

    def __init__(self, class_counts: Any, *, activation: str = "softmax") -> None:
        self._counts = class_counts
        self._activation = _checks.choice("activation", activation, ("softmax", "sigmoid"))
        self._evaluator: Evaluator | None = None
        self.last: Evaluation | None = None

    def __call__(self, predictions: Any, compute_result: bool = True) -> dict[str, float]:
        """Evaluate an ``EvalPrediction``, or scores and labels; samples of label -100 are left out.

        Args:
            predictions: of the whole test set, or of its next batch.
            compute_result: whether this was the last batch; before it, nothing is returned.
        """
        scores, labels = predictions
        if isinstance(scores, tuple):  # models that return more than logits
            scores = scores[0]
        labels = labels if isinstance(labels, Tensor) else np.asarray(labels)
        known = labels != -100
        if not known.all():
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
