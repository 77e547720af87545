"""One battery for every loss: subjects x checks. A new loss joins by one line in SUBJECTS.

`pytest tests/test_losses.py --backend fused` runs all of it on the fused path, wherever that applies, and
with TRITON_INTERPRET=1 on the kernels; every backend's tolerances are the same.
"""

import copy
import functools
import pickle
import re
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import longtail.functional
import oracles_losses as oracle
from longtail import ClassBalancedLoss, class_counts, class_weights, methods, recipes
from longtail.losses import functional
from longtail.losses.fast import fused
from longtail.losses.forms import FORMS, Form


@dataclass(frozen=True)
class Subject:
    kind: str
    gamma: float | None = None

    @property
    def name(self):
        return self.kind if self.gamma is None else f"{self.kind}-{self.gamma:g}"

    def __call__(self, input, target, weight=None, **options):
        loss = {
            "softmax": longtail.functional.class_balanced_cross_entropy,
            "sigmoid": longtail.functional.class_balanced_binary_cross_entropy,
            "focal": longtail.functional.class_balanced_focal_loss,
            "softmax_focal": longtail.functional.class_balanced_softmax_focal_loss,
        }[self.kind]
        if self.gamma is not None:
            options = {"gamma": self.gamma} | options
        return loss(input, target, weight, **options)

    @property
    def target_kinds(self):
        extra = ("multi_hot",) if self.kind in ("sigmoid", "focal") else ()
        return ("index", "one_hot", "soft", *extra)

    def expected(self, input, target, weight=None, *, exact=False, smoothing=0.0, ignore_index=-100):
        """Per-sample losses (and gradients, where ``exact``) by the oracle, of the flattened batch."""
        z = oracle.flatten(array(input))
        if target.is_floating_point():
            t = oracle.flatten(array(target))
        else:
            t = oracle.one_hot(array(target), z.shape[1], ignore_index)
        rest = (self.gamma or 0.0, smoothing, target.is_floating_point())
        if not exact:
            return oracle.per_sample(self.kind, z, t, array(weight), *rest)
        w = np.ones(z.shape[1]) if weight is None else array(weight)
        return exact_once(self.kind, z.shape, z.tobytes(), t.tobytes(), w.tobytes(), *rest)


@functools.cache
def exact_once(kind, shape, z, t, w, gamma, smoothing, labels):
    z, t, w = (np.frombuffer(x) for x in (z, t, w))
    return oracle.exact(kind, z.reshape(shape), t.reshape(shape), w, gamma, smoothing, labels)


SUBJECTS = [
    Subject("softmax"),
    Subject("sigmoid"),
    Subject("focal", 2.0),
    Subject("focal", 0.5),
    Subject("softmax_focal", 2.0),
    Subject("softmax_focal", 0.5),
]
ONE_OF_EACH = [SUBJECTS[0], SUBJECTS[1], SUBJECTS[2], SUBJECTS[4]]
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
EXTREMES = [Subject("softmax"), Subject("sigmoid")] + [
    Subject(kind, gamma) for kind in ("focal", "softmax_focal") for gamma in GAMMAS
]
CASES = [(s, t) for s in SUBJECTS for t in s.target_kinds]

# input dtype -> relative and absolute tolerance of the value, then of the gradient. Half precision is
# computed in float32, so only the gradient is coarser, which torch casts back to the input's dtype. The
# gradient's absolute part counts in units of the batch's largest.
TOLERANCE = {
    torch.float64: ((1e-12, 1e-13), (1e-11, 1e-12)),
    torch.float32: ((2e-6, 1e-6), (4e-6, 2e-6)),
    torch.bfloat16: ((2e-6, 1e-6), (2**-8, 2e-6)),
    torch.float16: ((2e-6, 1e-6), (2**-10, 2e-6)),
}
DTYPES = list(TOLERANCE)


pytestmark = [pytest.mark.usefixtures("one_thread")]
INTERPRETED = fused.INTERPRETED  # Triton's interpreter: numpy computes, which warns where a GPU does not
if INTERPRETED:
    TOLERANCE[torch.bfloat16] = ((2e-6, 1e-6), (2**-7, 2e-6))  # it cuts digits off where a GPU rounds
    pytestmark += [
        pytest.mark.filterwarnings(
            "ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning"
        ),
        pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
        pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
    ]
NOBODY_LOOKS = "on a GPU nobody looks at the labels first"


def label(x):
    return x.name if isinstance(x, Subject) else str(x).removeprefix("torch.")


def each(argument, values):
    return pytest.mark.parametrize(argument, values, ids=label)


subjects = each("subject", SUBJECTS)
one_of_each = each("subject", ONE_OF_EACH)
# torch's own compiler and torch.func import modules that warn of torch.jit
torch_imports_torchscript = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def _backend(request):
    """Make "auto" prefer the backend under test for every input that it can take."""
    backend = request.config.getoption("--backend")
    with pytest.MonkeyPatch.context() as patch:
        if backend != "auto":
            patch.setattr(fused, "worthwhile", lambda input, form: backend == "fused")
        yield


@pytest.fixture
def rng(request):
    return torch.Generator().manual_seed(zlib.crc32(request.node.name.encode()))


def array(x):
    return (
        None if x is None else x.detach().double().cpu().numpy() if x.is_floating_point() else x.cpu().numpy()
    )


def targets(kind, shape, rng, dtype=torch.float64):
    """Targets for logits of this shape, on the CPU."""
    labels = torch.randint(shape[1], shape[:1] + shape[2:], generator=rng)
    if kind == "index":
        return labels
    if kind == "one_hot":
        return torch.zeros(shape, dtype=dtype).scatter(1, labels.unsqueeze(1), 1.0)
    if kind == "soft":
        return torch.randn(shape, generator=rng, dtype=torch.float64).softmax(1).to(dtype)
    hot = (torch.rand(shape, generator=rng) < 0.4).to(dtype)
    hot[0] = 0.0  # a sample without any class
    return hot


def problem(kind, rng, shape=(7, 4), dtype=torch.float64, device="cpu", scale=3.0):
    logits = (scale * torch.randn(shape, generator=rng, dtype=torch.float64)).to(dtype)
    weight = torch.rand(shape[1], generator=rng, dtype=torch.float64) * 3 + 0.1
    target = targets(kind, shape, rng, torch.float32 if dtype.itemsize < 4 else dtype)
    return logits.to(device).requires_grad_(), target.to(device), weight.to(device)


def gradient(loss, input):
    return torch.autograd.grad(loss, input)[0]


def close(actual, expected, rtol=1e-6, atol=1e-8):
    actual = array(actual) if isinstance(actual, torch.Tensor) else actual
    expected = array(expected) if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def agree_with_oracle(subject, input, target, weight, upstream=None, **options):
    """Compare per-sample losses and the gradient of their upstream-weighted sum with the exact definition."""
    values, gradients = subject.expected(input, target, weight, exact=True, **options)
    names = {"smoothing": "label_smoothing"}
    options = {names.get(k, k): v for k, v in options.items()}
    losses = subject(input, target, weight, reduction="none", **options)
    assert losses.dtype == (torch.float64 if input.dtype == torch.float64 else torch.float32)
    assert losses.shape == input.shape[:1] + input.shape[2:]
    (rtol, atol), (grtol, gatol) = TOLERANCE[input.dtype]
    close(losses.reshape(-1), values, rtol, atol)
    upstream = torch.ones_like(losses) if upstream is None else upstream
    got = gradient((losses * upstream).sum(), input)
    assert got.dtype == input.dtype
    gradients = gradients * array(upstream).reshape(-1, 1)
    close(oracle.flatten(array(got)), gradients, grtol, gatol * max(1.0, abs(gradients).max()))


# --- values and gradients


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_the_two_oracles_agree(kind, rng):
    logits, target, weight = problem("soft", rng)
    for gamma in GAMMAS:
        args = (kind, array(logits), array(target), array(weight), gamma, 0.1)
        close(oracle.per_sample(*args), oracle.exact(*args)[0], 1e-12)


@pytest.mark.parametrize(("subject", "kind"), CASES, ids=label)
@each("dtype", DTYPES)
def test_values_and_gradients_match_the_definition(subject, kind, dtype, device, rng):
    input, target, weight = problem(kind, rng, shape=(5, 3), dtype=dtype, device=device)
    upstream = torch.rand(5, generator=rng).to(device) * 3 - 1  # a gradient from above that is not 1
    agree_with_oracle(subject, input, target, weight, upstream)
    agree_with_oracle(subject, input, target, weight, smoothing=0.1)
    agree_with_oracle(subject, input, target, None)


