"""Offsets, scales and margins of the classes: published formulas, identities, and what is refused."""

import copy
import pickle
import re
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from longtail import ClassBalancedLoss, functional
from longtail.losses.forms import smoothing_limit

COUNTS = np.array([5000.0, 400.0, 37.0, 50.0])
PRIOR = COUNTS / COUNTS.sum()
LOSSES = {
    "softmax": (functional.class_balanced_cross_entropy, {}),
    "softmax_focal": (functional.class_balanced_softmax_focal_loss, {"gamma": 1.5}),
    "sigmoid": (functional.class_balanced_binary_cross_entropy, {}),
    "focal": (functional.class_balanced_focal_loss, {"gamma": 1.5}),
}
losses = pytest.mark.parametrize("name", LOSSES)
backends = pytest.mark.parametrize("backend", ["torch", "fused"])
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rng(request):
    return torch.Generator().manual_seed(zlib.crc32(request.node.name.encode()))


def loss_of(name, *args, **options):
    function, own = LOSSES[name]
    return function(*args, **own, **options)


def problem(rng, shape=(7, 4), dtype=torch.float64):
    z = (3 * torch.randn(shape, generator=rng, dtype=torch.float64)).to(dtype).requires_grad_()
    y = torch.randint(shape[1], shape[:1] + shape[2:], generator=rng)
    w = (torch.rand(shape[1], generator=rng, dtype=torch.float64) + 0.2).to(dtype)
    a = torch.randn(shape[1], generator=rng, dtype=torch.float64).to(dtype)
    return z, y, w, a


# --- published formulas


@backends
@pytest.mark.parametrize("tau", [1.0, 0.7])
def test_logit_adjusted_loss_is_that_of_menon_et_al(tau, backend, rng):
    z, y, _, _ = problem(rng)
    offset = tau * torch.tensor(PRIOR).log()
    # equation 10: log[1 + sum over y' != y of (pi_y' / pi_y)^tau e^(f_y' - f_y)]
    f = z.detach().numpy()
    wanted = []
    for row, label in zip(f, y.tolist(), strict=True):
        rivals = [c for c in range(4) if c != label]
        ratio = sum((PRIOR[c] / PRIOR[label]) ** tau * np.exp(row[c] - row[label]) for c in rivals)
        wanted.append(np.log(1 + ratio))
    got = loss_of("softmax", z, y, offset=offset, reduction="none", backend=backend)
    np.testing.assert_allclose(got.detach(), wanted, rtol=1e-12)


@backends
def test_balanced_softmax_is_that_of_ren_et_al(backend, rng):
    z, y, _, _ = problem(rng)
    # equation 3: -log(n_y e^eta_y / sum n_i e^eta_i)
    share = COUNTS * np.exp(z.detach().numpy())
    wanted = -np.log(share[range(7), y] / share.sum(1))
    got = loss_of("softmax", z, y, offset=torch.tensor(COUNTS).log(), reduction="none", backend=backend)
    np.testing.assert_allclose(got.detach(), wanted, rtol=1e-12)


