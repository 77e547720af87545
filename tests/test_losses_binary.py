"""One output and many labels: every layout, weighting and form against the formulas in float64 NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import longtail
from longtail import ClassBalancedLoss, ClassCounts, class_counts, class_weights, functional, positive_weights
from longtail.adapters.transformers import trainer_loss

pytestmark = pytest.mark.usefixtures("one_thread")
LOSSES = {
    "softmax": (functional.class_balanced_cross_entropy, {}),
    "sigmoid": (functional.class_balanced_binary_cross_entropy, {}),
    "focal": (functional.class_balanced_focal_loss, {"gamma": 0.5}),
    "softmax_focal": (functional.class_balanced_softmax_focal_loss, {"gamma": 0.5}),
}
W = torch.tensor([0.3, 1.7], dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2.0 * torch.randn(shape, generator=rng(seed), dtype=torch.float64)


def softplus(x):
    return np.logaddexp(0.0, x)


def binary(z, t, weight, gamma=0.0, smoothing=0.0):
    """Per-sample losses of one output, as two classes with the logits 0 and z have them."""
    z, t = np.asarray(z, np.float64), np.asarray(t, np.float64)
    w0, w1 = np.asarray(weight)
    of_sample = t * w1 + (1 - t) * w0
    even = smoothing / 2 * of_sample
    yes, no = (1 - smoothing) * t * w1 + even, (1 - smoothing) * (1 - t) * w0 + even
    smooth = (1 - smoothing) * t + smoothing / 2
    p = 1 / (1 + np.exp(-z))
    return ((1 - p) * smooth + p * (1 - smooth)) ** gamma * (yes * softplus(-z) + no * softplus(z))


# ---- one output

LAYOUTS = [((6,), (6,)), ((6, 1), (6,)), ((6, 1), (6, 1)), ((2, 1, 3), (2, 3)), ((2, 1, 3), (2, 1, 3))]
LAYOUTS += [((1, 1, 3, 2), (1, 3, 2)), ((1, 1, 3, 2), (1, 1, 3, 2))]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("shape", "target_shape"), LAYOUTS, ids=str)
def test_one_output_in_every_layout_and_dtype(loss, shape, target_shape):
    call, gamma = LOSSES[loss]
    z = normal(*shape)
    t = torch.tensor([0, 1, 1, 0, -100, 1]).reshape(target_shape)
    known = t.flatten() != -100
    expected = binary(z.flatten(), t.flatten().clamp(min=0), W, **gamma) * known.numpy()
    weights = torch.where(t.flatten() == 1, W[1], W[0])[known].sum().item()
    for target in (t, t.to(torch.int16), t.float(), t.double(), t.double().where(t >= 0, torch.nan)):
        x = z.clone().requires_grad_()
        losses = call(x, target, W, reduction="none", **gamma)
        assert losses.shape == target.shape
        np.testing.assert_allclose(losses.detach().flatten(), expected, rtol=1e-12)
        mean = call(x, target, W, **gamma)
        assert mean.item() == pytest.approx(expected.sum() / 5, rel=1e-12)
        by_weights = call(x, target, W, normalizer="weights", **gamma)
        assert by_weights.item() == pytest.approx(expected.sum() / weights, rel=1e-12)
        for normalizer, divisor in (("samples", 5), ("weights", weights)):
            assert longtail.losses.functional.count(target, W, normalizer=normalizer).item() == pytest.approx(
                divisor
            )
        mean.backward()
        assert (x.grad.flatten() == 0).tolist() == (~known).tolist()
    boolean = t == 1
    np.testing.assert_allclose(
        call(z, boolean, W, reduction="sum", **gamma),
        binary(z.flatten(), boolean.flatten(), W, **gamma).sum(),
    )
    assert longtail.losses.functional.count(boolean, W) == 6


@pytest.mark.parametrize("loss", LOSSES)
def test_one_output_is_two_whose_first_is_0(loss):
    call, gamma = LOSSES["softmax_focal" if "focal" in loss else "softmax"]
    one, _ = LOSSES[loss]
    z, t = normal(40), torch.randint(2, (40,), generator=rng(1))
    a = torch.tensor([0.4, -1.1], dtype=torch.float64)
    two = torch.stack([torch.zeros_like(z), z], 1)
    for options in ({}, {"normalizer": "weights"}, {"offset": a}):
        expected = call(two, t, W, **gamma, **options)
        torch.testing.assert_close(one(z, t, W, **gamma, **options), expected, rtol=1e-12, atol=0)
    if "focal" not in loss:  # a smoothed focal loss has one modulator for one output
        expected = call(two, t, W, label_smoothing=0.2)
        torch.testing.assert_close(one(z, t, W, label_smoothing=0.2), expected, rtol=1e-12, atol=0)
        soft = torch.rand(40, generator=rng(2), dtype=torch.float64)
        expected = call(two, torch.stack([1 - soft, soft], 1), W)
        torch.testing.assert_close(one(z, soft, W), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_one_output(loss, smoothing):
    call, gamma = LOSSES[loss]
    z, t = normal(5, 1).requires_grad_(), torch.tensor([0.0, 1.0, 0.3, 1.0, 0.0], dtype=torch.float64)

    def f(x):
        return call(x, t, W, label_smoothing=smoothing, reduction="none", **gamma)

    assert torch.autograd.gradcheck(f, (z,))
    np.testing.assert_allclose(
        f(z).detach(), binary(z.detach()[:, 0], t, W, smoothing=smoothing, **gamma), rtol=1e-12
    )
    extreme = torch.tensor([-1e4, 1e4, -1e4, 1e4]).requires_grad_()
    loss_of = call(extreme, torch.tensor([1, 1, 0, 0]), W.float(), label_smoothing=smoothing, **gamma)
    loss_of.backward()
    assert loss_of.isfinite()
    assert extreme.grad.isfinite().all()


def test_smoothing_treats_both_sides_of_one_output_alike():
    """The issue's example gave .4032 beside .5432; torch moves neither."""
    z = torch.tensor([1.0, -1.0], dtype=torch.float64)
    a, b = functional.class_balanced_binary_cross_entropy(
        z, torch.tensor([1, 0]), label_smoothing=0.1, reduction="none"
    ).tolist()
    assert a == pytest.approx(b)
    assert a == pytest.approx(0.95 * softplus(-1) + 0.05 * softplus(1))
    hot = torch.tensor([[1.0, 0.0]], dtype=torch.float64)  # labels of their own: towards 1/2
    many = functional.class_balanced_binary_cross_entropy(z[None], hot, label_smoothing=0.1)
    assert many.item() == pytest.approx(a + b)
    index = functional.class_balanced_binary_cross_entropy(
        torch.zeros(1, 4, dtype=torch.float64), torch.tensor([2]), label_smoothing=0.1
    )
    assert index.item() == pytest.approx(4 * np.log(2))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_linear_model_with_3_percent_positives(loss):
    """Weighed by inverse counts it decides as with torch's pos_weight = n0 / n1."""
    generator = rng(5)
    y = (torch.arange(5000) < 150).long()
    x = torch.randn(5000, 4, generator=generator) + 0.75 * y[:, None].float() * torch.tensor([1.0, 0.5, 0, 0])
    counts = class_counts(y)

    def train(criterion, outputs=1):
        head = nn.Linear(4, outputs)
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            value = criterion(head(x))
            value.backward()
            return value

        optimizer.step(closure)
        hits = (head(x)[:, 0] > 0) == (y == 1)
        return hits[y == 1].float().mean().item() / 2 + hits[y == 0].float().mean().item() / 2

    ours = ClassBalancedLoss(counts, loss=loss, scheme="inverse")
    ratio = torch.tensor(4850 / 150)
    theirs = train(lambda z: F.binary_cross_entropy_with_logits(z[:, 0], y.float(), pos_weight=ratio))
    assert train(lambda z: ours(z, y)) == pytest.approx(theirs, abs=1e-3)
    plain = ClassBalancedLoss(counts, loss=loss, scheme="none")
    assert train(lambda z: plain(z, y)) < theirs - 0.1


