"""One output and many labels: every layout, weighting and form against the formulas in float64 NumPy."""

from __future__ import annotations

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
    assert criterion.count(target) == 3
    assert ClassBalancedLoss(COUNTS, loss=loss).double()(z, target).item() == pytest.approx(value.item() / 3)
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