@backends
@losses
@pytest.mark.parametrize("smoothing", [0.0, 0.05])
@pytest.mark.parametrize("shape", [(7, 4), (2, 4, 3)])
def test_an_offset_is_one_addition(name, backend, smoothing, shape, rng):
    z, y, w, a = problem(rng, shape)
    y.view(-1)[1] = -100
    options = {"label_smoothing": smoothing, "reduction": "none"}
    shifted = z + a.view(-1, *[1] * (z.ndim - 2))
    wanted = loss_of(name, shifted, y, w, backend="torch", **options)
    got = loss_of(name, z, y, w, offset=a, backend=backend, **options)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)
    upstream = torch.rand(got.shape, generator=rng, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(x, z, upstream)[0] for x in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    assert got.reshape(-1)[1] == 0
    assert (ours.movedim(1, -1).reshape(-1, 4)[1] == 0).all()


@losses
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_by_finite_differences(name, soft, rng):
    z, y, w, a = problem(rng, (3, 4))
    target = torch.randn(3, 4, generator=rng, dtype=torch.float64).softmax(1) if soft else y

    def loss(z, a):
        return loss_of(name, z, target, w, offset=a, reduction="none")

    assert torch.autograd.gradcheck(loss, (z, a.requires_grad_()))
    if not soft:
        fixed = a.detach()
        assert torch.autograd.gradcheck(
            lambda z: loss_of(name, z, target, w, offset=fixed, backend="fused"), (z,)
        )


@backends
@losses
def test_half_precision_adds_in_float32(name, backend, rng):
    z, y, w, a = problem(rng, dtype=torch.bfloat16)
    w, a = w.float(), a.float() + 100.0 * (name in ("softmax", "softmax_focal"))  # 100 has no room for more
    got = loss_of(name, z, y, w, offset=a, backend=backend)
    wanted = loss_of(name, z.float() + a, y, w, backend="torch")
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert got.dtype == torch.float32
    assert torch.autograd.grad(got, z)[0].dtype == torch.bfloat16


@losses
def test_compiles_in_one_graph(name, rng):
    z, y, w, a = problem(rng, dtype=torch.float32)
    criterion = ClassBalancedLoss(COUNTS, loss=name, offset=a)

    def both(z, y):
        return loss_of(name, z, y, w, offset=a) + criterion(z, y)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")(z, y)
    torch.testing.assert_close(compiled, both(z, y))
    ours, theirs = (torch.autograd.grad(x, z)[0] for x in (compiled, both(z, y)))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["softmax", "focal"])
def test_linear_heads(name, bias, rng):
    _, y, w, a = problem(rng)
    head = torch.nn.Linear(5, 4, bias=bias, dtype=torch.float64)
    x = torch.randn(7, 5, generator=rng, dtype=torch.float64).requires_grad_()
    function, own = {
        "softmax": (functional.class_balanced_linear_cross_entropy, {}),
        "focal": (functional.class_balanced_linear_focal_loss, {"gamma": 1.5}),
    }[name]
    inputs = (x, *head.parameters())
    got = function(x, head.weight, head.bias, y, w, offset=a, **own)
    wanted = loss_of(name, head(x), y, w, offset=a, backend="torch")
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(loss, inputs) for loss in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


# --- identities


@given(seed=st.integers(0, 2**32 - 1), constant=st.floats(-50, 50), focal=st.booleans(), fused=st.booleans())
def test_a_constant_changes_nothing_for_softmax(seed, constant, focal, fused):
    rng = torch.Generator().manual_seed(seed)
    z, y, w, a = problem(rng)
    name, backend = "softmax_focal" if focal else "softmax", "fused" if fused else "torch"
    one, other = (loss_of(name, z, y, w, offset=o, backend=backend) for o in (a, a + constant))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    ours, theirs = (torch.autograd.grad(x, z)[0] for x in (one, other))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@given(seed=st.integers(0, 2**32 - 1))
def test_offset_log_w_multiplies_the_odds_by_w(seed):
    """The loss sees softmax(z) times w, normalised, which post-hoc adjustment undoes."""
    rng = torch.Generator().manual_seed(seed)
    z, y, w, _ = problem(rng)
    p = z.detach().softmax(1) * w
    wanted = -(p / p.sum(1, keepdim=True)).gather(1, y[:, None]).squeeze(1).log()
    got = loss_of("softmax", z, y, offset=w.log(), reduction="none").detach()
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    posthoc = loss_of("softmax", z - w.log(), y, offset=w.log(), reduction="none")
    torch.testing.assert_close(posthoc, loss_of("softmax", z, y, reduction="none"), rtol=1e-9, atol=1e-12)
    odds = loss_of("sigmoid", z, y, offset=w.log(), reduction="none").detach()
    q = z.detach().exp() * w / (1 + z.detach().exp() * w)
    hot = F.one_hot(y, 4)
    torch.testing.assert_close(
        odds, -(hot * q.log() + (1 - hot) * (1 - q).log()).sum(1), rtol=1e-9, atol=1e-9
    )


# --- the module


@losses
def test_in_training_the_offset_in_evaluation_the_bare_logits(name, rng):
    z, y, _, a = problem(rng, dtype=torch.float32)
    options = {"loss": name, "gamma": 1.5, "beta": 0.9}
    criterion, bare = ClassBalancedLoss(COUNTS, offset=a, **options), ClassBalancedLoss(COUNTS, **options)
    torch.testing.assert_close(criterion(z, y), bare(z + a, y))
    assert not torch.allclose(criterion(z, y), bare(z, y))
    assert torch.equal(criterion.eval()(z, y), bare(z, y))
    torch.testing.assert_close(criterion.train()(z, y), bare(z + a, y))