def test_one_output_elsewhere():
    z, y = normal(6, 1).float(), torch.tensor([0, 1, 0, 0, 1, 0])
    criterion = ClassBalancedLoss([900, 100], loss="focal")
    expected = criterion(z, y)
    for labels in (y, y.float(), y.float()[:, None]):
        compute = trainer_loss(criterion)
        assert torch.equal(compute({"logits": z}, labels), expected)
        torch.testing.assert_close(compute({"logits": z}, labels, 12), expected / 2)
    layer = nn.Linear(3, 1)
    for prior in ([900, 100], [0.9, 0.1], {0: 900, 1: 100}, class_counts([0] * 9 + [1]), 0.1):
        longtail.init_prior_bias_(layer, prior)
        assert layer.bias.item() == pytest.approx(-np.log(9))
    for activation in ("softmax", "sigmoid"):
        adjusted = longtail.adjust_logits(z[:, 0], [900, 100], activation=activation)
        torch.testing.assert_close(adjusted, z[:, 0] + np.log(9))
        with_prior = longtail.with_prior(layer, [900, 100], activation=activation)
        assert with_prior.bias.item() == pytest.approx(0, abs=1e-6)
    method = longtail.methods.get("logit_adjusted").criterion([900, 100])
    torch.testing.assert_close(
        method(z, y), F.binary_cross_entropy_with_logits(z[:, 0] - np.log(9), y.float())
    )
    torch.testing.assert_close(method.eval()(z, y), F.binary_cross_entropy_with_logits(z[:, 0], y.float()))
    margin = ClassBalancedLoss([1, 1], margin=[0.2, 0.5])
    shifted = torch.where(y == 1, z[:, 0] - 0.5, z[:, 0] + 0.2)
    torch.testing.assert_close(margin(z, y), F.binary_cross_entropy_with_logits(shifted, y.float()))
    own = ClassBalancedLoss([900, 100], loss=lambda a, b: (a - b).abs())
    torch.testing.assert_close(own(z, y), ((z[:, 0] - y).abs() * own.weight[y]).mean())
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z, y), expected)
    each = torch.func.vmap(lambda a, b: criterion(a[None], b[None]))(z, y)
    torch.testing.assert_close(each.mean(), expected)


ONE = torch.zeros(3, 1)
LABELS = torch.tensor([0, 1, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ClassBalancedLoss([100]), r"one class, whose softmax is always 1; .*both classes' counts"),
        (lambda: ClassBalancedLoss([100], loss="focal"), r"one class, whose weight does nothing; .*both"),
        (lambda: functional.class_balanced_cross_entropy(ONE, LABELS), r"softmax, which of one output is al"),
        (lambda: ClassBalancedLoss([3, 2, 1])(ONE, LABELS), r"two entries for one output.*count both"),
        (lambda: ClassBalancedLoss([3, 2])(ONE, LABELS * 2), r"in \[0, 1\] for one output .*from 0 to 2"),
        (lambda: ClassBalancedLoss([3, 2])(ONE, LABELS[:2]), r"shape \(3,\) or \(3, 1\) for one output"),
        (lambda: ClassBalancedLoss([3, 2], ignore_index=1)(ONE, LABELS), r"ignore_index=1 is a label"),
        (lambda: ClassBalancedLoss([3, 2], scale=[1, 2])(ONE, LABELS), r"scale needs one logit a class"),
        (lambda: ClassBalancedLoss([3, 2], backend="fused")(ONE, LABELS), r"it takes one output a class"),
        (
            lambda: ClassBalancedLoss([3, 2], loss="sigmoid", weighting="class")(ONE, LABELS),
            r"weighting='class' weighs columns",
        ),
        (
            lambda: functional.class_balanced_linear_cross_entropy(ONE, ONE[:1], None, LABELS, torch.ones(2)),
            r"one output needs no fused head",
        ),
    ],
)
def test_bad_calls_of_one_output(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- many labels

COUNTS = [50, 20, 5]
HOT = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=torch.float64)
Z3 = normal(4, 3, seed=3)


def terms(z, t):
    return t * softplus(-z), (1 - t) * softplus(z)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["sigmoid", "focal"])
