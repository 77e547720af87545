"""A head and its loss as one function: the same as the layer, then the loss, without the logits."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from longtail import functional
from longtail.losses import linear

LOSSES = {
    "softmax": (
        functional.class_balanced_linear_cross_entropy,
        functional.class_balanced_cross_entropy,
        {},
    ),
    "smooth": (
        functional.class_balanced_linear_cross_entropy,
        functional.class_balanced_cross_entropy,
        {"label_smoothing": 0.1},
    ),
    "focal": (
        functional.class_balanced_linear_focal_loss,
        functional.class_balanced_focal_loss,
        {"gamma": 0.5},
    ),
    "sigmoid": (
        functional.class_balanced_linear_focal_loss,
        functional.class_balanced_focal_loss,
        {"gamma": 0.0},
    ),
}
losses = pytest.mark.parametrize("loss", LOSSES)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(linear, "CHUNK", 25)  # 3 samples of 8 classes


def problem(dtype=torch.float64, lead=(7,), weight_dtype=None):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(*lead, 5, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(8, 5, generator=draw, dtype=torch.float64).to(weight_dtype or dtype).requires_grad_()
    bias = torch.randn(8, generator=draw, dtype=torch.float64).to(weight_dtype or dtype).requires_grad_()
    target = torch.randint(8, lead, generator=draw)
    target.view(-1)[2] = -100
    return features, weight, bias, target, torch.rand(8, generator=draw) + 0.5


def both(loss, features, weight, bias, target, class_weight, **options):
    fused, plain, own = LOSSES[loss]
    one = fused(features, weight, bias, target, class_weight, **own, **options)
    logits = F.linear(features, weight, bias).movedim(-1, 1)
    return one, plain(logits, target, class_weight, backend="torch", **own, **options)


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, [x for x in inputs if x is not None])


@losses
@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "sum"}, {"normalizer": "weights"}, {"denominator": 3.0}, {"ignore_index": 4}],
    ids=str,
)
def test_equals_the_layer_and_its_loss(loss, options):
    features, weight, bias, target, class_weight = problem()
    target = target.clamp(min=0) if "ignore_index" in options else target
    for w, b in ((class_weight, bias), (None, None)):
        one, other = both(loss, features, weight, b, target, w, **options)
        torch.testing.assert_close(one, other)
        inputs = (features, weight, b)
        torch.testing.assert_close(gradients(2 * one, *inputs), gradients(2 * other, *inputs))


@losses
def test_tokens_of_sentences(loss):
    features, weight, bias, target, class_weight = problem(lead=(2, 6))
    one, other = both(loss, features, weight, bias, target, class_weight)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(gradients(one, features, weight), gradients(other, features, weight))


@losses
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_and_autocast(loss, dtype):
    features, weight, bias, target, class_weight = problem(dtype)
    one, other = both(loss, features, weight, bias, target, class_weight)
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
    for a, b in zip(
        gradients(one, features, weight, bias), gradients(other, features, weight, bias), strict=True
    ):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)
    features, weight, bias, target, class_weight = problem(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        one, other = both(loss, features, weight, bias, target, class_weight)
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
    for a, b in zip(
        gradients(one, features, weight, bias), gradients(other, features, weight, bias), strict=True
    ):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


@losses
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_computes_the_layer_in_its_dtype(loss, dtype):
    """Neither in float32, nor with sums in less than float32."""
    features, weight, bias, target, class_weight = problem(torch.float32)
    fused, _, own = LOSSES[loss]
    with torch.autocast("cpu", dtype=dtype):
        one = fused(features, weight, bias, target, class_weight, **own)
    rounded = [x.detach().to(dtype).requires_grad_() for x in (features, weight, bias)]
    assert one.item() == fused(*rounded, target, class_weight, **own).item()
    whole = fused(features, weight, bias, target, class_weight, **own)
    assert abs(one.item() - whole.item()) > 1e-6 * abs(whole.item())


@losses
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_gpu_that_was_not_measured_computes_by_torch(loss, dtype, monkeypatch):
    settings = []

    def compute(z, index, weight, one, setting, *, offset, gradient, out):
        settings.append(setting)
        return linear._by_torch(z, index, weight, offset, setting, gradient)

    features, weight, bias, target, class_weight = problem(dtype)
    inputs = (features, weight, bias)
    a = torch.linspace(-1.0, 1.0, 8)
    one = both(loss, *inputs, target, class_weight, offset=a)[0]
    expected = gradients(one, *inputs)
    monkeypatch.setattr(linear.fused, "compute", compute)
    other = both(loss, *inputs, target, class_weight, offset=a)[0]
    tolerance = {"rtol": 2**-6, "atol": 2**-6} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(one, other, **tolerance)
    torch.testing.assert_close(expected, gradients(other, *inputs), **tolerance)
    assert {setting.name for setting in settings} == {"softmax" if loss == "smooth" else loss}


def test_only_what_needs_a_gradient_gets_one():
    features, weight, bias, target, _ = problem()
    one, other = both("softmax", features, weight.detach(), bias.detach(), target, None)
    torch.testing.assert_close(gradients(one, features), gradients(other, features))
    frozen = functional.class_balanced_linear_cross_entropy(
        features.detach(), weight.detach(), None, target.clamp(min=0)
    )
    assert not frozen.requires_grad


def test_a_trainer_may_scale_in_place_and_look_twice():
    features, weight, bias, target, _ = problem()
    expected = gradients(both("focal", features, weight, bias, target, None)[1], features, weight)
    loss = both("focal", features, weight, bias, target, None)[0]
    loss *= 4
    first = torch.autograd.grad(loss, [features, weight], retain_graph=True)
    for got in (first, gradients(loss, features, weight)):
        torch.testing.assert_close(got, tuple(4 * g for g in expected))
    loss = both("focal", features, weight, bias, target, None)[0]
    with pytest.raises(RuntimeError, match="no second derivatives; apply the layer"):
        torch.autograd.grad(loss, features, create_graph=True)


@pytest.mark.parametrize("lead", [(0,), (2, 0)], ids=str)
def test_empty_and_all_ignored(lead):
    features, weight, bias, _, _ = problem()
    empty = torch.zeros(*lead, 5, dtype=torch.float64, requires_grad=True)
    everything = torch.full((7,), -100)
    for x, y in ((empty, torch.zeros(lead, dtype=torch.long)), (features, everything)):
        loss = functional.class_balanced_linear_cross_entropy(x, weight, bias, y)
        assert loss.item() == 0
        assert all((g == 0).all() for g in gradients(loss, x, weight, bias))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, where a graph breaks
def test_inside_a_compiled_step():
    features, weight, bias, target, _ = problem()

    def step(features):
        return functional.class_balanced_linear_cross_entropy(2 * features, weight, bias, target)

    torch.testing.assert_close(torch.compile(step, backend="eager")(features), step(features))


BAD = {
    "list": ({"features": [[0.0]]}, TypeError, r"features must be a tensor, got list"),
    "swapped": ({"weight": torch.zeros(8, 5).long()}, TypeError, r"weight must be floating point.*swapped"),
    "transposed": ({"weight": torch.zeros(5, 8)}, ValueError, r"weight must have shape \(C, 5\).*\(5, 8\)"),
    "bias": ({"bias": torch.zeros(3)}, ValueError, r"bias must have shape \(8,\), got \(3,\)"),
    "target": ({"target": torch.zeros(6).long()}, ValueError, r"target must have shape \(7,\).*got \(6,\)"),
    "soft": ({"target": torch.zeros(7)}, TypeError, r"target must hold integer class indices"),
    "label": ({"target": torch.full((7,), 8)}, ValueError, r"target must be in 0\.\.7 .*got 8 \(7 such\)"),
    "one-d": ({"features": torch.zeros(5)}, ValueError, r"features must have shape \(N, D\)"),
    "class weight": ({"class_weight": torch.ones(7)}, ValueError, r"weight must have one entry .*8 classes"),
    "none": ({"reduction": "none"}, ValueError, r"reduction must be 'mean' or 'sum', got 'none'"),
    "elsewhere": (
        {"bias": torch.zeros(8, device="meta")},
        ValueError,
        r"bias is on meta but features on cpu",
    ),
}


@losses
@pytest.mark.parametrize("case", BAD)
def test_bad_calls(loss, case):
    changed, error, message = BAD[case]
    features, weight, bias, target, _ = problem(torch.float32)
    arguments = {"features": features, "weight": weight, "bias": bias, "target": target} | changed
    function, _, options = LOSSES[loss]
    with pytest.raises(error, match=message):
        function(**arguments, **options)


def peak_bytes(call):
    """Most memory held at once, by torch's own record of its allocations."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        call().backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in events))


@pytest.mark.filterwarnings("ignore::UserWarning:torch.profiler")
def test_peak_memory_is_a_tenth(monkeypatch):
    monkeypatch.setattr(linear, "CHUNK", 1 << 17)
    features, weight = torch.randn(512, 8, requires_grad=True), torch.randn(16_000, 8, requires_grad=True)
    target = torch.randint(16_000, (512,), generator=torch.Generator().manual_seed(0))
    fused, plain = functional.class_balanced_linear_cross_entropy, functional.class_balanced_cross_entropy
    small = peak_bytes(lambda: fused(features, weight, None, target))
    features.grad = weight.grad = None
    large = peak_bytes(lambda: plain(features @ weight.t(), target, backend="torch"))
    assert large > 3 * 512 * 16_000 * 4  # logits, their log-softmax, the gradient
    assert small * 10 <= large