def test_an_offset_of_any_kind_in_the_order_of_the_outputs(rng):
    a = [0.0, -1.0, 2.0, 0.5]
    names = ["cat", "dog", "owl", "yak"]
    counts = dict(zip(names, COUNTS.tolist(), strict=True))
    for given_counts, offset in [
        (COUNTS, a),
        (COUNTS, np.array(a)),
        (COUNTS, torch.tensor(a, dtype=torch.float64)),
        (counts, dict(reversed(list(zip(names, a, strict=True))))),
        (dict(enumerate(COUNTS)), dict(reversed(list(enumerate(a))))),
    ]:
        criterion = ClassBalancedLoss(given_counts, offset=offset)
        assert criterion.offset.tolist() == a
        assert criterion.offset.dtype == torch.float32


def test_an_offset_goes_where_the_module_goes(rng):
    criterion = ClassBalancedLoss(COUNTS, offset=[0.1, 0.2, 0.3, 0.4], scale=[1, 2, 3, 4])
    assert criterion.state_dict() == {}
    assert criterion.half().offset.dtype == torch.float32
    assert criterion.double().offset.dtype == torch.float64
    meta = copy.deepcopy(criterion).to("meta")
    assert meta.offset.is_meta
    assert meta.scale.is_meta
    assert torch.equal(meta.to_empty(device="cpu").offset, criterion.offset)
    again = pickle.loads(pickle.dumps(criterion))
    assert torch.equal(again.offset, criterion.offset)
    assert again.margin is None
    assert "offset=..., scale=..." in repr(criterion)


def test_scale_and_margin_act_before_the_offset(rng):
    z, y, _, a = problem(rng, dtype=torch.float32)
    scale, margin = torch.tensor([1.0, 0.9, 0.5, 0.6]), torch.tensor([0.1, 0.2, 0.5, 0.4])
    criterion = ClassBalancedLoss(COUNTS, scheme="none", offset=a, scale=scale, margin=margin)
    wanted = F.cross_entropy(scale * z + a - margin * F.one_hot(y, 4), y)
    torch.testing.assert_close(criterion(z, y), wanted)
    torch.testing.assert_close(criterion.eval()(z, y), F.cross_entropy(z, y))


# --- label smoothing


def learned(name, smoothing, offset, certain):
    """Bare logits after training on a sample that is of one class for certain."""
    z = torch.zeros(1, len(offset), dtype=torch.float64, requires_grad=True)
    target = F.one_hot(torch.tensor([certain]), len(offset)).double()
    optimizer = torch.optim.LBFGS([z], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")
    soft = (1 - smoothing) * target + smoothing / len(offset)  # by hand: the loss refuses what is shown here

    def closure():
        optimizer.zero_grad()
        loss = loss_of(name, z, soft, offset=offset)
        loss.backward()
        return loss

    optimizer.step(closure)
    return z.detach()[0]


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["log prior", "any"])
def test_smoothing_that_outweighs_the_offset(name, kind, rng):
    counts = torch.logspace(2, 0, 10, dtype=torch.float64)
    offset = (counts / counts.sum()).log()
    if kind == "any":
        offset = 2 * torch.randn(10, generator=rng, dtype=torch.float64)
    span = float(offset.max() - offset.min())
    limit, largest = smoothing_limit(name, span, 10), int(offset.argmax())
    if (name, kind) == ("softmax", "log prior"):
        assert limit == pytest.approx(1 / (1 - 1 / 10 + 100 / 10))
        assert limit == pytest.approx(0.092, abs=5e-4)
    below, above = (learned(name, limit * factor, offset, largest) for factor in (0.98, 1.02))
    assert int(below.argmax()) == largest
    assert int(above.argmax()) == int(offset.argmin())
    for other in range(10):  # below the limit no class is lost
        assert int(learned(name, limit * 0.98, offset, other).argmax()) == other
    z, y = torch.zeros(2, 10), torch.tensor([0, 1])
    message = rf"label_smoothing must be below {limit:.3g} with an offset from .*; smooth less, or not"
    with pytest.raises(ValueError, match=message):
        loss_of(name, z, y, offset=offset.float(), label_smoothing=1.001 * limit)
    with pytest.raises(ValueError, match=message):
        ClassBalancedLoss(counts.long() + 1, loss=name, offset=offset, label_smoothing=1.001 * limit)
    loss_of(name, z, y, offset=offset.float(), label_smoothing=0.999 * limit)
    ClassBalancedLoss(counts.long() + 1, loss=name, offset=offset, label_smoothing=0.999 * limit)


