"""The fused path is the plain one, computed otherwise: on the CPU, and by the Triton kernels.

Where Triton is installed this file runs a second time, in a process of its own, under Triton's interpreter:
there ``backend="fused"`` runs the kernels on the CPU. On a CUDA device they run as they are.
"""

import functools
import importlib
import importlib.util
import os
import sys
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from longtail import ClassBalancedLoss, functional
from longtail.losses.fast import Setting, blocks, fused

HAS_TRITON = importlib.util.find_spec("triton") is not None
KERNELS = fused.INTERPRETED
FORMS = {
    "softmax": (functional.class_balanced_cross_entropy, {}),
    "smooth": (functional.class_balanced_cross_entropy, {"label_smoothing": 0.1}),
    "softmax_focal": (functional.class_balanced_softmax_focal_loss, {"gamma": 2.0}),
    "softmax_focal_half": (functional.class_balanced_softmax_focal_loss, {"gamma": 0.5}),
    "smooth_softmax_focal": (
        functional.class_balanced_softmax_focal_loss,
        {"gamma": 1.5, "label_smoothing": 0.1},
    ),
    "sigmoid": (functional.class_balanced_binary_cross_entropy, {}),
    "smooth_sigmoid": (functional.class_balanced_binary_cross_entropy, {"label_smoothing": 0.1}),
    "focal": (functional.class_balanced_focal_loss, {"gamma": 2.0}),
    "focal_one": (functional.class_balanced_focal_loss, {"gamma": 1.0}),
    "focal_half": (functional.class_balanced_focal_loss, {"gamma": 0.5}),
    "smooth_focal": (functional.class_balanced_focal_loss, {"gamma": 2.0, "label_smoothing": 0.1}),
}
SOME = ("softmax", "smooth_softmax_focal", "focal")
forms = pytest.mark.parametrize("form", FORMS)
some_forms = pytest.mark.parametrize("form", SOME)
# numpy, which the interpreter computes with, warns where a GPU rounds to infinity and the result is discarded
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
]


@pytest.fixture
def rng(request):
    return torch.Generator().manual_seed(zlib.crc32(request.node.name.encode()))


def loss_of(form, **options):
    function, own = FORMS[form]
    return functools.partial(function, **own, **options)


def problem(rng, shape, dtype=torch.float32, device="cpu", scale=3.0):
    x = (scale * torch.randn(shape, generator=rng)).to(dtype).to(device)
    y = torch.randint(shape[1], shape[:1] + shape[2:], generator=rng)
    if y.numel() > 2:
        y.view(-1)[1] = -100
    w = torch.rand(shape[1], generator=rng) * 3 + 0.1
    return x.requires_grad_(), y.to(device), w.to(device)


def gradient(loss, x, **options):
    return torch.autograd.grad(loss, x, **options)[0]