LAYOUTS = {"tokens": (2, 3, 2), "pixels": (1, 3, 2, 2)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("subject", "kind"), [(s, k) for s, k in CASES if s in ONE_OF_EACH], ids=label)
@each("dtype", DTYPES)
def test_tokens_and_pixels_match_the_definition(subject, kind, dtype, layout, device, rng):
    shape = LAYOUTS[layout]
    input, target, weight = problem(kind, rng, shape=shape, dtype=dtype, device=device)
    upstream = torch.rand(shape[:1] + shape[2:], generator=rng).to(device) * 3 - 1
    agree_with_oracle(subject, input, target, weight, upstream)
    last = (
        input.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    )  # classes last in memory
    agree_with_oracle(subject, last, target, weight, upstream)
    if kind != "index":
        return
    void = target.clone()
    void[0, 0] = -100
    padded = input.detach().clone()
    padded[0, :, 0] = torch.nan  # padding may hold anything
    padded.requires_grad_()
    losses = subject(padded, void, weight, reduction="none")
    kept = subject(input, target, weight, reduction="none")
    gone = void == -100
    assert (losses[gone] == 0).all()
    assert torch.equal(losses[~gone], kept[~gone])
    got = gradient(subject(padded, void, weight, reduction="mean", normalizer="samples"), padded)
    assert (got.movedim(1, -1)[gone] == 0).all()
    wanted = gradient((kept * ~gone).sum() / (~gone).sum(), input)
    (_, _), (rtol, atol) = TOLERANCE[dtype]
    close(got.movedim(1, -1)[~gone], wanted.movedim(1, -1)[~gone], rtol, atol)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 1, 2), (1, 1, 2, 2)], ids=str)
@pytest.mark.parametrize(("loss", "kind"), [("sigmoid", "softmax"), ("focal", "softmax_focal")])
@each("dtype", DTYPES)
def test_one_logit_is_the_second_of_two_beside_0(loss, kind, shape, dtype, device, rng):
    input = (3 * torch.randn(shape, generator=rng, dtype=torch.float64)).to(dtype).to(device).requires_grad_()
    labels = torch.randint(2, shape, generator=rng).to(device)
    criterion = ClassBalancedLoss([30, 3], loss=loss, gamma=2.0, reduction="none").to(device)
    weight = np.asarray(class_weights([30, 3]))
    z = np.stack([np.zeros(4), array(input).reshape(-1)], 1)
    hot = oracle.one_hot(array(labels).reshape(-1), 2)
    gamma = 2.0 if loss == "focal" else 0.0
    values, gradients = oracle.exact(kind, z, hot, weight, gamma)
    upstream = torch.rand(4, generator=rng).to(device) * 3 - 1
    (rtol, atol), (grtol, gatol) = TOLERANCE[dtype]
    for target in (labels, labels.bool(), labels.to(dtype)):
        losses = criterion(input, target)
        close(losses.reshape(-1), values, max(rtol, 1e-6), atol)  # the weight is float32
        got = gradient((losses.reshape(-1) * upstream).sum(), input)
        wanted = gradients[:, 1] * array(upstream)
        close(got.reshape(-1), wanted, max(grtol, 1e-6), gatol * max(1.0, abs(wanted).max()))
    big = torch.full(shape, 1e4, dtype=dtype, device=device).requires_grad_()
    slope = gradient(criterion(big, torch.zeros_like(labels)).sum(), big)
    assert slope.isfinite().all()
    close(slope.float(), np.full(shape, np.float32(weight[0])), 2**-7)


@pytest.mark.parametrize(("subject", "kind"), CASES, ids=label)
@pytest.mark.parametrize("normalizer", ["samples", "weights"])
def test_reductions_match_the_definition(subject, kind, normalizer, device, rng):
    input, target, weight = problem(kind, rng, shape=(5, 3, 2), device=device)
    t = oracle.flatten(array(target)) if kind != "index" else oracle.one_hot(array(target), 3)
    weights, valid = oracle.sample_weight(t, array(weight)), np.ones(10, bool)
    losses = subject.expected(input, target, weight)
    for reduction, denominator in (("none", None), ("sum", None), ("mean", None), ("mean", 7.0)):
        options = {"reduction": reduction, "normalizer": normalizer, "denominator": denominator}
        close(
            subject(input, target, weight, **options).reshape(-1),
            np.atleast_1d(oracle.reduce(losses, weights, valid, **options)),
            1e-11,
        )


@pytest.mark.parametrize(("subject", "kind"), CASES, ids=label)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradcheck_first_and_second_order(subject, kind, smoothing, rng):
    input, target, weight = problem(kind, rng, shape=(2, 3), scale=1.0)

    def loss(x):
        return subject(x, target, weight, label_smoothing=smoothing, reduction="none")

    assert torch.autograd.gradcheck(loss, (input,))
    assert torch.autograd.gradgradcheck(loss, (input,), fast_mode=True)


@each("subject", [s for s in SUBJECTS if s.kind != "softmax"])
def test_gradient_for_soft_labels_and_weights(subject, rng):
    input, target, weight = problem("soft", rng, shape=(3, 4), scale=1.0)
    target.requires_grad_()
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda t, w: subject(input, t, w), (target, weight))
    hot = torch.eye(4, dtype=torch.float64)[:3].requires_grad_()  # 0 and 1 are the ends of the interval
    assert gradient(subject(input, hot, weight), hot).isfinite().all()


# all are exact in every dtype; 10240 is the first such number beyond 1e4
HARD = [-10240.0, -1e3, -100.0, -89.0, -30.0, 0.0, 30.0, 89.0, 100.0, 1e3, 10240.0]


@each("subject", EXTREMES)
@each("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["index", "one_hot", "soft"])
def test_logits_to_1e4_are_finite_and_right(subject, dtype, kind, device, rng):
    top = max(HARD)
    rows = [[z, 0.0, 0.5] for z in HARD] + [[top, z, -top] for z in HARD] + [[-z, z, z] for z in HARD]
    input = torch.tensor(rows, dtype=dtype, device=device).requires_grad_()
    target = torch.zeros(len(rows), dtype=torch.long, device=device)
    if kind != "index":
        target = F.one_hot(target, 3).float()
    if kind == "soft":
        target = target * 0.75 + torch.tensor([0.0, 0.25, 0.0], device=device)
    weight = torch.tensor([0.3, 1.7, 1.0], device=device)
    upstream = torch.full((len(rows),), 0.37, device=device)  # no power of two: rounding shows
    agree_with_oracle(subject, input, target, weight, upstream)
    if subject.kind in ("sigmoid", "focal") and kind == "one_hot":
        agree_with_oracle(subject, input, 1.0 - target, weight)
        agree_with_oracle(subject, input, torch.zeros_like(target), weight)


@pytest.mark.parametrize("kind", ["focal", "softmax_focal"])
@pytest.mark.parametrize("gamma", [0.01, 0.5, 1.5, 2.0])
@pytest.mark.parametrize("target_kind", ["index", "one_hot"])
def test_second_derivative_of_saturated_samples_is_finite(kind, gamma, target_kind, device):
    x = torch.tensor([[z, -z, 0.0] for z in HARD], device=device).requires_grad_()
    y = torch.zeros(len(HARD), dtype=torch.long, device=device)
    y = y if target_kind == "index" else F.one_hot(y, 3).float()
    first = torch.autograd.grad(Subject(kind, gamma)(x, y, reduction="sum"), x, create_graph=True)[0]
    assert gradient(first.square().sum(), x).isfinite().all()


@one_of_each
def test_a_class_masked_with_minus_infinity_is_left_alone(subject, device):
    x = torch.tensor([[0.5, 1.0, -torch.inf], [0.0, -torch.inf, -torch.inf]], device=device).requires_grad_()
    loss = subject(x, torch.zeros(2, dtype=torch.long, device=device), reduction="none")
    grad = gradient(loss.sum(), x)
    assert loss.isfinite().all()
    assert grad.isfinite().all()
    assert (grad[x.isinf()] == 0).all()


# --- identities


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"normalizer": "weights"}], ids=str)
def test_gamma_0_is_the_cross_entropy(options, device, rng):
    for kind in ("index", "one_hot", "soft"):
        args = problem(kind, rng, device=device)
        close(Subject("focal", 0.0)(*args, **options), Subject("sigmoid")(*args, **options), 1e-12)
        close(Subject("softmax_focal", 0.0)(*args, **options), Subject("softmax")(*args, **options), 1e-12)


@subjects
def test_equal_counts_are_no_weights(subject, device, rng):
    input, target, _ = problem("index", rng, dtype=torch.float32, device=device)
    kind = {} if subject.gamma is None else {"gamma": subject.gamma}
    criterion = ClassBalancedLoss([40] * 4, loss=subject.kind, **kind).to(device)
    close(criterion(input, target), subject(input, target), 1e-6)