def test_three_weightings(loss, smoothing):
    z, t = Z3.numpy(), HOT.numpy()
    w = class_weights(COUNTS)
    of_sample = np.array([w[0], (w[0] + w[1]) / 2, 1.0, w[2]])[:, None]
    pw = positive_weights(COUNTS, 100)
    s = (1 - smoothing) * t + smoothing / 2
    p = 1 / (1 + np.exp(-z))
    modulator = (p * (1 - s) + (1 - p) * s) ** 2 if loss == "focal" else 1.0
    yes, no = terms(z, s)
    expected = {
        "sample": of_sample * modulator * (yes + no),
        "class": w * modulator * (yes + no),
        "positive": modulator * (pw * yes + no),
    }
    for weighting, each in expected.items():
        options = {"loss": loss, "weighting": weighting, "num_samples": 100, "label_smoothing": smoothing}
        criterion = ClassBalancedLoss(COUNTS, **options).double()
        assert criterion(Z3, HOT).item() == pytest.approx(each.sum() / 4, rel=1e-6)
        apart = ClassBalancedLoss(COUNTS, reduction="elements", **options).double()
        np.testing.assert_allclose(apart(Z3, HOT), each, rtol=1e-6)
        per_sample = ClassBalancedLoss(COUNTS, reduction="none", **options).double()
        np.testing.assert_allclose(per_sample(Z3, HOT), each.sum(1), rtol=1e-6)
    options = {"pos_weight": torch.from_numpy(pw)}
    torch_value = F.binary_cross_entropy_with_logits(Z3, torch.from_numpy(s), reduction="sum", **options) / 4
    if loss == "sigmoid":
        assert expected["positive"].sum() / 4 == pytest.approx(torch_value.item())


def test_positive_weights_are_a_ratio_of_effective_numbers():
    counts, total = np.array([1, 20, 400, 1000]), 1000
    for beta in (0.0, 0.9, 0.999, 0.999999, 1.0):
        n, m = counts.astype(float), total - counts.astype(float)
        expected = (
            m / n if beta == 1 else np.expm1(m * np.log(beta)) / np.expm1(n * np.log(beta)) if beta else 1
        )
        expected = np.where(m == 0, 0.0, expected)
        np.testing.assert_allclose(positive_weights(counts, total, beta), expected, rtol=1e-9)
    assert positive_weights([10, 50], 100, 1.0).tolist() == [9.0, 1.0]
    assert positive_weights({"a": 10, "b": 0}, 100, 1.0, empty="one") == {"a": 9.0, "b": 1.0}
    assert positive_weights([10, 0], 100, scheme="inverse").tolist() == [9.0, 0.0]
    assert positive_weights([10], 100, scheme="inverse_sqrt").tolist() == [3.0]
    assert positive_weights([10], 100, scheme="inverse", max_weight=4).tolist() == [4.0]
    torch.testing.assert_close(
        positive_weights(torch.tensor([10, 50]), 100, beta=1.0), torch.tensor([9.0, 1.0]).double()
    )
    for call, message in (
        (lambda: positive_weights([10, 20]), r"num_samples is not known; pass the number"),
        (
            lambda: positive_weights([10, 20], 15),
            r"num_samples must be at least the largest count, 20, got 15",
        ),
        (lambda: positive_weights([0.1, 0.2], 15), r"all below 1"),
        (lambda: ClassBalancedLoss([5, 3, 1], loss="sigmoid", weighting="positive"), r"needs num_samples"),
        (lambda: ClassBalancedLoss([5, 3], weighting="class"), r"for the sigmoid losses"),
        (
            lambda: ClassBalancedLoss([5, 3], loss="focal", weighting="class", normalizer="weights"),
            r"normalizer='weights' sums weights of samples",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_pos_weight_of_one_output_is_the_binary_one():
    z, y = normal(9), torch.randint(2, (9,), generator=rng(1))
    criterion = ClassBalancedLoss([900, 100], loss="sigmoid", weighting="positive", scheme="inverse").double()
    expected = F.binary_cross_entropy_with_logits(z, y.double(), pos_weight=torch.tensor(9.0))
    assert criterion(z, y).item() == pytest.approx(expected.item(), rel=1e-6)
    one = ClassBalancedLoss([100], loss="sigmoid", weighting="positive", scheme="inverse", num_samples=1000)
    assert one.double()(z, y).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_sample_without_labels_is_no_jump():
    criterion = ClassBalancedLoss([5000, 50, 5], loss="sigmoid", reduction="none").double()
    z = torch.zeros(1, 3, dtype=torch.float64)
    losses = [
        criterion(z, torch.tensor([[t, 0.0, 0.0]], dtype=torch.float64)).item() / (3 * np.log(2))
        for t in (0.0, 1e-9, 0.25, 0.5, 1.0)
    ]
    w = criterion.weight[0].item()
    np.testing.assert_allclose(losses, [1.0, 1.0, (1 + w) / 2, w, w], rtol=1e-6)
    smooth = ClassBalancedLoss([5000, 50, 5], loss="sigmoid", reduction="none", label_smoothing=0.2).double()
    for t in torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.float64):
        ratio = smooth(z + 1, t[None]) / functional.class_balanced_binary_cross_entropy(
            z + 1, t[None], label_smoothing=0.2, reduction="none"
        )
        assert ratio.item() == pytest.approx(criterion(z, t[None]).item() / (3 * np.log(2)))


def asymmetric(z, t, gamma_neg, gamma_pos, clip):
    p = 1 / (1 + np.exp(-z))
    not_q = np.minimum(1 - p + clip, 1)
    base = 1 - (p * t + not_q * (1 - t))
    return base ** (gamma_pos * t + gamma_neg * (1 - t)) * -(t * np.log(p) + (1 - t) * np.log(not_q))


def test_asymmetric_loss_is_its_papers():
    z, rest = normal(50, 3, seed=4), {"gamma_neg": 4.0, "gamma_pos": 1.0, "clip": 0.05}
    t = (torch.rand(50, 3, generator=rng(2)) < 0.4).double()
    w = class_weights(COUNTS)
    for target in (t, 0.8 * t + 0.1):
        for settings in (rest, rest | {"clip": 0.0}, rest | {"gamma_neg": 0.5, "gamma_pos": 0.0}):
            each = asymmetric(z.numpy(), target.numpy(), **settings)
            ours = functional.class_balanced_asymmetric_loss(z, target, **settings)
            assert ours.item() == pytest.approx(each.sum() / 50, rel=1e-10)
            criterion = ClassBalancedLoss(COUNTS, loss="asymmetric", weighting="class", **settings).double()
            assert criterion(z, target).item() == pytest.approx((w * each).sum() / 50, rel=1e-6)
    x = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, -2.9]]).requires_grad_()
    for gamma in (0.0, 0.5, 4.0):
        loss = functional.class_balanced_asymmetric_loss(x, torch.tensor([[0.0, 1, 0]] * 2), gamma_neg=gamma)
        loss.backward()
        assert loss.isfinite()
        assert x.grad.isfinite().all()
    zz = normal(3, 3, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: functional.class_balanced_asymmetric_loss(v, HOT[:3], clip=0.2), (zz,)
    )
    assert "gamma_neg=2" in repr(ClassBalancedLoss(COUNTS, loss="asymmetric", gamma_neg=2))
    with pytest.raises(ValueError, match=r"clip must be in \[0, 1\), got 1"):
        ClassBalancedLoss(COUNTS, loss="asymmetric", clip=1)
    with pytest.raises(ValueError, match=r"clip=0.1 does nothing in loss 'focal', which takes no settings"):
        ClassBalancedLoss(COUNTS, loss="focal", clip=0.1)


