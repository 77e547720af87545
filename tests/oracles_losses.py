"""What the losses are by definition, in float64 NumPy and mpmath, importing nothing of longtail.

``logits`` are (N, C) arrays, ``target`` is (N, C) too: one-hot, soft or multi-hot; :func:`one_hot` makes it
of class indices, with a row of zeros where a label is ignored. Every function follows the formula as written;
the only care taken is to name small quantities directly (the probability of all other classes instead of
1 - p).
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

KINDS = ("softmax", "sigmoid", "focal", "softmax_focal")


def flatten(x):
    """(N, C, d1, ...) to (N * d1 * ..., C)."""
    x = np.asarray(x)
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def one_hot(index, classes, ignore_index=-100):
    index = np.asarray(index).reshape(-1)
    hot = np.zeros((index.size, classes))
    for i, label in enumerate(index):
        if label != ignore_index:
            hot[i, label] = 1.0
    return hot


def sample_weight(target, weight):
    """Target-weighted mean of the class weights; 1 where none is positive, mixed below a sum of 1/2."""
    if weight is None:
        return np.ones(len(target))
    mass = target.sum(axis=1)
    return np.array(
        [(row @ weight + max(0.5 - m, 0)) / max(m, 0.5) for row, m in zip(target, mass, strict=True)]
    )


def per_sample(kind, logits, target, weight=None, gamma=0.0, smoothing=0.0, labels=False):
    """Weighted loss of each sample; ``labels``: each output is one, so that smoothing goes towards 1/2."""
    z, target = np.asarray(logits, np.float64), np.asarray(target, np.float64)
    classes = z.shape[1]
    of_sample = sample_weight(target, weight)
    of_class = np.ones(classes) if weight is None else np.asarray(weight, np.float64)
    gamma = gamma if "focal" in kind else 0.0
    if kind in ("softmax", "softmax_focal"):
        log_sum = np.logaddexp.reduce(z, axis=1, keepdims=True)
        others = np.full_like(z, -np.inf)
        for c in range(classes):
            if classes > 1:
                others[:, c] = np.logaddexp.reduce(np.delete(z, c, axis=1), axis=1) - log_sum[:, 0]
        per_class = np.exp(gamma * others) * (log_sum - z) if gamma else log_sum - z
        smooth = smoothing / classes * per_class.sum(axis=1) * of_sample
        return (1 - smoothing) * (target * of_class * per_class).sum(axis=1) + smooth
    t = (1 - smoothing) * target + smoothing / (2 if labels else classes)
    minus_log_p, minus_log_q = np.logaddexp(0, -z), np.logaddexp(0, z)
    cross_entropy = t * minus_log_p + (1 - t) * minus_log_q
    p, q = np.exp(-minus_log_p), np.exp(-minus_log_q)
    return of_sample * ((p * (1 - t) + q * t) ** gamma * cross_entropy).sum(axis=1)


def reduce(losses, weights, valid, reduction, normalizer="samples", denominator=None):
    losses = np.where(valid, losses, 0.0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if denominator is None:
        denominator = valid.sum() if normalizer == "samples" else weights[valid].sum()
    return losses.sum() / denominator if denominator else 0.0


def exact_sample(kind, z, t, of_class, of_sample, gamma, smoothing=0.0, labels=False):
    """One sample's loss at mpmath's working precision."""
    classes = len(z)
    gamma = mp.mpf(gamma) if "focal" in kind else mp.mpf(0)
    smoothing = mp.mpf(smoothing)
    if kind in ("softmax", "softmax_focal"):
        e = [mp.exp(x) for x in z]
        total, loss = mp.fsum(e), mp.mpf(0)
        for c in range(classes):
            others = mp.fsum(e[:c] + e[c + 1 :]) / total
            value = others**gamma * -mp.log(e[c] / total)
            loss += ((1 - smoothing) * t[c] * of_class[c] + smoothing / classes * of_sample) * value
        return loss
    loss = mp.mpf(0)
    for x, y in zip(z, t, strict=True):
        y = (1 - smoothing) * y + smoothing / (2 if labels else classes)
        p, q = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
        loss += (p * (1 - y) + q * y) ** gamma * -(y * mp.log(p) + (1 - y) * mp.log(q))
    return of_sample * loss


def exact(kind, logits, target, weight=None, gamma=0.0, smoothing=0.0, labels=False, digits=60):
    """Per-sample losses and their gradients by central differences, each to about ``digits`` / 2 digits."""
    logits, target = np.asarray(logits, np.float64), np.asarray(target, np.float64)
    samples, classes = logits.shape
    of_sample = sample_weight(target, weight)
    of_class = [1.0] * classes if weight is None else [float(w) for w in weight]
    losses, gradients = np.zeros(samples), np.zeros_like(logits)
    with mp.workdps(digits):
        h = mp.mpf(10) ** (-digits // 3)
        for i in range(samples):
            z, t = [mp.mpf(float(x)) for x in logits[i]], [mp.mpf(float(x)) for x in target[i]]
            rest = (t, of_class, float(of_sample[i]), gamma, smoothing, labels)
            losses[i] = exact_sample(kind, z, *rest)
            for c in range(classes):
                up, down = list(z), list(z)
                up[c], down[c] = z[c] + h, z[c] - h
                gradients[i, c] = (exact_sample(kind, up, *rest) - exact_sample(kind, down, *rest)) / (2 * h)
    return losses, gradients


def official(kind, logits, labels, counts, beta, gamma):
    """The official TensorFlow code's loss (Cui et al., CVPR 2019), its modulator in exact arithmetic.

    Weights (1 - beta) / (1 - beta^n) are normalised to sum to C, gathered per sample, tiled over the C
    outputs; sigmoid and focal sum over classes; all divide by the batch size.
    """
    logits, counts = np.asarray(logits, np.float64), np.asarray(counts, np.float64)
    batch, classes = logits.shape
    weights = (1.0 - beta) / (1.0 - np.power(beta, counts))
    weights = weights / weights.sum() * classes
    labels = np.eye(classes)[np.asarray(labels)]
    tiled = np.tile((weights * labels).sum(axis=1, keepdims=True), (1, classes))
    if kind == "softmax":
        total = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        return (tiled[:, 0] * (total - (labels * logits).sum(1))).sum() / batch
    binary = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    if kind == "sigmoid":
        return (tiled * binary).sum() / batch
    with mp.workdps(50):
        modulator = [
            [
                float(mp.exp(-gamma * mp.mpf(y) * mp.mpf(z) - gamma * mp.log1p(mp.exp(-mp.mpf(z)))))
                for y, z in zip(*rows, strict=True)
            ]
            for rows in zip(labels.tolist(), logits.tolist(), strict=True)
        ]
    return (tiled * np.array(modulator) * binary).sum() / batch