@subjects
@pytest.mark.parametrize("normalizer", ["samples", "weights"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_is_index(subject, normalizer, smoothing, device, rng):
    input, target, weight = problem("index", rng, shape=(6, 4, 3), device=device)
    hot = F.one_hot(target, 4).movedim(-1, 1).double()
    if smoothing and subject.kind in ("sigmoid", "focal"):
        pytest.skip("one-hot rows are labels of their own there, which are smoothed towards 1/2")
    options = {"normalizer": normalizer, "label_smoothing": smoothing}
    one, other = subject(input, target, weight, **options), subject(input, hot, weight, **options)
    close(one, other, 1e-12)
    close(gradient(one, input), gradient(other, input), 1e-10, 1e-14)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_softmax_with_normalizer_weights_is_torch(reduction, device, rng):
    input, target, weight = problem("index", rng, shape=(6, 4, 3), device=device)
    target[0] = -100
    ours = Subject("softmax")(input, target, weight, reduction=reduction, normalizer="weights")
    close(ours, F.cross_entropy(input, target, weight, reduction=reduction), 1e-12)


@pytest.mark.parametrize("kind", ["index", "soft"])
def test_label_smoothing_is_torch_where_nothing_is_weighed(kind, device, rng):
    input, target, _ = problem(kind, rng, device=device)
    ours = Subject("softmax")(input, target, label_smoothing=0.2)
    close(ours, F.cross_entropy(input, target, label_smoothing=0.2), 1e-12)


def test_sigmoid_is_torch_summed_over_classes(device, rng):
    input, target, _ = problem("multi_hot", rng, device=device)
    torch_value = F.binary_cross_entropy_with_logits(input, target, reduction="none").sum(1).mean()
    close(Subject("sigmoid")(input, target), torch_value, 1e-12)


def test_smoothing_leaves_the_class_weight_of_the_sample_alone(device):
    input, target = torch.zeros(1, 4, device=device), torch.tensor([1], device=device)
    weight = torch.tensor([5.0, 2.0, 7.0, 9.0], device=device)
    for subject in SUBJECTS:
        ratio = subject(input, target, weight, label_smoothing=0.3) / subject(
            input, target, label_smoothing=0.3
        )
        close(ratio, 2.0)


# --- the official code


@each("subject", [*SUBJECTS[:4], Subject("focal", 1.0)])
@pytest.mark.parametrize("beta", [0.9, 0.999, 0.9999])
@each("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore:.*beta:UserWarning")
def test_official_tensorflow_values(subject, beta, dtype, device, rng):
    counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    input = (torch.randn(32, 10, generator=rng, dtype=torch.float64) * 4).to(dtype)
    target = torch.randint(10, (32,), generator=rng)
    criterion = ClassBalancedLoss(counts, loss=subject.kind, beta=beta, gamma=subject.gamma or 0.0).to(device)
    expected = oracle.official(subject.kind, array(input), target, counts, beta, subject.gamma or 0.0)
    close(criterion(input.to(device), target.to(device)), expected, 1e-6)


# --- properties

some = settings(max_examples=15, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
batches = st.tuples(seeds, st.sampled_from(CASES), st.integers(2, 6), st.integers(2, 9))
kinds_of_mean = st.sampled_from(["samples", "weights"])


def drawn(batch):
    seed, (subject, kind), classes, samples = batch
    generator = torch.Generator().manual_seed(seed)
    return subject, *problem(kind, generator, (samples, classes)), generator


@given(batches, kinds_of_mean)
@some
def test_order_of_classes_and_samples_never_matters(batch, normalizer):
    subject, input, target, weight, generator = drawn(batch)
    order = torch.randperm(input.shape[1], generator=generator)
    rows = torch.randperm(input.shape[0], generator=generator)
    renamed = target[:, order] if target.is_floating_point() else order.argsort()[target]
    close(
        subject(input[:, order][rows], renamed[rows], weight[order], normalizer=normalizer),
        subject(input, target, weight, normalizer=normalizer),
        1e-11,
    )


@given(batches, kinds_of_mean, st.booleans())
@some
def test_parts_of_a_batch_combine(batch, normalizer, ignore):
    subject, input, target, weight, _ = drawn(batch)
    if ignore and not target.is_floating_point():
        target[::3] = -100
    cut = len(input) // 2
    parts = [(input[:cut], target[:cut]), (input[cut:], target[cut:])]

    def counted(t):
        return functional.count(t, weight, normalizer=normalizer)

    def total(x, t):
        return subject(x, t, weight, reduction="sum")

    def mean(x, t, denominator=None):
        return subject(x, t, weight, normalizer=normalizer, denominator=denominator)

    close(sum(total(*p) for p in parts), total(input, target), 1e-11)
    whole = counted(target)
    close(sum(counted(t) for _, t in parts), whole, 1e-12)
    close(sum(mean(*p, denominator=whole) for p in parts), mean(input, target), 1e-11)
    if whole > 0:
        close(sum(mean(*p) * counted(p[1]) for p in parts) / whole, mean(input, target), 1e-11)


@given(batches, kinds_of_mean, st.sampled_from([-100, -1, 0, 255]))
@some
def test_ignored_rows_never_matter(batch, normalizer, ignore_index):
    subject, input, target, weight, generator = drawn((batch[0], (batch[1][0], "index"), *batch[2:]))
    keep = torch.rand(len(target), generator=generator) < 0.6
    target = torch.where(keep, target.clamp(min=1), ignore_index)
    options = {"normalizer": normalizer, "ignore_index": ignore_index}
    loss = subject(input, target, weight, **options)
    close(loss, subject(input[keep], target[keep], weight, **options), 1e-11)
    grad = gradient(loss, input)
    assert (grad[~keep] == 0).all()
    close(
        grad[keep], gradient(subject(input[keep], target[keep], weight, **options), input)[keep], 1e-10, 1e-13
    )
    none = subject(input, target, weight, reduction="none", **options)
    assert (none[~keep] == 0).all()


@given(seeds, st.sampled_from(CASES), st.lists(st.integers(1, 3), min_size=1, max_size=3))
@some
def test_n_d_equals_flattened(seed, case, extent):
    subject, kind = case
    input, target, weight = problem(kind, torch.Generator().manual_seed(seed), (2, 3, *extent))
    flat = input.movedim(1, -1).reshape(-1, 3)
    flat_target = target.movedim(1, -1).reshape(-1, 3) if target.is_floating_point() else target.reshape(-1)
    for reduction in ("none", "mean"):
        one = subject(input, target, weight, reduction=reduction)
        assert one.shape == (() if reduction == "mean" else (2, *extent))
        close(one.reshape(-1), subject(flat, flat_target, weight, reduction=reduction).reshape(-1), 1e-11)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6), st.floats(0, 1), seeds)
@settings(some, max_examples=40)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_any_counts_and_any_beta_give_a_finite_loss(counts, beta, seed):
    counts[0] += 1
    generator = torch.Generator().manual_seed(seed)
    input, target, _ = problem("index", generator, (4, len(counts)), torch.float32, scale=100.0)
    for subject in ONE_OF_EACH:
        loss = ClassBalancedLoss(counts, loss=subject.kind, beta=beta)(input, target)
        assert loss.isfinite()
        assert gradient(loss, input).isfinite().all()


# --- shapes, layouts and dtypes


@subjects
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["index", "one_hot"])
def test_memory_layout_never_matters(subject, smoothing, kind, device, rng):
    input, target, weight = problem(kind, rng, shape=(4, 3, 2, 5), device=device)
    options = {"label_smoothing": smoothing}
    expected = subject(input, target, weight, **options)
    strided = input.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    assert not strided.is_contiguous()
    turned = target.transpose(0, -1).contiguous().transpose(0, -1)
    actual = subject(strided, turned, weight, **options)
    close(actual, expected, 1e-12)
    close(gradient(actual, strided), gradient(expected, input), 1e-11, 1e-15)
    spaced = weight.repeat_interleave(2)[::2]
    close(subject(input, target, spaced, **options), expected, 1e-12)


@subjects
def test_expanded_tensors(subject, device):
    row = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64, device=device).requires_grad_()
    weight = torch.ones(1, dtype=torch.float64, device=device).expand(3)
    one = subject(row, torch.tensor([1], device=device))
    five = subject(row.expand(5, 3), torch.tensor([1], device=device).expand(5), weight)
    close(five, one, 1e-12)
    close(gradient(five, row), gradient(one, row), 1e-12)


@subjects
@pytest.mark.parametrize("kind", ["index", "one_hot"])
@pytest.mark.parametrize("normalizer", ["samples", "weights"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2), (2, 3, 0)], ids=str)
def test_empty_batch_is_zero_with_a_zero_gradient(subject, kind, normalizer, shape, device, rng):
    input, target, weight = problem("index", rng, shape=shape, dtype=torch.float32, device=device)
    target = target if kind == "index" else torch.zeros(shape, device=device)
    for smoothing in (0.0, 0.1):
        loss = subject(input, target, weight, normalizer=normalizer, label_smoothing=smoothing)
        assert loss.item() == 0
        assert gradient(loss, input).shape == shape
    assert subject(input, target, weight, reduction="none").shape == shape[:1] + shape[2:]