def test_distribution_balanced_loss_is_its_papers():
    n, total = np.array([50.0, 20.0, 5.0]), 100
    z, t = Z3.numpy(), HOT.numpy()
    with np.errstate(divide="ignore"):
        ratio = (1 / n) / (t / n).sum(1, keepdims=True)
    weight = 0.1 + 1 / (1 + np.exp(-10.0 * (ratio - 0.2)))
    for lam, kappa, gamma, balance in ((2.0, 0.05, 2.0, 2.0), (5.0, 0.1, 0.0, 2.0), (1.0, 0.0, 0.5, 1.0)):
        x = z - kappa / lam * np.log(total / n - 1)
        p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-lam * x))
        yes, no = softplus(-x) * (1 - p) ** gamma, softplus(lam * x) * q**gamma / lam
        factor = balance if gamma else 1.0
        expected = factor * (weight * (t * yes + (1 - t) * no)).sum() / 4
        options = {"gamma": gamma, "neg_scale": lam, "init_bias": kappa, "focal_balance": balance}
        criterion = ClassBalancedLoss(COUNTS, loss="distribution_balanced", num_samples=total, **options)
        assert criterion.double()(Z3, HOT).item() == pytest.approx(expected, rel=1e-6)
        got = functional.class_balanced_distribution_balanced_loss(
            Z3, HOT, torch.tensor(COUNTS).double(), total, **options
        )
        assert got.item() == pytest.approx(expected, rel=1e-12)
    assert ClassBalancedLoss([0, 100], loss="distribution_balanced", num_samples=100)(
        torch.tensor([[1e4, -1e4]]).requires_grad_(), torch.tensor([[0.0, 1.0]])
    ).isfinite()
    for options, message in (
        ({}, r"needs num_samples"),
        ({"num_samples": 40}, r"num_samples must be at least the largest count, 50, got 40"),
        ({"num_samples": 100, "scheme": "inverse"}, r"weighs by itself; leave scheme='inverse' out"),
    ):
        with pytest.raises(ValueError, match=message):
            ClassBalancedLoss(COUNTS, loss="distribution_balanced", **options)


@pytest.mark.parametrize("loss", ["sigmoid", "focal", "asymmetric"])
@pytest.mark.parametrize("unknown", [-100.0, torch.nan])
def test_unknown_labels_leave_their_output_out(loss, unknown):
    target = HOT.clone()
    target[0, 1] = target[1, 0] = unknown
    target[2] = unknown
    z = Z3.clone()
    z[0, 1] = z[2] = torch.nan  # what is not trained may be anything
    z.requires_grad_()
    criterion = ClassBalancedLoss(COUNTS, loss=loss, reduction="sum").double()
    value = criterion(z, target)
    value.backward()
    gone = target.isnan() | (target == -100)
    assert ((z.grad == 0) == gone).all()
    by_hand = ClassBalancedLoss(COUNTS, loss=loss, reduction="elements").double()
    clean = by_hand(Z3, torch.where(gone, 0.0, HOT))  # the weights are those of the labels that are known
    assert value.item() == pytest.approx(clean[~gone].sum().item())
    share = (~gone).double().mean(1).sum()  # a sample counts by the share of its labels that is known
    assert criterion.count(target).item() == pytest.approx(share.item())
    mean = ClassBalancedLoss(COUNTS, loss=loss).double()
    assert mean(z, target).item() == pytest.approx(value.item() / share.item())
    # as the Trainer counts, of batches with other shares, too
    compute_loss, known = trainer_loss(mean), (target != -100).sum()
    if unknown == -100:
        parts = [
            compute_loss({"logits": z[rows]}, target[rows], known) for rows in (slice(2), slice(2, None))
        ]
        assert sum(parts).item() == pytest.approx(mean(z, target).item())
    with pytest.raises(ValueError, match=r"target must be in \[0, 1\] .*got nan alone"):
        criterion(Z3, torch.full_like(HOT, torch.nan))
    with pytest.raises(ValueError, match=r"in \[0, 1\] .*NaN or -100 where it is unknown.*from 0 to 2"):
        criterion(Z3, torch.where(target == 1, 2.0, target))


def test_a_void_mark_of_masks_of_one_output():
    z, mask = normal(1, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [255.0, 1.0]]]])
    criterion = ClassBalancedLoss([3, 1], ignore_index=255).double()
    assert torch.equal(criterion(z, mask), criterion(z, mask.to(torch.uint8).squeeze(1)))
    assert criterion.count(mask.to(torch.uint8)) == criterion.count(mask) == 3


def test_counts_of_labels_carry_the_number_of_samples():
    counts = class_counts(HOT.numpy().astype(int))
    assert counts.num_samples == 4
    assert ClassCounts(["a"], [3]).num_samples is None
    np.testing.assert_allclose(np.asarray(positive_weights(counts, beta=1.0)), [1.0, 3.0, 3.0])
    criterion = ClassBalancedLoss(counts, loss="sigmoid", weighting="positive", scheme="inverse")
    assert criterion.weight.tolist() == [1.0, 3.0, 3.0]