@given(span=st.floats(0, 1e4), classes=st.integers(1, 1000))
def test_the_limit_is_a_smoothing(span, classes):
    softmax, sigmoid = (smoothing_limit(name, span, classes) for name in ("softmax", "sigmoid"))
    assert 0 < softmax <= sigmoid <= 1


# --- what is refused


@losses
def test_wrong_offsets(name, rng):
    z, y, _, a = problem(rng, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"offset must have one entry for each of input's 4 classes.*\(3,\)"):
        loss_of(name, z, y, offset=a[:3])
    with pytest.raises(TypeError, match=r"offset must be a floating-point tensor or None, got list"):
        loss_of(name, z, y, offset=[0.0] * 4)
    for bad in (torch.nan, torch.inf, -torch.inf):
        a[2] = bad
        with pytest.raises(ValueError, match=rf"offset must be finite, got {re.escape(str(bad))}"):
            loss_of(name, z, y, offset=a)


@pytest.mark.parametrize("name", ["offset", "scale", "margin"])
def test_wrong_vectors_of_the_module(name):
    for value, error, message in [
        (
            [0.0] * 3,
            ValueError,
            r"must have shape \(4,\), one number for each of class_counts, got shape \(3,\)",
        ),
        (1.0, ValueError, r"must have shape \(4,\).*got shape \(\)"),
        ([0.0, np.nan, 0.0, 0.0], ValueError, r"must be finite, got nan at position 1; give an empty class"),
        (["a", "b", "c", "d"], TypeError, r"must be numbers"),
        (
            {"cat": 1.0},
            TypeError,
            r"is a dict with names .*'cat', but class_counts has no names; give \w+ as a",
        ),
    ]:
        with pytest.raises(error, match=f"{name} {message}"):
            ClassBalancedLoss(COUNTS, **{name: value})
    with pytest.raises(ValueError, match=f"{name} lacks a value for 'dog'"):
        ClassBalancedLoss({"cat": 3, "dog": 2}, **{name: {"cat": 1.0}})
    with pytest.raises(ValueError, match=f"{name} needs a named loss"):
        ClassBalancedLoss(COUNTS, loss=lambda z, y: z[:, 0], **{name: [0.0] * 4})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_smoothing": 0.02},
        {"loss": "softmax_focal", "gamma": 0.5},
        {"loss": "focal"},
        {"loss": "sigmoid"},
    ],
    ids=str,
)
def test_an_offset_added_in_the_place_of_the_gradient(settings, dtype):
    """Large ones too, where a probability leaves exp's range; the logits stay what they were."""
    g = torch.Generator().manual_seed(3)
    for shape, size in (((64, 5), 1.0), ((33, 300), 3.0), ((40, 17), 400.0)):
        z = (size * torch.randn(shape, generator=g)).to(dtype)
        y = torch.randint(shape[1], shape[:1], generator=g)
        offset = (
            torch.linspace(-2.5, 0.0, shape[1]) if size < 100 else 60 * torch.randn(shape[1], generator=g)
        )
        if size > 100 and "label_smoothing" in settings:
            continue
        results = []
        for backend in ("torch", "fused"):
            logits = z.clone().requires_grad_()
            criterion = ClassBalancedLoss([10] * shape[1], offset=offset, backend=backend, **settings)
            loss = criterion(logits, y)
            loss.backward()
            assert torch.equal(logits.detach(), z)
            results.append((loss.detach().double(), logits.grad.double()))
        torch.testing.assert_close(results[1][0], results[0][0], rtol=2e-6, atol=1e-7)
        tolerance = 1e-2 if dtype is torch.bfloat16 else 1e-5
        torch.testing.assert_close(results[1][1], results[0][1], rtol=tolerance, atol=1e-6)