@subjects
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 255])
@pytest.mark.parametrize("normalizer", ["samples", "weights"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_ignored_is_zero_with_a_zero_gradient(subject, ignore_index, normalizer, smoothing, device, rng):
    input, _, weight = problem("index", rng, device=device)
    target = torch.full((7,), ignore_index, device=device)
    options = {"ignore_index": ignore_index, "normalizer": normalizer, "label_smoothing": smoothing}
    for denominator in (None, 0, torch.tensor(0), 5.0):
        loss = subject(input, target, weight, denominator=denominator, **options)
        assert loss.item() == 0
        assert (gradient(loss, input) == 0).all()


@subjects
@each("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32])
def test_any_integer_labels(subject, dtype, device, rng):
    input, target, weight = problem("index", rng, device=device)
    target[2] = 100
    loss = subject(input, target.to(dtype), weight, ignore_index=100)
    assert loss.item() == subject(input, target, weight, ignore_index=100).item()
    assert functional.count(target.to(dtype), weight, ignore_index=100).item() == 6


@subjects
@each("dtype", DTYPES)
def test_weights_and_soft_labels_of_another_dtype(subject, dtype, device, rng):
    input, target, weight = problem("soft", rng, device=device, dtype=torch.float32)
    loss = subject(input, target.to(dtype), weight.to(dtype))
    assert loss.dtype == torch.float32
    close(loss, subject(input, target.to(dtype).float(), weight.to(dtype).float()), 1e-7)


# --- denominators and counts


@subjects
def test_denominator_replaces_the_divisor(subject, device, rng):
    input, target, weight = problem("index", rng, device=device)
    total = subject(input, target, weight, reduction="sum")
    for d in (4, 4.0, np.int64(4), np.float32(4), torch.tensor(4), torch.tensor([4.0], device=device)):
        close(subject(input, target, weight, denominator=d), total / 4, 1e-12)
    for zero in (0, 0.0, torch.tensor(0), torch.tensor(0.0, device=device)):
        ignored = torch.full_like(target, -100)  # a step without a sample: 0 / 0 is 0
        assert subject(input, ignored, weight, denominator=zero) == 0
        if device == "cpu":
            with pytest.raises(ValueError, match=r"denominator is 0, but the batch has samples that count"):
                subject(input, target, weight, denominator=zero)
    for negative in (-1, -0.5, torch.tensor(-1), torch.tensor(-0.5, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"denominator must be .*got -"):
            subject(input, target, weight, denominator=negative)
    assert subject(input, target, weight, denominator=torch.tensor(torch.nan)).isnan()


@pytest.mark.parametrize("normalizer", ["samples", "weights"])
@pytest.mark.parametrize("kind", ["index", "one_hot", "soft", "multi_hot"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_count_is_the_divisor(normalizer, kind, smoothing, device, rng):
    for loss in ("softmax", "sigmoid", "focal", "softmax_focal"):
        options = {"loss": loss, "normalizer": normalizer, "label_smoothing": smoothing}
        criterion = ClassBalancedLoss([90, 9, 3, 1], **options).to(device)
        input, target, _ = problem(kind, rng, shape=(6, 4, 2), device=device, dtype=torch.float32)
        if kind == "index":
            target[0] = -100
        d = criterion.count(target)
        assert d.shape == ()
        assert d.device.type == device
        close(criterion(input, target, denominator=d), criterion(input, target), 1e-6)
        summed = ClassBalancedLoss([90, 9, 3, 1], reduction="sum", **options).to(device)
        close(summed(input, target) / d, criterion(input, target), 1e-6)


def test_count_of_half_precision_labels_is_exact(device):
    criterion = ClassBalancedLoss([1000, 10], normalizer="weights").to(device)
    soft = torch.rand(999, 2, generator=torch.Generator().manual_seed(0)).bfloat16().to(device)
    assert criterion.count(soft).dtype == torch.float32
    close(criterion.count(soft), criterion.count(soft.double()), 1e-6)


# --- any callable loss


def per_sample_cross_entropy(input, target):
    return F.cross_entropy(input, target, reduction="none")


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("normalizer", ["samples", "weights"])
@pytest.mark.parametrize("kind", ["index", "ignored"])
def test_callable_loss(reduction, normalizer, kind, device, rng):
    input, target, weight = problem("index", rng, shape=(5, 4, 3), device=device)
    if kind == "ignored":
        target[1:3] = 255
    options = {"reduction": reduction, "normalizer": normalizer, "ignore_index": 255}
    ours = functional.class_balanced_callable(per_sample_cross_entropy, input, target, weight, **options)
    close(ours, Subject("softmax")(input, target, weight, **options), 1e-12)


def test_callable_loss_in_the_module_with_soft_labels(device, rng):
    input, target, _ = problem("soft", rng, device=device, dtype=torch.bfloat16)
    criterion = ClassBalancedLoss([90, 9, 3, 1], loss=nn.CrossEntropyLoss(reduction="none")).to(device)
    loss = criterion(input.float(), target)
    weights = oracle.sample_weight(array(target), array(criterion.weight))
    close(loss, (weights * oracle.per_sample("softmax", array(input), array(target))).mean(), 1e-6)
    assert criterion(input.detach(), target.bfloat16()).dtype == torch.float32
    assert "CrossEntropyLoss" in repr(criterion)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (
            lambda x, y: x.sum(),
            ValueError,
            r"loss must return shape \(2,\), got \(\); return one value a sample",
        ),
        (lambda x, y: x, ValueError, r"shape \(2,\), got \(2, 3\); reduce over the classes, not the samples"),
        (lambda x, y: 1.5, TypeError, r"loss must return a tensor, got float 1\.5"),
        (lambda x, y: None, TypeError, r"loss must return a tensor, got NoneType"),
    ],
)
def test_callable_loss_with_a_wrong_answer(returned, error, message):
    with pytest.raises(error, match=message):
        ClassBalancedLoss([3, 2, 1], loss=returned)(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_an_error_inside_a_callable_loss_comes_through():
    def broken(input, target):
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        ClassBalancedLoss([3, 2, 1], loss=broken)(torch.zeros(2, 3), torch.tensor([0, 1]))


# --- the module


def module(subject, **options):
    gamma = {} if subject.gamma is None else {"gamma": subject.gamma}
    return ClassBalancedLoss([900, 90, 30, 5], loss=subject.kind, **gamma, **options)


@subjects
@pytest.mark.parametrize("kind", ["index", "soft"])
def test_module_is_the_function(subject, kind, device, rng):
    input, target, _ = problem(kind, rng, dtype=torch.float32, device=device)
    for options in (
        {"reduction": "none"},
        {"reduction": "sum", "ignore_index": 2},
        {"normalizer": "weights", "label_smoothing": 0.1},
    ):
        criterion = module(subject, **options).to(device)
        if kind == "soft" and "ignore_index" in options and "softmax" in subject.kind:
            with pytest.raises(ValueError, match=r"ignore_index=2 has no meaning for probabilities"):
                criterion(input, target)
            continue
        assert torch.equal(criterion(input, target), subject(input, target, criterion.weight, **options))


@subjects
def test_copies_and_pickles_agree(subject, rng):
    input, target, _ = problem("index", rng)
    criterion = module(subject, normalizer="weights", label_smoothing=0.1, ignore_index=2)
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(other(input, target), criterion(input, target))
        assert repr(other) == repr(criterion)
        other.weight.zero_()
        assert criterion.weight.all()


def test_what_is_kept_of_a_batch_follows_weight_and_size(device, rng):
    criterion = ClassBalancedLoss([5, 3, 2]).to(device)
    input, target, _ = problem("index", rng, shape=(6, 3), dtype=torch.float32, device=device)

    def same(rows):
        wanted = F.cross_entropy(input[:rows], target[:rows], criterion.weight, reduction="sum") / rows
        close(criterion(input[:rows], target[:rows]), wanted, 1e-6)

    same(6), same(6), same(4), same(6)
    with torch.inference_mode():
        same(5)
    same(5)
    criterion.weight = torch.tensor([1.0, 2.0, 3.0], device=device)
    same(5)
    criterion.weight.mul_(2.0)
    same(5)
    criterion = copy.deepcopy(criterion)
    criterion.weight[0] = 7.0
    same(5)


@pytest.mark.parametrize("normalizer", ["samples", "weights"])
def test_what_is_known_of_weight_and_offset_follows_their_values(normalizer):
    x, y = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    weights, offsets = np.array([1, 2, 3], np.float32), np.array([0, 1, -1], np.float32)
    w, a = torch.from_numpy(weights), torch.from_numpy(offsets)  # their memory changes, and no version counts
    criterion = ClassBalancedLoss(weight=[1, 1, 1], offset=[0, 0, 0], normalizer=normalizer)
    criterion.weight, criterion._shifts["offset"] = w, a

    def same():
        z = x.double() + a
        expected = F.cross_entropy(z, y, w.double(), reduction="sum")
        expected /= len(y) if normalizer == "samples" else w[y].sum().item()
        for value in (
            criterion(x, y),
            functional.class_balanced_cross_entropy(x, y, w, offset=a, normalizer=normalizer),
        ):
            close(value, expected, 1e-6)
        bare = F.cross_entropy(z - a, y, w.double(), reduction="sum")
        value = functional.class_balanced_cross_entropy(x, y, w, normalizer=normalizer, reduction="sum")
        close(value, bare, 1e-6)

    same(), same()
    weights[1] = 7.0
    same()
    offsets[:] = [3, 2, 1]
    same()
    weights[2] = 0.0
    same()
    with torch.inference_mode():
        weights[2] = 2.0
        same()
    z = x.clone().requires_grad_()
    functional.class_balanced_cross_entropy(z, y, w, offset=a, normalizer=normalizer).backward()
    criterion(z, y).backward()
    same()
    double = functional.class_balanced_cross_entropy(x.double(), y, w.double(), normalizer=normalizer)
    close(double, functional.class_balanced_cross_entropy(x, y, w, normalizer=normalizer).double(), 1e-6)
    weights[0] = -1.0
    with pytest.raises(ValueError, match="weight must be finite and >= 0, got -1"):
        functional.class_balanced_cross_entropy(x, y, w, normalizer=normalizer)
    weights[0], offsets[0] = 1.0, np.nan
    with pytest.raises(ValueError, match="offset must be finite, got nan"):
        functional.class_balanced_cross_entropy(x, y, w, offset=a, normalizer=normalizer)


def test_weight_stays_out_of_the_checkpoint():
    criterion = ClassBalancedLoss([5, 3])
    assert criterion.state_dict() == {}
    assert list(criterion.parameters()) == []
    nn.Sequential(nn.Linear(2, 2), criterion).load_state_dict(nn.Sequential(nn.Linear(2, 2)).state_dict())


def test_casting_the_module_keeps_the_weight_exact(device, rng):
    criterion = ClassBalancedLoss([100_001, 70_001, 3]).to(device)
    weight, counts = criterion.weight.clone(), criterion.class_counts.clone()
    for cast in (
        nn.Module.half,
        nn.Module.bfloat16,
        lambda m: m.to(torch.float16),
        lambda m: m.to("cpu").half(),
    ):
        model = copy.deepcopy(criterion)
        cast(model)
        assert model.weight.dtype == torch.float32
        assert torch.equal(model.weight.cpu(), weight.cpu())
        assert torch.equal(model.class_counts.cpu(), counts.cpu())
    assert criterion.double().weight.dtype == torch.float64
    input, target, _ = problem("index", rng, shape=(4, 3), device=device)
    assert criterion.half()(input, target).isfinite()


def test_casting_keeps_a_weight_that_the_user_set(device):
    criterion = ClassBalancedLoss([100, 1]).to(device)
    criterion.weight.fill_(1.0)  # as deferred re-weighting does
    assert criterion.half().weight.tolist() == [1.0, 1.0]


def test_nothing_that_moves_is_float64(device):
    criterion = ClassBalancedLoss([100_001, 70_001, 3])
    assert all(buffer.dtype == torch.float32 for buffer in criterion.buffers())  # what MPS can hold
    moved = []
    criterion._apply(lambda tensor: moved.append(tensor) or tensor.to(device))
    assert [tensor.dtype for tensor in moved] == [torch.float32]
    assert criterion.weight.device.type == device
    assert criterion.class_counts.dtype == torch.float64


def test_the_weight_can_be_set_and_then_moves_and_casts(device):
    criterion = ClassBalancedLoss([100, 1]).to(device)
    criterion.weight = torch.tensor([2.0, 5.0])  # as progressive re-weighting does
    assert criterion.weight.device.type == device
    criterion.double().weight.mul_(2)
    assert criterion.bfloat16().to("cpu").weight.tolist() == [4.0, 10.0]
    assert criterion.weight.dtype == torch.float32
    assert criterion(torch.zeros(1, 2), torch.tensor([1])).item() == pytest.approx(10 * np.log(2))
    kept = copy.deepcopy(criterion).to("meta")
    assert kept.weight.is_meta
    assert kept.to_empty(device="cpu").weight.tolist() == [4.0, 10.0]


def test_leaving_the_meta_device_gives_the_weight_its_values(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Classifier(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig

        def __init__(self, config):
            super().__init__(config)
            self.head, self.criterion = nn.Linear(4, 3), ClassBalancedLoss([1000, 100, 10])
            self.post_init()

    expected = ClassBalancedLoss([1000, 100, 10])
    Classifier(transformers.PretrainedConfig()).save_pretrained(tmp_path)
    with torch.device("meta"):
        built = nn.Sequential(*(ClassBalancedLoss([1000, 100, 10]) for _ in range(2)))
    built[1].half()
    assert all(criterion.weight.is_meta for criterion in built)
    found = [
        Classifier.from_pretrained(tmp_path).criterion,
        Classifier.from_pretrained(tmp_path, dtype=torch.bfloat16).criterion,
        *built.to_empty(device="cpu"),
        copy.deepcopy(expected).to("meta").to_empty(device="cpu"),
    ]
    for criterion in found:
        assert torch.equal(criterion.weight, expected.weight)
        assert torch.equal(criterion.class_counts, expected.class_counts)


def test_repr_says_what_was_chosen():
    assert "num_classes=2, loss='focal', scheme='effective', beta=0.99, gamma=1.5" in repr(
        ClassBalancedLoss([5, 3], loss="focal", beta=0.99, gamma=1.5)
    )
    assert "volume=50" in repr(ClassBalancedLoss([5, 3], volume=50))


def test_counts_in_any_form_give_the_same_weight():
    expected = ClassBalancedLoss([90, 9, 3]).weight
    forms = (
        np.array([90, 9, 3]),
        torch.tensor([90, 9, 3]),
        {"a": 90, "b": 9, "c": 3},
        {2: 3, 0: 90, 1: 9},  # class indices, out of order
    )
    for counts in forms:
        assert torch.equal(ClassBalancedLoss(counts).weight, expected)
    two = ClassBalancedLoss([9, 90]).weight
    booleans = Counter([True] * 90 + [False] * 9)  # the larger first, as value_counts() sorts
    floats = pd.Series([1.0] * 90 + [0.0] * 9 + [None]).value_counts()  # integers beside a missing label
    for counts in (
        booleans,
        class_counts(booleans),
        pd.Series(booleans),
        floats,
        np.array([90.0, 9.0])[::-1],
    ):
        assert torch.equal(ClassBalancedLoss(counts).weight, two)


def test_beta_by_name_follows_the_counts_names():
    expected = ClassBalancedLoss([90, 9], beta=[0.9, 0.5]).weight
    named = ClassBalancedLoss({"a": 90, "b": 9}, beta={"b": 0.5, "a": 0.9})
    assert torch.equal(named.weight, expected)
    out_of_order = ClassBalancedLoss({1: 9, 0: 90}, beta={1: 0.5, 0: 0.9})
    assert torch.equal(out_of_order.weight, expected)
    assert out_of_order.class_counts.tolist() == [90.0, 9.0]
    with pytest.raises(ValueError, match=r"beta lacks a value for 'b'; name every class"):
        ClassBalancedLoss({"a": 90, "b": 9}, beta={"a": 0.9})


# --- the registry of forms


def squared_error(batch, gamma):
    return batch.weigh((batch.logits.sigmoid() - batch.smooth_labels()).abs().pow(gamma).sum(dim=1))


@pytest.fixture
def squared():
    form = Form("squared", "sigmoid", squared_error, takes_gamma=True)
    FORMS.register(form.name, form)
    yield form
    FORMS.unregister(form.name)


def test_a_new_formula_is_one_entry(squared, rng):
    input, target, _ = problem("index", rng, dtype=torch.float32)
    target[0] = -100
    criterion = ClassBalancedLoss([90, 9, 3, 1], loss="squared", gamma=1.5, label_smoothing=0.1)
    hot = F.one_hot(target.clamp(min=0), 4) * 0.9 + 0.1 / 4
    expected = (input.sigmoid() - hot).abs().pow(1.5).sum(1) * criterion.weight[target.clamp(min=0)]
    close(criterion(input, target), expected[1:].sum() / 6, 1e-6)
    assert "loss='squared'" in repr(criterion)
    assert "gamma=1.5" in repr(criterion)
    recipe = recipes.digits(loss="squared", gamma=3.0)
    assert (recipe.activation, recipe.uses_prior_bias, recipe.method.is_focal) == ("sigmoid", True, True)
    assert longtail.recipes.Recipe(**recipe.to_dict()).hash == recipe.hash
    fused_wanted = ClassBalancedLoss([90, 9, 3, 1], loss="squared", backend="fused")
    with pytest.raises(ValueError, match=r"backend='fused' cannot .*does not know the loss 'squared'"):
        fused_wanted(input, target)


def test_a_form_that_is_not_registered_is_unknown_everywhere():
    for call in (
        lambda: ClassBalancedLoss([3, 2], loss="squared"),
        lambda: methods.Method(loss="squared"),
        lambda: recipes.digits(loss="squared"),
    ):
        with pytest.raises(ValueError, match=r"'softmax', 'sigmoid', 'focal'.*'softmax_focal'.*'squared'"):
            call()


# --- training: compile, autocast, in-place scaling, functional transforms


@torch_imports_torchscript
def test_compile_fullgraph_all_losses_with_ignored_labels(device, rng):
    input, target, _ = problem("index", rng, shape=(6, 4, 3), dtype=torch.float32, device=device)
    target[0] = -100
    criteria = nn.ModuleList([module(s, normalizer="weights") for s in ONE_OF_EACH]).to(device)

    def losses(x, y):
        return torch.stack([c(x, y) for c in criteria])

    eager = losses(input, target)
    compiled = torch.compile(losses, fullgraph=True)(input, target)
    close(compiled, eager, 1e-5)
    mix = torch.arange(1.0, 5.0, device=device)
    close(gradient(compiled @ mix, input), gradient(eager @ mix, input), 1e-4, 1e-6)


OPTIONS_IN_A_GRAPH = [
    lambda loss, x, y, w, d: loss(x, y, w, ignore_index=-1, label_smoothing=0.1, reduction="none"),
    lambda loss, x, y, w, d: loss(x, y, w, ignore_index=-1, normalizer="weights", denominator=d),
    lambda loss, x, y, w, d: loss(x, y, None, ignore_index=-1, denominator=3.0),
]


@torch_imports_torchscript
@pytest.mark.parametrize(
    ("subject", "kind", "options"),  # each loss with each kind and option, each kind with each option
    [
        (subject, kind, options)
        for i, subject in enumerate(ONE_OF_EACH)
        for kind, options in (("index", {i % 3, (i + 1) % 3}), ("soft", {(i + 2) % 3}))
    ],
    ids=label,
)
def test_graph_is_unbroken_for_every_option(subject, kind, options, rng):
    input, target, weight = problem(kind, rng)
    if kind == "index":
        target[0] = -1

    def losses(x, y, w, d):
        return tuple(OPTIONS_IN_A_GRAPH[i](subject, x, y, w, d) for i in options)

    d = torch.tensor(5)
    eager = losses(input, target, weight, d)
    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")(input, target, weight, d)
    for a, b in zip(compiled, eager, strict=True):
        close(a, b, 1e-10)
    close(
        gradient(sum(a.sum() for a in compiled), input),
        gradient(sum(b.sum() for b in eager), input),
        1e-9,
        1e-13,
    )


@subjects
@pytest.mark.parametrize("kind", ["index", "soft"])
def test_autocast_computes_in_float32(subject, kind, device, rng):
    input, target, weight = problem(kind, rng, dtype=torch.float32, device=device)
    expected = subject(input, target, weight)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = subject(input, target, weight)
        half = subject(input.bfloat16(), target, weight)
    assert loss.dtype == half.dtype == torch.float32
    close(loss, expected, 1e-6)
    close(half, subject(input.detach().bfloat16().float(), target, weight), 1e-6)
    close(gradient(loss, input), gradient(expected, input), 1e-6)


@subjects
@pytest.mark.parametrize("kind", ["index", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(7, 4), (2, 4, 3)], ids=str)
def test_a_trainer_may_scale_the_loss_in_place(subject, kind, smoothing, reduction, shape, device, rng):
    input, target, weight = problem(kind, rng, shape, device=device)
    if kind == "index":
        target[0] = -100
    options = {"reduction": reduction, "label_smoothing": smoothing}
    expected = gradient(subject(input, target, weight, **options).sum() / 3 * 2, input)
    loss = subject(input, target, weight, **options)
    loss.div_(3)
    loss *= 2
    close(gradient(loss.sum(), input), expected, 1e-12)


@subjects
@pytest.mark.parametrize("kind", ["index", "soft"])
def test_callers_tensors_are_never_modified(subject, kind, device, rng):
    input, target, weight = problem(kind, rng, device=device)
    denominator = torch.tensor(3.0, device=device)
    if kind == "index":
        target[0] = -100
    kept = [x.clone() for x in (input, target, weight, denominator)]
    subject(input, target, weight, denominator=denominator, label_smoothing=0.1).backward()
    subject(input, target, weight).backward()
    functional.count(target, weight, normalizer="weights")
    assert all(torch.equal(a, b) for a, b in zip(kept, (input, target, weight, denominator), strict=True))


@torch_imports_torchscript
@subjects
def test_functional_transforms(subject, device, rng):
    input, target, weight = problem("index", rng, shape=(5, 4, 3), device=device)
    target[1, 0] = -100
    x = input.detach()
    expected = gradient(subject(input, target, weight), input)
    close(torch.func.grad(subject)(x, target, weight), expected, 1e-12)
    each_sample = torch.func.vmap(lambda a, b: subject(a[None], b[None], weight))(x, target)
    close(
        each_sample, [subject(a[None], b[None], weight).item() for a, b in zip(x, target, strict=True)], 1e-12
    )
    per_sample = torch.func.vmap(torch.func.grad(lambda a, b: subject(a[None], b[None], weight)))(x, target)
    one = gradient(subject(input[2:3], target[2:3], weight), input)[2]
    close(per_sample[2], one, 1e-11)
    many = torch.func.vmap(lambda y: subject(x, y, weight, normalizer="weights"))(
        torch.stack([target, target])
    )
    close(many, [subject(x, target, weight, normalizer="weights").item()] * 2, 1e-12)
    hessian = torch.func.hessian(lambda a: subject(a[None, :, 0], target[2:3, 0], weight))(x[2])
    assert hessian.isfinite().all()


@subjects
@pytest.mark.parametrize("kind", ["index", "soft"])
def test_meta_device(subject, kind):
    input = torch.zeros(2, 3, 5, device="meta", dtype=torch.float16, requires_grad=True)
    target = torch.zeros(2, 5, device="meta", dtype=torch.long) if kind == "index" else input.detach()
    loss = subject(input, target, torch.ones(3, device="meta"))
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert gradient(loss, input).shape == (2, 3, 5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@subjects
def test_the_gpu_never_waits_for_the_host(subject, rng):
    input, target, _ = problem("index", rng, dtype=torch.float32, device="cuda")
    criterion = module(subject, normalizer="weights").cuda()
    denominator = criterion.count(target)
    torch.cuda.set_sync_debug_mode("error")
    try:
        criterion(input, target).backward()
        criterion(input, target, denominator=denominator).backward()
        criterion.count(target)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- the defects of other packages


def focal_everywhere(z, gamma):
    """True-class losses of one sigmoid output with our function: (losses, gradients)."""
    x = torch.tensor(z).reshape(-1, 1).requires_grad_()
    loss = Subject("focal", gamma)(x, torch.ones(len(z), dtype=torch.long), reduction="none")
    return loss.detach(), gradient(loss.sum(), x).squeeze(1)


def test_peers_1_hardest_example_is_not_forgotten():
    z = torch.tensor([-100.0, 100.0]).requires_grad_()
    y = torch.tensor([1.0, 0.0])
    modulator = torch.exp(-2.0 * y * z - 2.0 * torch.log(1 + torch.exp(-z)))
    theirs = modulator * F.binary_cross_entropy_with_logits(z, y, reduction="none")
    assert theirs[0].item() == 0  # the loss is 100
    assert gradient(theirs.sum(), z).isnan().any()
    loss, grad = focal_everywhere([-100.0, 100.0], 2.0)
    assert loss.tolist() == [100.0, 0.0]
    assert grad.tolist() == [-1.0, 0.0]


def test_peers_2_saturated_answers_with_gamma_below_1():
    z = torch.tensor([40.0]).requires_grad_()
    p = torch.sigmoid(z)
    theirs = (1 - p) ** 0.5 * F.binary_cross_entropy_with_logits(z, torch.ones(1), reduction="none")
    assert gradient(theirs.sum(), z).isnan().all()
    for gamma in (0.01, 0.5, 0.99):
        assert focal_everywhere([40.0, 1e4], gamma)[1].isfinite().all()
        x = torch.tensor([[40.0, 0.0], [1e4, 0.0]]).requires_grad_()
        for y in (torch.tensor([0, 0]), torch.eye(2)[[0, 0]]):
            assert gradient(Subject("softmax_focal", gamma)(x, y), x).isfinite().all()


def test_peers_3_weight_applies_after_p_t():
    x, y, w = torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([10.0, 1.0])
    weighed = F.cross_entropy(x, y, w, reduction="sum")
    theirs = (1 - torch.exp(-weighed)) ** 2 * weighed
    right = Subject("softmax_focal", 2.0)(x, y)
    assert theirs > 4.3 * 10 * right
    close(Subject("softmax_focal", 2.0)(x, y, w), 10 * right)
    close(Subject("focal", 2.0)(x, y, w), 10 * Subject("focal", 2.0)(x, y))


def test_peers_4_sigmoid_runs_and_softmax_keeps_its_gradient():
    with pytest.raises(TypeError, match="weights"):
        F.binary_cross_entropy_with_logits(torch.zeros(1), torch.ones(1), weights=torch.ones(1))
    x, y, hot = torch.tensor([[-50.0, 50.0]]).requires_grad_(), torch.tensor([0]), torch.tensor([[1.0, 0.0]])
    theirs = F.binary_cross_entropy(x.softmax(1), hot)
    assert gradient(theirs, x).abs().max() < 1e-6  # though the answer is as wrong as can be
    close(gradient(Subject("softmax")(x, y), x), [[-1.0, 1.0]])
    assert Subject("sigmoid")(x, y, torch.ones(2)).item() == 100.0


def test_peers_5_empty_classes_beta_1_and_every_kind_of_target(rng):
    counts = np.array([500.0, 0.0, 20.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = (1 - 0.999) / (1 - 0.999**counts)
        assert np.isnan(theirs / theirs.sum()).any()
    for beta in (0.999, 1.0):
        criterion = ClassBalancedLoss(counts, loss="sigmoid", beta=beta)
        assert criterion.weight.isfinite().all()
        assert criterion.weight[1] == 0
    with pytest.raises(ValueError, match=r"beta.*1\.5"):
        ClassBalancedLoss([5, 3], beta=1.5)
    pixels = torch.tensor([[[0, 2], [-100, 2]]])
    assert criterion(torch.randn(1, 3, 2, 2, generator=rng), pixels).isfinite()  # N-d, ignored
    assert criterion(torch.zeros(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0]])).isfinite()  # multi-label
    zeros = torch.zeros(4, 10)
    assert F.binary_cross_entropy_with_logits(zeros, zeros).item() == pytest.approx(np.log(2))  # / (N C)
    close(Subject("sigmoid")(zeros, torch.zeros(4, dtype=torch.long)), 10 * np.log(2))


def test_peers_6_binary_base_and_soft_labels_run(rng):
    for subject in SUBJECTS:
        input, target, weight = problem("soft", rng)
        assert subject(input, target, weight).isfinite()


def test_peers_7_weights_do_not_come_from_float32_powers():
    counts, beta = np.array([5000.0, 50.0]), 0.99999999
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = (1 - np.float32(beta)) / (1 - np.power(np.float32(beta), counts.astype(np.float32)))
        assert np.isnan(theirs).all()
    effective = -np.expm1(counts * np.log1p(-1e-8))
    expected = 2 / effective / (1 / effective).sum()
    close(ClassBalancedLoss(counts, beta=beta).weight, expected, 1e-6)


def test_peers_9_the_scale_of_a_mean_is_chosen_not_found(rng):
    counts = [int(5000 * 0.01 ** (i / 9)) for i in range(10)]
    samples, weights = (
        ClassBalancedLoss(counts, beta=0.9999),
        ClassBalancedLoss(counts, beta=0.9999, normalizer="weights"),
    )
    target = torch.multinomial(torch.tensor(counts).float(), 4096, replacement=True, generator=rng)
    input = torch.randn(4096, 10, generator=rng)
    assert 4 < (weights(input, target) / samples(input, target)).item() < 8
    # torch changes its rule with the kind of target: turning mixup on changes the loss scale
    hot = F.one_hot(target, 10).float()
    by_index = F.cross_entropy(input, target, samples.weight)
    assert by_index > 4 * F.cross_entropy(input, hot, samples.weight)
    for criterion in (samples, weights):
        close(criterion(input, target), criterion(input, hot), 1e-5)


def test_peers_12_probabilities_clipped_before_the_logarithm():
    z = torch.tensor([-17.0]).requires_grad_()
    p = torch.sigmoid(z).clamp(1e-7, 1 - 1e-7)  # Keras' epsilon
    assert gradient((-((1 - p) ** 2) * p.log()).sum(), z).item() == 0
    close(focal_everywhere([-17.0, -16.0, -1e3], 2.0)[1], [-1.0, -1.0, -1.0], 1e-4)


def test_peers_12_multi_hot_targets_weigh_by_their_own_classes():
    weight, hot = (
        torch.tensor([1.0, 2.0, 6.0]),
        torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    assert weight[hot.argmax(1)].tolist() == [2, 1, 1]  # Keras looks the first class up
    for subject in (Subject("sigmoid"), Subject("focal", 2.0)):
        x = torch.zeros(3, 3)
        ratio = subject(x, hot, weight, reduction="none") / subject(x, hot, reduction="none")
        assert ratio.tolist() == [4.0, 1.0, 1.0]


def test_peers_12_ignored_pixels_and_outputs_are_not_counted():
    pixels, hot = torch.tensor([[0, 1, -100, -100]]), torch.ones(4, 3)
    criterion = ClassBalancedLoss([5, 3, 2], loss="sigmoid")
    assert (criterion.count(pixels).item(), (pixels != 255).sum().item()) == (2, 4)
    assert (criterion.count(hot).item(), hot.numel()) == (4, 12)  # Trainer's num_items_in_batch: 12


# --- bad input

X, Y = torch.zeros(2, 3), torch.tensor([0, 1])

BAD_CALLS = {
    "swapped": ((Y, X), {}, TypeError, r"input must be floating-point logits, got torch\.int64.*swapped\?"),
    "integer logits": (
        (X.long(), Y),
        {},
        TypeError,
        r"input must be .*got torch\.int64; pass logits, not labels",
    ),
    "input a list": (([[0.0]], Y), {}, TypeError, r"input must be a tensor, got list.*torch\.as_tensor"),
    "target a list": (
        (X, [0, 1]),
        {},
        TypeError,
        r"target must be a tensor, got list \[0, 1\].*torch\.as_tensor",
    ),
    "1-d input": ((X[0], Y), {}, ValueError, r"input must have shape \(N, C\).*got \(3,\)"),
    "no classes": ((X[:, :0], Y), {}, ValueError, r"input must have shape .*got \(2, 0\)"),
    "batch differs": ((X, Y[:1]), {}, ValueError, r"target must have shape \(2,\) .*got \(1,\)"),
    "class dimension last": (
        (torch.zeros(2, 5, 5, 3), torch.zeros(2, 5, 5).long()),
        {},
        ValueError,
        r"target must have shape \(2, 5, 3\) for input of shape \(2, 5, 5, 3\), got \(2, 5, 5\); .*movedim",
    ),
    "column target": ((X, Y[:, None]), {}, ValueError, r"target must have shape \(2,\) .*got \(2, 1\)"),
    "one-hot integers": ((X, X.long()), {}, ValueError, r"target .*\(2, 3\); one-hot .*target\.float\(\)"),
    "float labels": (
        (X, Y.float()),
        {},
        ValueError,
        r"target is torch\.float32 of shape \(2,\).*target\.long\(\)",
    ),
    "boolean target": (
        (X, Y.bool()),
        {},
        TypeError,
        r"target must hold integer .*torch\.bool.*target\.long\(\)",
    ),
    "complex target": ((X, Y.to(torch.complex64)), {}, TypeError, r"target must hold integer .*complex64"),
    "label too large": (
        (X, torch.tensor([0, 3])),
        {},
        ValueError,
        r"target must be in 0\.\.2 or ignore_index=-100, got 3 \(1 such\); count the model's outputs",
    ),
    "negative label": ((X, torch.tensor([0, -1])), {}, ValueError, r"target must be in 0\.\.2 .*got -1"),
    "the default ignored, another asked": (
        (X, torch.tensor([0, -100])),
        {"ignore_index": 255},
        ValueError,
        r"ignore_index=255, got -100",
    ),
    "one output, label 2": (
        (X[:, :1], Y * 2, torch.ones(2)),
        {},
        ValueError,
        r"target must be in \[0, 1\] for one output .*got values from 0 to 2",
    ),
    "weight length": (
        (X, Y, torch.ones(4)),
        {},
        ValueError,
        r"weight must have one entry .*3 classes.*\(4,\)",
    ),
    "weight 2-d": ((X, Y, torch.ones(1, 3)), {}, ValueError, r"weight must have one entry .*\(1, 3\)"),
    "weight a list": (
        (X, Y, [1.0] * 3),
        {},
        TypeError,
        r"weight must be a floating.*list.*as_tensor\(weight",
    ),
    "weight integers": (
        (X, Y, torch.ones(3).long()),
        {},
        TypeError,
        r"weight must be a floating.*torch\.int64",
    ),
    "weight elsewhere": (
        (X, Y, torch.ones(3, device="meta")),
        {},
        ValueError,
        r"weight is on meta .*cpu.*\.to\(\)",
    ),
    "target elsewhere": (
        (X, Y.to("meta")),
        {},
        ValueError,
        r"target is on meta but input on cpu; .*target\.to\(",
    ),
    "reduction": ((X, Y), {"reduction": "avg"}, ValueError, r"reduction must be one of .*'none'.*got 'avg'"),
    "reduction mistyped": ((X, Y), {"reduction": "maen"}, ValueError, r"'maen'; did you mean 'mean'\?"),
    "normalizer": (
        (X, Y),
        {"normalizer": "sample"},
        ValueError,
        r"normalizer .*'sample'; did you mean 'samples'\?",
    ),
    "smoothing 1": (
        (X, Y),
        {"label_smoothing": 1.0},
        ValueError,
        r"label_smoothing must be in \[0, 1\), got 1\.0",
    ),
    "smoothing < 0": ((X, Y), {"label_smoothing": -0.1}, ValueError, r"label_smoothing must be .*got -0\.1"),
    "smoothing NaN": (
        (X, Y),
        {"label_smoothing": torch.nan},
        ValueError,
        r"label_smoothing must be .*got nan",
    ),
    "smoothing None": (
        (X, Y),
        {"label_smoothing": None},
        TypeError,
        r"label_smoothing must be a number.*None",
    ),
    "ignore_index None": ((X, Y), {"ignore_index": None}, TypeError, r"ignore_index must be a number.*None"),
    "ignore_index 1.5": (
        (X, Y),
        {"ignore_index": 1.5},
        ValueError,
        r"ignore_index must be a whole number, got 1\.5",
    ),
    "denominator of a sum": (
        (X, Y),
        {"reduction": "sum", "denominator": 3},
        ValueError,
        r"denominator divides a mean, but reduction is 'sum'; pass reduction='mean'",
    ),
    "denominator vector": (
        (X, Y),
        {"denominator": torch.ones(2)},
        ValueError,
        r"denominator .*\(2,\); sum the counts",
    ),
    "denominator < 0": (
        (X, Y),
        {"denominator": -1},
        ValueError,
        r"denominator must be .*got -1; .*\.count\(\)",
    ),
    "denominator NaN": (
        (X, Y),
        {"denominator": torch.nan},
        ValueError,
        r"denominator must be .*got nan; .*\.count",
    ),
    "denominator infinite": (
        (X, Y),
        {"denominator": torch.inf},
        ValueError,
        r"denominator must be .*got inf",
    ),
    "denominator text": (
        (X, Y),
        {"denominator": "3"},
        TypeError,
        r"denominator must be a number.*str '3'; pass the",
    ),
}


@one_of_each
@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(subject, case):
    arguments, options, error, message = BAD_CALLS[case]
    if INTERPRETED and re.search(r"target must be in 0|got -100", message):
        pytest.skip(NOBODY_LOOKS)
    with pytest.raises(error, match=message):
        subject(*arguments, **options)


@pytest.mark.parametrize("kind", ["focal", "softmax_focal"])
@pytest.mark.parametrize(
    ("gamma", "error"),
    [
        (-1, ValueError),
        (-0.5, ValueError),
        (torch.nan, ValueError),
        (torch.inf, ValueError),
        ("2", TypeError),
    ],
)
def test_bad_gamma(kind, gamma, error):
    message = rf"gamma must be .*\[0, inf\), got .*{gamma}"
    with pytest.raises(error, match=message):
        Subject(kind)(X, Y, gamma=gamma)
    with pytest.raises(error, match=message):
        ClassBalancedLoss([3, 2, 1], loss=kind, gamma=gamma)


@pytest.mark.skipif(INTERPRETED, reason=NOBODY_LOOKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@subjects
def test_labels_out_of_range_are_caught_on_every_path(subject, reduction, smoothing):
    for bad in (3, -7, 2**40):
        for weight in (None, torch.ones(3)):
            with pytest.raises(ValueError, match=rf"target must be in 0\.\.2 .*got {bad} \(2 such\)"):
                subject(
                    torch.zeros(4, 3),
                    torch.tensor([0, bad, -100, bad]),
                    weight,
                    reduction=reduction,
                    label_smoothing=smoothing,
                )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "focl"}, ValueError, r"loss must be one of .*got 'focl'; did you mean 'focal'\?"),
        ({"scheme": "efective"}, ValueError, r"scheme .*'efective'; did you mean 'effective'\?"),
        ({"reduction": "avg"}, ValueError, r"reduction must be one of"),
        ({"normalizer": "weight"}, ValueError, r"normalizer .*did you mean 'weights'\?"),
        ({"beta": 1.5}, ValueError, r"beta must be in \[0, 1\], got 1\.5"),
        ({"beta": torch.nan}, ValueError, r"beta must be .*got nan"),
        ({"beta": [0.9, 0.9]}, ValueError, r"beta"),
        ({"volume": 0.5}, ValueError, r"volume must be .*got 0\.5"),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing must be in \[0, 1\), got 1\.0"),
        (
            {"label_smoothing": 0.1, "loss": per_sample_cross_entropy},
            ValueError,
            r"label_smoothing=0\.1 .*inside",
        ),
        ({"loss": "hinge"}, ValueError, r"loss must be one of .* or a callable, got 'hinge'"),
        ({"loss": None}, TypeError, r"loss must be one of 'softmax', .* or a callable, got NoneType None"),
        ({"ignore_index": 0.5}, ValueError, r"ignore_index must be a whole number, got 0\.5"),
        ({"class_counts": [1, -1, 3]}, ValueError, r"counts"),
        ({"class_counts": [0, 0, 0]}, ValueError, r"counts"),
        ({"class_counts": []}, ValueError, r"counts"),
        ({"class_counts": "abc"}, TypeError, r"counts"),
        (
            {"class_counts": {1: 5, 2: 3}},
            ValueError,
            r"class_counts has 2 integer names, but not 0 of .* 0\.\.1; count with num_classes=",
        ),
        (
            {"class_counts": pd.Series([5, 3], index=["a", "a"])},
            ValueError,
            r"class_counts has 2 names of which 1 differ; name each class once",
        ),
    ],
)
def test_bad_modules(arguments, error, message):
    arguments = {"class_counts": [3, 2, 1]} | arguments
    with pytest.raises(error, match=message):
        ClassBalancedLoss(arguments.pop("class_counts"), **arguments)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0, 1], TypeError, r"target must be a tensor, got list"),
        (torch.ones(4), ValueError, r"target is torch\.float32 .*C = 3, got \(4,\); .*target\.long\(\)"),
        (torch.ones(4, 2), ValueError, r"target .*C = 3, got \(4, 2\)"),
        (Y.bool(), TypeError, r"target must hold integer"),
        (torch.tensor([0, 3]), ValueError, r"target must be in 0\.\.2 .*got 3"),
    ],
)
def test_bad_counts_of_a_batch(target, error, message):
    with pytest.raises(error, match=message):
        ClassBalancedLoss([3, 2, 1], normalizer="weights").count(target)


def test_module_with_another_number_of_classes():
    with pytest.raises(ValueError, match=r"weight must .* input's 4 classes .*; count as many classes as"):
        ClassBalancedLoss([3, 2, 1])(torch.zeros(2, 4), Y)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "focal", "softmax_focal"])
def test_swapped_one_hot_targets_are_noticed(loss):
    logits, one_hot = torch.tensor([[3.0, -2.0], [0.5, 1.0]]), torch.eye(2)
    criterion = ClassBalancedLoss([5, 1], loss=loss)
    criterion(logits, one_hot)
    with pytest.raises(ValueError, match=r"target must be in \[0, 1\] .*got values from -2 to 3; .*swapped"):
        criterion(one_hot, logits)
    with pytest.raises(ValueError, match=r"target must be in \[0, 1\] .*nan"):
        criterion(logits, torch.full((2, 2), torch.nan))


def test_the_loss_names_its_own_counts():
    with pytest.raises(ValueError, match=r"class_counts must be finite and >= 0, got -1.0 at position 0"):
        ClassBalancedLoss([-1, 2])
    with pytest.raises(ValueError, match=r"class_counts must be 1-D, .*count the samples of each class"):
        ClassBalancedLoss([[1, 2]])