# ---- weights of one's own, of samples, and what is no counts


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "focal", "softmax_focal"])
@pytest.mark.parametrize("backend", ["torch", "fused"])
@pytest.mark.parametrize("normalizer", ["samples", "weights"])
def test_a_sample_of_weight_2_counts_as_two(loss, backend, normalizer):
    options = {"loss": loss, "normalizer": normalizer}
    criterion = ClassBalancedLoss(COUNTS, backend=backend, **options).double()
    z, y = normal(5, 3), torch.tensor([0, 1, 2, -100, 1])
    times = torch.tensor([1, 2, 0, 3, 1])
    repeated, labels = z.repeat_interleave(times, 0), y.repeat_interleave(times)
    a, b = z.clone().requires_grad_(), repeated.clone().requires_grad_()
    one, many = criterion(a, y, sample_weight=times.double()), criterion(b, labels)
    assert one.item() == pytest.approx(many.item(), rel=1e-12)
    assert criterion.count(y, sample_weight=times).item() == pytest.approx(criterion.count(labels).item())
    one.backward(), many.backward()
    expected = torch.zeros_like(z).index_add_(0, torch.arange(5).repeat_interleave(times), b.grad)
    torch.testing.assert_close(a.grad, expected, rtol=1e-10, atol=1e-12)
    each = ClassBalancedLoss(COUNTS, backend=backend, reduction="none", **options).double()
    torch.testing.assert_close(each(z, y, sample_weight=times), each(z, y) * times)
    if backend == "torch":
        hot = F.one_hot(y.clamp(min=0), 3).double()
        mixed = times * (y >= 0)
        assert criterion(z, hot, sample_weight=mixed).item() == pytest.approx(many.item(), rel=1e-12)
    maps = criterion(z.T[None], y[None], sample_weight=times[None])
    assert maps.item() == pytest.approx(many.item(), rel=1e-12)


def test_sample_weights_of_one_output_and_of_a_callable():
    y, times = torch.tensor([0, 1, 0]), torch.tensor([1.0, 3.0, 0.0])
    z = normal(3, 1)
    for loss in ("softmax", "asymmetric", lambda a, b: (a - b).abs()):
        criterion = ClassBalancedLoss([3, 1], loss=loss, reduction="none").double()
        mean = ClassBalancedLoss([3, 1], loss=loss).double()
        expected = (criterion(z, y) * times).sum() / 4
        for w in (times, times[:, None]):
            assert mean(z, y, sample_weight=w).item() == pytest.approx(expected.item())
    for w, message in ((-times, r"finite and >= 0, got -3"), (times[:2], r"must have shape \(3,\)")):
        with pytest.raises(
            ValueError, match="sample_weight " + ("must be " if "finite" in message else "") + message
        ):
            mean(z, y, sample_weight=w)


def test_weights_of_ones_own():
    z, y = normal(4, 3), torch.tensor([0, 1, 2, 1])
    w = [0.2, 0.3, 5.0]
    expected = F.cross_entropy(z, y, torch.tensor(w).double(), reduction="sum") / 4
    for weight in (w, np.array(w), torch.tensor(w), {2: 5.0, 0: 0.2, 1: 0.3}):
        assert ClassBalancedLoss(weight=weight).double()(z, y).item() == pytest.approx(
            expected.item(), rel=1e-6
        )
    named = ClassBalancedLoss({"a": 90, "b": 9, "c": 1}, weight={"c": 5.0, "a": 0.2, "b": 0.3})
    assert named.weight.tolist() == pytest.approx(w)
    assert named.class_counts.tolist() == [90, 9, 1]
    given = ClassBalancedLoss(weight=class_weights(class_counts([0, 0, 1]), "inverse"))
    assert given.class_counts is None
    assert given.weight.tolist() == pytest.approx([2 / 3, 4 / 3])
    binary_one = ClassBalancedLoss(weight=[1.0, 9.0], loss="sigmoid").double()
    value = F.binary_cross_entropy_with_logits(z[:, 0], (y > 0).double(), pos_weight=torch.tensor(9.0))
    assert binary_one(z[:, 0], y > 0).item() == pytest.approx(value.item(), rel=1e-6)
    for options, error, message in (
        ({"weight": [1, -1.0]}, ValueError, r"weight must be >= 0"),
        ({"weight": [1, float("nan")]}, ValueError, r"weight must be finite, got nan"),
        ({"weight": [0, 0]}, ValueError, r"above 0 for one class"),
        ({"weight": [1, 2], "scheme": "inverse"}, ValueError, r"weight is given beside scheme"),
        ({"class_counts": [1, 2, 3], "weight": [1, 2]}, ValueError, r"weight must have shape \(3,\)"),
        ({}, TypeError, r"class_counts is missing; give the training samples"),
    ):
        with pytest.raises(error, match=message):
            ClassBalancedLoss(**options)
    for bad in (float("nan"), -1.0, float("inf")):
        with pytest.raises(ValueError, match=r"weight must be finite and >= 0"):
            functional.class_balanced_focal_loss(z, y, torch.tensor([1.0, 2.0, bad]))
        with pytest.raises(ValueError, match=r"class_weight must be finite and >= 0"):
            functional.class_balanced_linear_cross_entropy(z, z[:3], None, y, torch.tensor([1.0, 2.0, bad]))