def agree(form, x, y, w, *, rtol=2e-5, atol=2e-6, **options):
    """Compare value and gradient with the plain path in float64, the gradient in units of its largest."""
    wide = x.detach().double().requires_grad_()
    expected = loss_of(form, backend="torch", **options)(wide, y, w.double() if w is not None else None)
    upstream = torch.linspace(0.5, 1.5, expected.numel(), device=x.device).view(expected.shape)
    loss = loss_of(form, backend="fused", **options)(x, y, w)
    assert loss.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(loss.double(), expected, rtol=rtol, atol=atol)
    got, want = (
        gradient(loss, x, grad_outputs=upstream),
        gradient(expected, wide, grad_outputs=upstream.double()),
    )
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    coarse = {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(x.dtype, rtol)
    torch.testing.assert_close(
        got.double(), want, rtol=coarse, atol=atol * max(float(want.abs().max()), 1e-3)
    )


# --- values


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_fused_is_plain(form, dtype, device, rng):
    x, y, w = problem(rng, (9, 5), dtype, device)
    agree(form, x, y, w)
    agree(form, x, y, None, reduction="sum")
    if dtype == torch.float32 or not KERNELS:  # a kernel's type decides how it loads and stores, no more
        agree(form, x, y.clamp(min=2), w, reduction="none", ignore_index=2)
        agree(form, x, y, w, normalizer="weights")


@forms
@pytest.mark.parametrize("classes", [2, 31, 1000, 8142])
def test_any_number_of_classes(form, classes, device, rng):
    agree(form, *problem(rng, (3, classes), device=device), rtol=5e-5)


@pytest.mark.parametrize(
    ("form", "narrow", "wide"),  # each form with each size and type, each size with each type
    [
        ("softmax", torch.float32, torch.bfloat16),
        ("smooth", torch.bfloat16, torch.float32),
        ("softmax_focal", torch.bfloat16, torch.float32),
        ("focal_half", torch.float32, torch.bfloat16),
    ],
)
def test_the_vocabularies_of_language_models(form, narrow, wide, device, rng):
    agree(form, *problem(rng, (2, 50_257), narrow, device), rtol=1e-4)
    agree(form, *problem(rng, (2, 128_256), wide, device), rtol=1e-4)


@forms
def test_segmentation_and_other_strides(form, device, rng):
    x, y, w = problem(rng, (2, 5, 3, 7), device=device)
    agree(form, x, y, w, reduction="none")
    last = x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    agree(form, last, y, w)
    wide = torch.zeros(2, 10, 3, 14, device=device)
    scattered = wide[:, ::2, :, ::2].copy_(x.detach()).requires_grad_()
    agree(form, scattered, y, w)
    flat, labels, _ = problem(rng, (5, 6), device=device)
    agree(form, flat.detach().t().contiguous().t().requires_grad_(), labels, None)
    agree(form, flat.detach()[:1].expand(5, 6).requires_grad_(), labels, None)


@forms
def test_extreme_logits(form, device):
    hard = [-1e4, -1e3, -100.0, -89.0, -30.0, 0.0, 30.0, 89.0, 100.0, 1e3, 1e4]
    rows = [[z, 0.0, 0.5] for z in hard] + [[1e4, z, -1e4] for z in hard] + [[-z, z, z] for z in hard]
    x = torch.tensor(rows, device=device).requires_grad_()
    agree(form, x, torch.zeros(len(rows), dtype=torch.long, device=device), None, reduction="none")


@pytest.mark.parametrize("form", ["softmax", "softmax_focal", "sigmoid", "focal_half"])
def test_a_class_masked_with_minus_infinity_is_left_alone(form, device):
    x = torch.tensor([[0.5, 1.0, -torch.inf], [0.0, -torch.inf, -torch.inf]], device=device).requires_grad_()
    y = torch.zeros(2, dtype=torch.long, device=device)
    loss = loss_of(form, backend="fused", reduction="none")(x, y)
    torch.testing.assert_close(loss, loss_of(form, backend="torch", reduction="none")(x, y))
    grad = gradient(loss.sum(), x)
    assert grad.isfinite().all()
    assert (grad[x.isinf()] == 0).all()


@forms
@pytest.mark.parametrize("place", [0, 1], ids=["the true class", "a rival"])
@pytest.mark.parametrize("classes", [3, 40_000])  # a tile, several
def test_a_nan_shows_in_loss_and_gradient(form, place, classes, device, rng, monkeypatch):
    if form.startswith("smooth_softmax") and classes > fused.SMOOTH_FOCAL_TO:
        classes = fused.SMOOTH_FOCAL_TO
    if KERNELS:  # as on a GPU, where maximum and minimum return the operand that is a number
        from triton.runtime.interpreter import InterpreterBuilder

        for name, dropping in (("create_maxnumf", np.fmax), ("create_minnumf", np.fmin)):
            operation = functools.partialmethod(InterpreterBuilder.binary_op, op=dropping)
            monkeypatch.setattr(InterpreterBuilder, name, operation)
    x = torch.randn(2, classes, generator=rng).to(device)
    x[0, place] = torch.nan
    y = torch.zeros(2, dtype=torch.long, device=device)
    loss = loss_of(form, backend="fused", reduction="none")(x.requires_grad_(), y)
    assert loss.isnan().tolist() == [True, False]
    assert gradient(loss.sum(), x).isnan().any(1).tolist() == [True, False]


@forms
def test_ignored_samples_leave_nothing_behind(form, device, rng):
    x, y, w = problem(rng, (4, 6), device=device)
    with torch.no_grad():
        x[1] = torch.nan  # the ignored one
    for reduction in ("none", "mean"):
        loss = loss_of(form, backend="fused", reduction=reduction)(x, y, w)
        grad = gradient(loss.sum(), x)
        assert loss.isfinite().all()
        assert (grad[1] == 0).all()
        assert grad.isfinite().all()
    loss = loss_of(form, backend="fused")(x, torch.full_like(y, -100), w)
    assert loss.item() == 0
    assert (gradient(loss, x) == 0).all()


@pytest.mark.skipif(KERNELS, reason="the interpreter runs one program after the other, in order")
@forms
def test_equal_inputs_give_equal_bits(form, device, rng):
    x, y, w = problem(rng, (64, 33), device=device)
    first, second = (loss_of(form, backend="fused")(x, y, w) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(gradient(first, x), gradient(second, x))


@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_offset_is_read_with_the_logits(form, dtype, device, rng, monkeypatch):
    x, y, w = problem(rng, (23, 11), dtype, device)
    a = torch.linspace(-1.2, 0.8, 11, device=device)
    agree(form, x, y, w, offset=a)
    agree(form, x, y, w, offset=a, reduction="none")
    expected = gradient(loss_of(form, backend="fused", offset=a)(x, y, w), x)
    logits = x * 1.0
    inplace = loss_of(form, backend="fused", offset=a, inplace_backward=True)(logits, y, w)
    assert torch.equal(gradient(inplace, x), expected)
    monkeypatch.setattr(blocks, "BLOCK", 50)  # 4 samples
    agree(form, x, y, w, offset=a)
    agree(form, x.detach().t().contiguous().t().requires_grad_(), y, w, offset=a)
    logits = x * 1.0
    inplace = loss_of(form, backend="fused", offset=a, inplace_backward=True)(logits, y, w)
    torch.testing.assert_close(gradient(inplace, x), expected)


@forms
def test_an_offset_of_pixels_and_of_many_classes(form, device, rng):
    a = torch.linspace(1.0, -1.0, 5, device=device)
    agree(form, *problem(rng, (2, 5, 3, 7), device=device), offset=a, reduction="none")
    classes = fused.SMOOTH_FOCAL_TO if form.startswith("smooth_softmax") else 40_000  # several tiles
    a = torch.linspace(1.0, -1.0, classes, device=device)
    agree(form, *problem(rng, (2, classes), device=device), offset=a, rtol=1e-4)


# --- what trainers do with a loss


@some_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_scaled_in_place_or_differentiated_twice(form, dtype, device, rng):
    x, y, w = problem(rng, (6, 7), dtype, device)
    base = gradient(loss_of(form, backend="fused")(x, y, w), x).float()
    loss = loss_of(form, backend="fused")(x, y, w)
    loss *= 6
    loss.div_(2)
    once, again = gradient(loss, x, retain_graph=True), gradient(loss, x)
    torch.testing.assert_close(once, again)
    torch.testing.assert_close(once.float(), 3 * base, rtol=2e-3, atol=1e-6)


def test_a_loss_scale_saves_small_gradients_in_float16(device, rng):
    x, y, w = problem(rng, (64, 1024), torch.float16, device, scale=0.1)
    loss = functional.class_balanced_cross_entropy(x, y, w, backend="fused")
    scaled = gradient(loss * 65536.0, x).float()
    exact = x.detach().float().requires_grad_()
    plain = functional.class_balanced_cross_entropy(exact, y, w, backend="torch")
    wanted = 65536.0 * gradient(plain, exact)  # about 1; unscaled, 1 / (64 * 1024) has few digits in float16
    torch.testing.assert_close(scaled, wanted, rtol=2**-10, atol=2**-14)


@some_forms
def test_second_derivatives_go_through_the_plain_path(form, device, rng):
    x, y, w = problem(rng, (4, 5), device=device)
    seconds, a = [], torch.linspace(-1.0, 1.0, 5, device=device)
    for backend in ("fused", "torch"):
        first = gradient(loss_of(form, backend=backend, offset=a)(x, y, w), x, create_graph=True)
        seconds.append(gradient(first.square().sum(), x))
    torch.testing.assert_close(*seconds)


@some_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_gradient_may_overwrite_the_logits(form, dtype, device, rng):
    x, y, w = problem(rng, (6, 40), dtype, device)
    expected = gradient(loss_of(form, backend="fused")(x, y, w), x)
    logits = x * 1.0
    loss = loss_of(form, backend="fused", inplace_backward=True)(logits, y, w)
    torch.testing.assert_close(loss, loss_of(form, backend="fused")(x, y, w))
    grads = torch.autograd.grad(loss, [logits, x])
    assert grads[0].data_ptr() == logits.data_ptr()
    assert torch.equal(grads[1], expected)
    with pytest.raises(ValueError, match=r"inplace_backward=True needs logits that a model computed"):
        loss_of(form, backend="fused", inplace_backward=True)(x, y, w)


def test_overwritten_logits_say_so(device, rng):
    x, y, w = problem(rng, (6, 4), device=device)
    logits = x.exp()  # exp's own backward needs its result
    loss = functional.class_balanced_focal_loss(logits, y, w, backend="fused", inplace_backward=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = functional.class_balanced_focal_loss(x * 1.0, y, w, backend="fused", inplace_backward=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()
    loss = functional.class_balanced_focal_loss(x * 1.0, y, w, backend="fused", inplace_backward=True)
    with pytest.raises(RuntimeError, match="no logits to differentiate"):
        torch.autograd.grad(loss, x, create_graph=True)


@some_forms
def test_without_a_gradient_only_the_loss_is_computed(form, device, rng):
    x, y, w = problem(rng, (6, 7), device=device)
    loss = loss_of(form, backend="fused")
    with torch.no_grad():
        value = loss(x, y, w)
    assert not value.requires_grad
    torch.testing.assert_close(value, loss(x, y, w).detach())
    torch.testing.assert_close(loss(x.detach(), y, w), value)


def test_the_module_passes_the_backend_on(device, rng):
    x, y, _ = problem(rng, (6, 3), device=device)
    for kind in ("softmax", "sigmoid", "focal", "softmax_focal"):
        one, other = (
            ClassBalancedLoss([90, 9, 3], loss=kind, backend=b).to(device)(x, y) for b in ("fused", "torch")
        )
        assert one.grad_fn.name() == "_FusedBackward"
        assert other.grad_fn.name() != "_FusedBackward"
        torch.testing.assert_close(one, other)


# --- torch.compile


@pytest.mark.skipif(KERNELS, reason="the operators around the kernels are the same")
@some_forms
def test_operators_keep_torchs_rules(form, device, rng):
    x, y, w = problem(rng, (5, 4), device=device)
    function, options = FORMS[form]
    kind = "sigmoid" if function is functional.class_balanced_focal_loss else "softmax"
    numbers = (kind, options.get("gamma", 0.0), options.get("label_smoothing", 0.0), -100)
    factor = torch.tensor(0.2, device=device)
    torch.library.opcheck(torch.ops.longtail.fused_loss.default, (x, y, w, factor, *numbers))
    torch.library.opcheck(torch.ops.longtail.fused_gradient.default, (x.detach(), y, w, factor, *numbers))
    a = torch.linspace(-1.0, 1.0, 4, device=device)
    torch.library.opcheck(torch.ops.longtail.fused_loss.default, (x, y, w, factor, *numbers, a))


@pytest.mark.skipif(KERNELS, reason="the operators around the kernels are the same")
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_compiles_in_one_graph(reduction, device, rng):
    x, y, w = problem(rng, (5, 4), device=device)

    a = torch.linspace(-1.0, 1.0, 4, device=device)

    def losses(x, y):
        options = {"backend": "fused", "reduction": reduction}
        found = [loss_of(f, **options, offset=o)(x, y, w).sum() for f in SOME for o in (None, a)]
        return torch.stack(found)

    eager = losses(x, y)
    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")(x, y)
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(gradient(compiled.sum(), x), gradient(eager.sum(), x))


# --- which path, and why not


@pytest.mark.skipif(KERNELS, reason="about the CPU's own path")
def test_auto_takes_the_fused_path_where_it_pays(rng):
    x, y, _ = problem(rng, (6, 3))
    name = "_FusedBackward"
    assert functional.class_balanced_focal_loss(x, y).grad_fn.name() == name
    assert (
        functional.class_balanced_focal_loss(x, F.one_hot(y.clamp(min=0), 3).float()).grad_fn.name() != name
    )
    assert functional.class_balanced_cross_entropy(x, y).grad_fn.name() != name
    large, labels, _ = problem(rng, (64, 8192))
    assert functional.class_balanced_cross_entropy(large, labels).grad_fn.name() == name
    weight = torch.ones(3, requires_grad=True)
    assert gradient(functional.class_balanced_focal_loss(x, y, weight), weight).isfinite().all()
    assert torch.func.grad(functional.class_balanced_focal_loss)(x.detach(), y).isfinite().all()


X, Y = torch.zeros(2, 3), torch.tensor([0, 1])
REFUSED = {
    "soft labels": ((X, X), {}, r"it takes class indices, not floating-point targets"),
    "device": ((X.to("meta"), Y.to("meta")), {}, r"it runs on the CPU and on CUDA devices, not on meta"),
    "weight": ((X, Y, torch.ones(3, requires_grad=True)), {}, r"it has no gradient for weight"),
    "offset": ((X, Y), {"offset": torch.ones(3, requires_grad=True)}, r"it has no gradient for offset"),
    "denominator": (
        (X, Y),
        {"denominator": torch.tensor(2.0, requires_grad=True)},
        r"it has no gradient for denominator",
    ),
}


@some_forms
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_fused_path_cannot_take(form, case):
    arguments, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"backend='fused' cannot take this input: {message}; .*'auto'"):
        loss_of(form, backend="fused")(*arguments, **options)


def test_transforms_are_refused_and_an_unknown_backend_named():
    with pytest.raises(ValueError, match=r"it knows no torch.func transforms"):
        torch.func.grad(loss_of("focal", backend="fused"))(X, Y)
    with pytest.raises(ValueError, match=r"backend must be one of .*got 'fussed'; did you mean 'fused'\?"):
        loss_of("focal", backend="fussed")(X, Y)
    with pytest.raises(ValueError, match=r"backend must be one of .*got 'cuda'"):
        ClassBalancedLoss([3, 2, 1], backend="cuda")


def test_a_loss_that_no_fused_path_knows_is_refused():
    setting = Setting("hinge", 0.0, 0.0, -100)
    one, index = torch.ones(()), Y
    with pytest.raises(ValueError, match=r"kind must be one of 'softmax', 'sigmoid', got 'hinge'"):
        fused.compute(X, index, None, one, setting, gradient=True)
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'sigmiod'; did you mean 'sigmoid'\?"):
        torch.ops.longtail.fused_loss(X, index, None, one, "sigmiod", 0.0, 0.0, -100)
    modules = [blocks] + [importlib.import_module("longtail.losses.fast.kernels")] * HAS_TRITON
    for module in modules:
        with pytest.raises(ValueError, match=r"kind must be one of .*got 'hinge'"):
            module.rows(X, index, None, one, None, "hinge", 0.0, 0.0, gradient=True)


@pytest.mark.skipif(not KERNELS, reason="about the kernels")
def test_what_the_kernels_cannot_take():
    with pytest.raises(ValueError, match=r"computes float32, bfloat16 and float16, not float64"):
        loss_of("focal", backend="fused")(X.double(), Y)
    many = torch.zeros(1, fused.SMOOTH_FOCAL_TO + 1)
    with pytest.raises(ValueError, match=r"smooths the softmax focal loss of up to 16384 classes"):
        loss_of("smooth_softmax_focal", backend="fused")(many, Y[:1])


@pytest.mark.skipif(KERNELS, reason="on a GPU a label out of range trips the device's assertion")
@some_forms
@pytest.mark.parametrize("options", [{}, {"inplace_backward": True}], ids=str)
def test_labels_out_of_range_are_named_before_anything_is_overwritten(form, options):
    x = torch.ones(2, 3, requires_grad=True)
    logits = x * 1.0
    with pytest.raises(ValueError, match=r"target must be in 0\.\.2 .*got 3 \(1 such\)"):
        loss_of(form, backend="fused", **options)(logits, torch.tensor([0, 3]))
    assert (logits == 1).all()


@pytest.mark.skipif(KERNELS, reason="about the CPU's own path")
@forms
def test_blocks_of_samples_are_the_whole(form, monkeypatch, rng):
    x, y, w = problem(rng, (23, 11))
    whole = loss_of(form, backend="fused")(x, y, w)
    grad = gradient(whole, x)
    monkeypatch.setattr(blocks, "BLOCK", 50)  # 4 samples
    parts = loss_of(form, backend="fused")(x, y, w)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient(parts, x), grad)


@pytest.mark.skipif(KERNELS, reason="about the CPU's own path")
def test_large_inputs_are_compiled_once_and_run_without_a_compiler(monkeypatch, rng):
    x, y, w = problem(rng, (9, 21))
    monkeypatch.setattr(blocks, "COMPILED", 1)
    monkeypatch.setattr(blocks, "_compiles", True)
    agree("focal", x, y, w)
    agree("focal", x, y, w, offset=torch.linspace(-1.0, 1.0, 21))
    with pytest.raises(ValueError, match=r"target must be in 0\.\.2 .*got 3"):
        loss_of("focal")(X.clone().requires_grad_(), torch.tensor([0, 3]))
    assert blocks._compiles is (importlib.util.find_spec("torch._inductor") is not None)

    def broken(*_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(blocks, "_compiled", lambda _: broken)
    agree("focal", x, y, w)
    assert not blocks._compiles


# --- the kernels


def compiled_for_hopper(kind, classes, gamma, smoothing, dtype, pixels=False):
    """Machine code of the kernel, by Triton's own compiler and assembler, which need no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from longtail.losses.fast import kernels

    rows, cols, warps = kernels.tile(classes, kind == "softmax", pixels=pixels)
    constants = {
        **{"SOFTMAX": kind == "softmax", "GAMMA": int(gamma) if gamma in (0, 1, 2) else -1},
        **{"SMOOTH": smoothing, "WEIGHED": True, "SHIFTED": True, "GRADIENT": True},
        **{"ROWS": rows, "COLS": cols},
        **{"WHOLE": cols >= classes, "WIDE": False, "EVEN": 1 if pixels else 2},
        **dict.fromkeys(("x_inner", "g_inner") if pixels else ("x_class", "g_class", "inner"), 1),
    }
    pointers = {"x_ptr": dtype, "gradient_ptr": dtype, "loss_ptr": "fp32", "target_ptr": "i64"}
    types = {
        name: f"*{pointers.get(name, 'fp32')}" for name in kernels._rows.arg_names if name.endswith("_ptr")
    }
    types |= dict.fromkeys(("gamma", "hot_t", "hot_u", "cold_t", "cold_u"), "fp32")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernels._rows.arg_names}
    source = ASTSource(fn=kernels._rows, signature=signature, constexprs=constants)
    options = {"num_warps": warps, **kernels._ASSERTS}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.skipif(KERNELS or not HAS_TRITON, reason="needs triton's compiler")
@pytest.mark.parametrize(
    "variant",
    [
        ("softmax", 8142, 0.0, False, "fp32"),
        ("softmax", 128_256, 0.5, False, "bf16"),
        ("softmax", 1000, 2.0, True, "fp16"),
        ("sigmoid", 8142, 2.0, False, "bf16"),
        ("softmax", 19, 0.0, False, "fp32", True),
    ],
    ids=str,
)
def test_the_kernels_compile_for_hopper(variant, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    made = compiled_for_hopper(*variant)
    assert len(made.asm["cubin"]) > 1000
    assert (
        "__assertfail" in made.asm["ptx"]
    )  # a label out of range stops the device, as torch's own loss does


@pytest.mark.cuda
@pytest.mark.skipif(KERNELS or not torch.cuda.is_available(), reason="no CUDA device")
@forms
def test_the_kernels_never_wait_for_the_host(form, rng):
    x, y, w = problem(rng, (6, 40), device="cuda")
    loss = loss_of(form, backend="fused")
    loss(x, y, w).backward()  # compile
    torch.cuda.set_sync_debug_mode("error")
    try:
        (loss(x, y, w) * 3.0).backward()
        loss(x, y, w, reduction="none").sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.skipif(KERNELS or not torch.cuda.is_available(), reason="no CUDA device")
def test_offsets_beyond_31_bits(rng):
    if torch.cuda.mem_get_info()[0] < 20 << 30:
        pytest.skip("needs 20 GiB of free device memory")
    rows, classes = 17_000, 131_072  # 2.2e9 logits
    x = torch.zeros(rows, classes, dtype=torch.bfloat16, device="cuda")
    tail = torch.randn(3, classes, device="cuda").bfloat16()
    x[-3:] = tail
    y = torch.randint(classes, (rows,), device="cuda")
    x.requires_grad_()
    functional.class_balanced_focal_loss(x, y, reduction="sum", backend="fused").backward()
    agree("focal", tail.requires_grad_(), y[-3:], None, reduction="sum")
    part = gradient(
        functional.class_balanced_focal_loss(tail, y[-3:], reduction="sum", backend="torch"), tail
    )
    torch.testing.assert_close(x.grad[-3:], part, rtol=2**-7, atol=1e-6)


@pytest.mark.skipif(KERNELS or not HAS_TRITON, reason="starts the interpreter where Triton is installed")
def test_the_kernels_pass_under_tritons_interpreter(finish):
    """A third of these tests; `make backends` takes all."""
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--one-in",
        "3",
        __file__,
    ]
    done = finish(command, env=environment)
    assert done.returncode == 0, done.stdout[-5000:]