def test_power_cap_and_classes_that_appear_later():
    n = np.array([5000.0, 50.0, 2.0])
    for power in (0.0, 0.25, 1.0, 3.0):
        raw = n**-power
        np.testing.assert_allclose(class_weights(n, "power", power=power), raw / raw.sum() * 3, rtol=1e-13)
        np.testing.assert_allclose(class_weights(n, "power", power=power, normalize=None), raw, rtol=1e-12)
        mean = class_weights(n, "power", power=power, normalize="samples") @ n / n.sum()
        assert mean == pytest.approx(1)
    assert (class_weights(n, "power", power=1) == class_weights(n, "inverse")).all()
    assert class_weights([1e300, 1e10], "power", power=1).tolist()[1] == pytest.approx(2)
    plain = class_weights(n, "inverse")
    np.testing.assert_array_equal(class_weights(n, "inverse", max_weight=1.5), np.minimum(plain, 1.5))
    assert class_weights([10, 0, 10], "inverse", empty="one").tolist() == [1.0, 1.0, 1.0]
    assert class_weights([10, 0, 20], "inverse", empty="one")[0] == class_weights([10, 20], "inverse")[0]
    criterion = ClassBalancedLoss([5000, 50, 0], scheme="power", power=0.25, max_weight=1.2, empty="one")
    expected = class_weights([5000, 50, 0], "power", power=0.25, max_weight=1.2, empty="one")
    np.testing.assert_allclose(criterion.weight, expected, rtol=1e-6)
    assert longtail.sample_weights([0, 0, 1], "power", power=1, max_weight=1.2).tolist() == [0.75, 0.75, 1.2]
    for options in ({"power": -1}, {"max_weight": 0}, {"empty": "two"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            class_weights(n, "power", **options)


def test_an_ignored_class_takes_no_part_in_the_scaling():
    criterion = ClassBalancedLoss([10**6, 100, 10], ignore_index=0, scheme="inverse")
    np.testing.assert_allclose(criterion.weight[1:], class_weights([100, 10], "inverse"), rtol=1e-6)
    np.testing.assert_allclose(criterion.weight[0] * 1e4, criterion.weight[1], rtol=1e-6)
    named = ClassBalancedLoss(
        {"a": 5, "void": 0, "b": 50}, ignore_index=1, beta={"a": 0.9, "void": 0, "b": 0.9}
    )
    np.testing.assert_allclose(named.weight[[0, 2]], class_weights([5, 50], beta=0.9), rtol=1e-6)


def test_a_batch_of_an_empty_class_stays_0():
    for options in ({"normalizer": "weights"}, {"normalizer": "samples"}):
        z = normal(2, 3).requires_grad_()
        loss = ClassBalancedLoss([10, 0, 5], **options).double()(z, torch.tensor([1, 1]))
        loss.backward()
        assert loss.item() == 0
        assert (z.grad == 0).all()


LABELS_AS_COUNTS = torch.randint(10, (10_000,), generator=rng()).numpy()


@pytest.mark.parametrize(
    "counts",
    [
        [0.9, 0.1],
        [2.6, 0.03],
        np.array([0.36973, 2.63027]),
        {"a": 0.99, "b": 0.01},
        class_weights(ClassCounts(["a", "b"], [90, 10])),
        class_weights([5000, 50, 7]),
        torch.tensor([0.5, 0.25, 0.25]),
        LABELS_AS_COUNTS,
        LABELS_AS_COUNTS.tolist(),
        torch.from_numpy(LABELS_AS_COUNTS).float(),
        [0, 1] * 20,
    ],
    ids=lambda c: type(c).__name__,
)
def test_what_is_no_counts_is_refused(counts):
    for call in (ClassBalancedLoss, class_weights):
        with pytest.raises((TypeError, ValueError), match=r"(class_)?counts must be .*(give|count|multiply)"):
            call(counts)
    if isinstance(counts, longtail.ClassWeights):
        for call in (
            lambda: longtail.adjust_logits(np.zeros((1, 2)), counts),
            lambda: class_counts(counts),
            lambda: longtail.sample_weights(["a", "b"], counts=counts),
            lambda: longtail.init_prior_bias_(nn.Linear(1, 2), counts),
        ):
            with pytest.raises(TypeError, match="got ClassWeights, which are weights already"):
                call()


def test_weights_as_counts_of_an_adjustment():
    with pytest.raises(ValueError, match=r"sum to the number of classes, 3, as class weights do"):
        longtail.adjust_logits(np.zeros((1, 3)), class_weights([5000, 50, 7]))


def test_counts_that_look_like_others_are_taken():
    for counts in (
        [1.5, 100],  # a mixed sample shares its count
        [0, 1, 0, 2],
        np.r_[np.full(30, 5), np.full(30, 7)],  # few-shot
        dict(enumerate(LABELS_AS_COUNTS[:30].tolist())),
    ):
        assert ClassBalancedLoss(counts).weight.isfinite().all()


def test_counts_in_place_of_labels_are_refused():
    for call in (longtail.class_weight_dict, longtail.sample_weights):
        for counts in ([5000, 500, 50], np.array([5000, 500, 500, 50])):
            with pytest.raises(ValueError, match=r"labels must be one a sample, got . numbers up to 5000"):
                call(counts)
        call([0, 1, 2])
        call([10, 20, 10, 30, 20])
    longtail.sample_weights([5000, 50], counts={5000: 3, 50: 1})


# ---- names, devices, -inf and NaN


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss, r"got the class CrossEntropyLoss; did you mean loss='softmax'"),
        (nn.BCEWithLogitsLoss(), r"got BCEWithLogitsLoss with reduction='mean'; did you mean loss='sigmoid'"),
        (nn.MultiMarginLoss, r"give MultiMarginLoss\(reduction='none'\)"),
        ("cross_entropy", r"did you mean 'softmax'"),
        ("bce", r"did you mean 'sigmoid'"),
        ("focal_loss", r"did you mean 'focal'"),
        ("asl", r"did you mean 'asymmetric'"),
        ("softmaxx", r"did you mean 'softmax'"),
    ],
)
def test_a_loss_by_another_name_gets_a_suggestion(loss, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ClassBalancedLoss([5, 3], loss=loss)


@pytest.mark.parametrize(
    ("input", "target", "message"),
    [
        (torch.zeros(3, 2), torch.tensor([0.0, 0.3, 1.0]), r"torch.stack\(\[1 - target, target\], 1\)"),
        (torch.zeros(3, 4), torch.tensor([0.0, 0.3, 1.0]), r"pass the share of every class"),
        (torch.zeros(3, 2), torch.tensor([0.0, 1.0, 1.0]), r"target.long\(\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1).long(), r"target.squeeze\(1\)"),
        (torch.zeros(3, 2, 4, 4), torch.zeros(3, 1, 4, 4).long(), r"target.squeeze\(1\)"),
        (torch.zeros(3, 2), torch.full((3, 2), 1.01), r"target must be in \[0, 1\] .*from 1.01"),
    ],
)
def test_the_remedy_of_an_unfit_target_works(input, target, message):
    classes = input.shape[1]
    with pytest.raises(ValueError, match=message):
        functional.class_balanced_cross_entropy(input, target, torch.ones(classes))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_nan_in_ignored_rows_and_classes_masked_by_minus_infinity(loss, backend):
    call, gamma = LOSSES[loss]
    y = torch.tensor([0, -100, 1])
    z = normal(3, 4)
    expected = call(z[[0, 2]], y[[0, 2]], **gamma)
    z[1] = torch.nan
    z.requires_grad_()
    value = call(z, y, backend=backend, **gamma)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert z.grad.isfinite().all()
    assert (z.grad[1] == 0).all()
    if backend == "torch":
        x = normal(2, 4)
        x[:, 3] = -torch.inf
        hot = torch.eye(4, dtype=torch.float64)[:2]
        hot[1] = torch.tensor([0.3, 0.7, 0, 0])
        short = call(x[:, :3], hot[:, :3], **gamma)
        x.requires_grad_()
        masked = call(x, hot, **gamma)
        masked.backward()
        assert masked.item() == pytest.approx(short.item(), rel=1e-12)
        assert x.grad.isfinite().all()
        assert (x.grad[:, 3] == 0).all()


class NoFloat64(torch.overrides.TorchFunctionMode):
    """What Apple's GPUs do, which hold no float64: "meta" stands for one."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.is_meta and out.dtype is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return out


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "focal", "softmax_focal", "asymmetric"])
def test_a_device_without_float64(loss):
    model = nn.Sequential(nn.Linear(4, 3), ClassBalancedLoss([90, 9, 1], loss=loss, offset=[1.0, 2.0, 3.0]))
    old = {**nn.Linear(4, 3).state_dict()}
    with NoFloat64():
        with pytest.raises(TypeError, match="MPS"):
            torch.zeros(1, dtype=torch.float64).to("meta")
        model.to("meta")
        x = torch.zeros(2, 4, device="meta")
        y = torch.zeros(2, dtype=torch.long, device="meta")
        model[1](model[0](x), y).backward()
        model[1](model[0](x), torch.zeros(2, 3, device="meta"), sample_weight=torch.ones(2, device="meta"))
        model[1].count(y)
    model.to_empty(device="cpu").load_state_dict({f"0.{k}": v for k, v in old.items()})
    assert model[1].weight.tolist() == ClassBalancedLoss([90, 9, 1]).weight.tolist()


def test_built_or_moved_under_inference_mode():
    with torch.inference_mode():
        built = ClassBalancedLoss([90, 9, 1], loss="focal", offset=[1.0, 2.0, 3.0])
        moved = ClassBalancedLoss([90, 9, 1], loss="focal", offset=[1.0, 2.0, 3.0]).double()
        moved(normal(2, 3), torch.tensor([0, 1]))
    for criterion in (built, moved.float()):
        z = normal(2, 3).float().requires_grad_()
        criterion(z, torch.tensor([0, 1])).backward()
        criterion(z, torch.eye(3)[:2]).backward()
        assert z.grad.isfinite().all()


def test_a_default_device_changes_nothing():
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        criterion = ClassBalancedLoss([90, 9, 1], loss="sigmoid")
    finally:
        torch.set_default_device(before)
    criterion = criterion.to_empty(device="cpu")
    assert criterion.weight.tolist() == ClassBalancedLoss([90, 9, 1]).weight.tolist()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("loss", ["softmax", "softmax_focal"])
def test_export_with_a_free_batch(loss):
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.criterion = ClassBalancedLoss([90, 9, 1], loss=loss)

        def forward(self, z, y):
            return self.criterion(z, y)

    z, y = normal(7, 3).float(), torch.tensor([0, 1, 2, 0, -100, 1, 0])
    n = torch.export.Dim("n")
    program = torch.export.export(Step(), (z[:4], y[:4]), dynamic_shapes=({0: n}, {0: n}))
    torch.testing.assert_close(program.module()(z, y), Step()(z, y))


@pytest.mark.parametrize("chunks", [128, 1024])
def test_many_chunks_of_half_precision_lose_nothing(chunks, monkeypatch):
    samples, classes = 1024, 64
    monkeypatch.setattr(longtail.losses.linear, "CHUNK", classes * samples // chunks)
    x = torch.randn(samples, 16, generator=rng()).bfloat16().requires_grad_()
    head = nn.Linear(16, classes).bfloat16()
    y = torch.randint(classes // 2, (samples,), generator=rng(1))  # half of the classes is absent
    functional.class_balanced_linear_cross_entropy(x, head.weight, head.bias, y).backward()
    exact = [p.detach().double().requires_grad_() for p in (x, head.weight, head.bias)]
    F.cross_entropy(F.linear(*exact), y).backward()
    for ours, theirs in zip((x, head.weight, head.bias), exact, strict=True):
        assert ours.grad.dtype == torch.bfloat16
        for rows in (slice(None), slice(classes // 2, None)):
            error = (ours.grad[rows].double() - theirs.grad[rows]).norm() / theirs.grad[rows].norm()
            assert error < 0.005


@pytest.mark.parametrize("normalizer", ["samples", "weights"])
@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("offset", [None, [0.5, -1.0, 2.0]], ids=["bare", "offset"])
def test_the_short_way_of_small_batches_is_the_long_one(normalizer, validate_args, offset):
    options = {"normalizer": normalizer, "offset": offset}
    criterion = ClassBalancedLoss(COUNTS, validate_args=validate_args, **options).double()
    long = ClassBalancedLoss(COUNTS, reduction="none", **options).double()

    def expected(z, y):
        known = y[y != -100]
        divisor = len(known) if normalizer == "samples" else long.weight[known].sum()
        return long(z, y).sum().item() / float(divisor)

    z, y = normal(6, 3), torch.tensor([0, 1, 2, 0, 1, 1])
    assert copy.deepcopy(criterion)(z, torch.full_like(y, -100)).item() == 0  # the first batch is looked at
    for labels in (y, y, torch.tensor([0, -100, 2, 0, 1, 1]), y):
        assert criterion(z, labels).item() == pytest.approx(expected(z, labels), rel=1e-12)
    maps, of_maps = normal(2, 3, 4, 5), torch.randint(3, (2, 4, 5), generator=rng())
    assert criterion(maps, of_maps).item() == pytest.approx(
        long(maps, of_maps).sum().item()
        / (40 if normalizer == "samples" else long.weight[of_maps].sum().item())
    )
    with pytest.raises(ValueError, match=r"target must be in 0..2 .*got 3"):
        criterion(z, y + 1)
    with pytest.raises(ValueError, match=r"got shape"):
        criterion(normal(6, 4), y)
    criterion.weight[1:] = 0.0  # seen, though it is the same tensor
    ones = torch.ones(2, dtype=torch.long)
    assert criterion(z[:2], ones).item() == 0
    if validate_args:
        assert criterion(z, torch.full_like(y, -100)).item() == 0


def test_smoothing_towards_the_prior_leaves_the_largest_class_predictable():
    counts = [int(5000 * 0.01 ** (i / 9)) for i in range(10)]
    prior = torch.tensor(counts).double() / sum(counts)
    options = {"scheme": "none", "offset": prior.log(), "label_smoothing": 0.2}
    with pytest.raises(ValueError, match=r"label_smoothing must be below .*smooth_to='prior'"):
        ClassBalancedLoss(counts, **options)
    criterion = ClassBalancedLoss(counts, smooth_to="prior", **options).double()
    z = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = criterion(z, torch.tensor([0]))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert z.argmax() == 0
    w = torch.tensor([1.3, 0.5, 2.0]).double()
    x, y, pi = normal(5, 3), torch.tensor([0, 1, 2, 1, 0]), torch.tensor([0.5, 0.3, 0.2]).double()
    t = 0.9 * F.one_hot(y, 3) + 0.1 * pi
    for loss, terms_of in (
        ("softmax", -t * F.log_softmax(x, 1)),
        ("sigmoid", t * F.softplus(-x) + (1 - t) * F.softplus(x)),
    ):
        ours = ClassBalancedLoss([50, 30, 20], weight=w, loss=loss, label_smoothing=0.1, smooth_to="prior")
        expected = (w[y] * terms_of.sum(1)).mean().item()
        assert ours.double()(x, y).item() == pytest.approx(expected, rel=1e-6)
    one = ClassBalancedLoss([50, 150], scheme="none", label_smoothing=0.1, smooth_to="prior").double()
    smooth = 0.9 * (y > 0).double() + 0.1 * 0.75
    expected = F.binary_cross_entropy_with_logits(x[:, 0], smooth)
    assert one(x[:, 0], y > 0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_long_tail_of_text_labels_and_of_some_classes():
    text = np.array(["cat", "ant", "cat", "bee", "ant", "cat"])
    codes = np.unique(text, return_inverse=True)[1]
    subset = longtail.datasets.long_tail_subset
    for counts in ({"cat": 2, "ant": 1}, [1, 0, 2], {"bee": 0, "cat": 2, "ant": 1, "dog": 0}):
        assert subset(text, counts, 3).tolist() == subset(codes, [1, 0, 2], 3).tolist()
    assert subset(text.tolist(), {"bee": 1}, 0).tolist() == [3]
    with pytest.raises(ValueError, match=r"counts asks for samples of 'dog', which labels lacks; .*'ant'"):
        subset(text, {"dog": 1}, 0)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(
            ("BCE", "sigmoid"),
            ("BCEWithLogitsLoss", "sigmoid"),
            ("binary_cross_entropy_with_logits", "sigmoid"),
        ),
        *(
            ("CE", "softmax"),
            ("CrossEntropyLoss", "softmax"),
            ("cross-entropy", "softmax"),
            ("nll_loss", "softmax"),
        ),
        *(
            ("FocalLoss", "focal"),
            ("sigmoid_focal_loss", "focal"),
            ("ASL", "asymmetric"),
            ("Softmax", "softmax"),
        ),
    ],
)
def test_names_of_other_packages_get_a_suggestion(name, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        ClassBalancedLoss([9, 1], loss=name)


def test_remedies_that_work_when_they_are_followed():
    criterion, z = ClassBalancedLoss([5, 3, 2], loss="sigmoid"), torch.randn(4, 3)
    target = torch.tensor([[0.0], [1.0], [2.0], [0.0]])
    with pytest.raises(ValueError, match=r"target\.squeeze\(1\)\.long\(\)"):
        criterion(z, target)
    criterion(z, target.squeeze(1).long())
    share = torch.rand(4, 1)
    criterion_of_two = ClassBalancedLoss([5, 3])
    with pytest.raises(ValueError, match=r"torch\.cat\(\[1 - target, target\], 1\)"):
        criterion_of_two(z[:, :2], share)
    criterion_of_two(z[:, :2], torch.cat([1 - share, share], 1))
    hot = torch.zeros(4, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"target\.float\(\) if it has input's shape"):
        criterion(z, hot)
    criterion(z, hot.float())
    with pytest.raises(TypeError, match=r"got torch\.bool; convert with target\.long\(\)"):
        criterion(z, hot[:, 0])
    criterion(z, hot[:, 0].long())


def test_the_count_of_one_label():
    criterion = ClassBalancedLoss([100], loss="sigmoid", weighting="positive", num_samples=1000, beta=1)
    target = torch.tensor([0, 1, 0, 1])
    z = torch.randn(4, 1)
    wanted = F.binary_cross_entropy_with_logits(z[:, 0], target.float(), pos_weight=torch.tensor(9.0))
    for dtype in (torch.int64, torch.bool, torch.float32, torch.float16):
        for shape in ((4,), (4, 1)):
            labels = target.to(dtype).reshape(shape)
            assert criterion.count(labels) == 4
            torch.testing.assert_close(criterion(z, labels, denominator=criterion.count(labels)), wanted)
    assert criterion.count(torch.tensor([0.0, -100, float("nan"), 1])) == 2
    assert criterion.count(torch.tensor([[0, 1, -100]]).reshape(1, 3)) == 2


def test_one_logit_where_two_columns_are_wanted():
    z = np.random.default_rng(1).normal(size=40)
    both = np.stack([0 * z, z], 1)  # as the message says
    with pytest.raises(ValueError, match=r"numpy\.stack\(\[0 \* z, z\], 1\)"):
        longtail.estimate_prior(z, [90, 10])
    assert longtail.estimate_prior(both, [90, 10], resamples=0).prior.shape == (2,)
    labels = (z > 0).astype(int)
    with pytest.raises(ValueError, match=r"numpy\.stack\(\[0 \* z, z\], 1\)"):
        longtail.prediction_sets(z, labels, z, counts=[90, 10])
    longtail.prediction_sets(both, labels, both, counts=[90, 10])
