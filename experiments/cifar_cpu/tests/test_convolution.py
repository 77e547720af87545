"""The CPU's kernels for convolution, batch norm and ReLU: against float64, and in training."""

import copy
import ctypes

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from longtail.models import build
from longtail.models.resnet_cifar import BasicBlock, CifarResNet
from longtail_cifar_cpu import build as building
from longtail_cifar_cpu import convolution
from longtail_cifar_cpu.convolution import conv_norm_relu, residual_blocks, running

LAST = torch.channels_last


@pytest.fixture(scope="module", params=["this machine's", "16 floats wide"])
def kernels(request):
    """The library as built here, and as machines with AVX-512 build it (here in halves)."""
    if request.param == "this machine's":
        yield building.library()
        return
    wide = building._load(building.build((*building._FLAGS, "-O1", "-DLONGTAIL_WIDE")))
    ours, convolution.library = convolution.library, lambda: wide
    yield wide
    convolution.library = ours


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def layers(inputs, outputs, seed=0):
    torch.manual_seed(seed)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False).to(memory_format=LAST)
    norm = nn.BatchNorm2d(outputs)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return conv, norm


def tensors(n, inputs, outputs, height, width, residual, mean=0.5):
    x = (torch.randn(n, inputs, height, width) + mean).contiguous(memory_format=LAST).requires_grad_()
    r = torch.randn(n, outputs, height, width).contiguous(memory_format=LAST).requires_grad_()
    return x, r if residual else None


def doubled(*things):
    for thing in things:
        if isinstance(thing, nn.Module):
            yield copy.deepcopy(thing).double()
        else:
            yield None if thing is None else thing.detach().double().requires_grad_()


def run(conv, norm, x, r, grad):
    output = conv_norm_relu(conv, norm, x, r)
    output.backward(grad)
    return output


def assert_same(conv, norm, x, r, tolerance=2e-5):
    """Compare output, gradients and statistics with torch's in float64."""
    conv64, norm64, x64, r64 = doubled(conv, norm, x, r)
    before = norm64(conv64(x64)) + (0 if r64 is None else r64)
    norm64.load_state_dict(norm.state_dict())
    # rounding may not decide what a ReLU lets pass
    grad = torch.randn(before.shape) * (before.detach().abs() > 1e-3 * before.detach().abs().max())
    ours = run(conv, norm, x, r, grad)
    assert type(ours.grad_fn).__name__ == "_ConvNormReLUBackward"
    theirs = run(conv64, norm64, x64, r64, grad.double())
    pairs = {
        "output": (ours, theirs),
        "weight": (conv.weight.grad, conv64.weight.grad),
        "scale": (norm.weight.grad, norm64.weight.grad),
        "shift": (norm.bias.grad, norm64.bias.grad),
        "running mean": (norm.running_mean, norm64.running_mean),
        "running variance": (norm.running_var, norm64.running_var),
    }
    if x.requires_grad:
        pairs["input"] = (x.grad, x64.grad)
    if r is not None:
        pairs["residual"] = (r.grad, r64.grad)
    for name, (a, b) in pairs.items():
        worst = ((a - b).abs().max() / (b.abs().max() + 1e-3)).item()
        assert worst < tolerance, f"{name}: {worst:.1e}"
    assert norm.num_batches_tracked == norm64.num_batches_tracked


@pytest.mark.parametrize("channels", [(16, 16), (32, 32), (64, 64), (48, 16), (16, 80)])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (7, 5), (1, 9), (6, 2)])
@pytest.mark.parametrize("residual", [False, True])
def test_values_and_gradients_are_those_of_float64(kernels, channels, size, residual):
    conv, norm = layers(*channels)
    assert_same(conv, norm, *tensors(3, *channels, *size, residual))


@pytest.mark.parametrize("channels", [(3, 16), (1, 16), (15, 48)])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (7, 5), (1, 9), (6, 2)])
@pytest.mark.parametrize("threads", [1, 3])
def test_images_have_few_channels(kernels, channels, size, threads):
    torch.set_num_threads(threads)
    conv, norm = layers(*channels)
    x, r = tensors(4, *channels, *size, residual=threads > 1)
    assert_same(conv, norm, x.requires_grad_(False), r)


def test_images_with_a_gradient_are_convolved_by_torch():
    conv, norm = layers(3, 16)
    x, _ = tensors(2, 3, 16, 8, 8, False)
    conv64, norm64, x64 = doubled(conv, norm, x)
    grad = torch.randn(2, 16, 8, 8)
    ours = run(conv, norm, x, None, grad)
    assert type(ours.grad_fn).__name__ == "_NormReLUBackward"
    run(conv64, norm64, x64, None, grad.double())
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-5)


@given(
    n=st.integers(1, 4),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    channels=st.tuples(*[st.sampled_from([16, 32, 48])] * 2),
    threads=st.integers(1, 5),
    residual=st.booleans(),
)
def test_any_shape_and_number_of_threads(n, height, width, channels, threads, residual):
    assume(n * height * width > 3)  # of two or three values, a norm magnifies any rounding
    torch.set_num_threads(threads)
    conv, norm = layers(*channels, seed=n)
    assert_same(conv, norm, *tensors(n, *channels, height, width, residual), tolerance=1e-4)


@pytest.mark.parametrize("inputs", [3, 16])
def test_a_large_mean_does_not_swallow_the_variance(kernels, inputs):
    conv, norm = layers(inputs, 16)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(16)[:, :inputs, None, None] * (torch.arange(9) == 4).view(3, 3))
        conv.weight[inputs:].copy_(conv.weight[:1])  # where there are fewer channels
    x, _ = tensors(8, inputs, 16, 12, 12, False, mean=1000.0)
    conv_norm_relu(conv, norm, x.detach())
    inner = x.detach().double().var((0, 2, 3))
    inner = torch.cat((inner, inner[:1].expand(16 - inputs)))
    norm.running_var.sub_(0.9 * layers(inputs, 16)[1].running_var)
    # the edges' rounding of numbers near 1000 is 6e-5 of the standard deviation
    torch.testing.assert_close(norm.running_var.double() / 0.1, inner, rtol=1e-2, atol=0)


@pytest.mark.parametrize("inputs", [3, 16])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_evaluation_uses_the_running_statistics(kernels, inputs, strided, residual):
    conv, norm = layers(inputs, 32)
    if strided:
        conv.stride = (2, 2)
    norm.eval()
    x, _ = tensors(2, inputs, 32, 9, 6, False)
    r = torch.randn_like(conv(x)).contiguous(memory_format=LAST) if residual else None
    conv64, norm64, x64, r64 = doubled(conv, norm, x, r)
    with torch.inference_mode():
        ours = conv_norm_relu(conv, norm, x, r)
    torch.testing.assert_close(ours.double(), conv_norm_relu(conv64, norm64, x64, r64), rtol=1e-5, atol=2e-5)
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("residual", [False, True])
def test_after_a_convolution_of_torchs_norm_and_relu_are_still_ours(kernels, residual):
    conv, norm = layers(16, 32)
    conv.stride = (2, 2)
    x, _ = tensors(3, 16, 32, 9, 8, False)
    r = torch.randn_like(conv(x)).contiguous(memory_format=LAST).requires_grad_() if residual else None
    conv64, norm64, x64, r64 = doubled(conv, norm, x, r)
    grad = torch.randn(3, 32, 5, 4)
    ours = run(conv, norm, x, r, grad)
    assert type(ours.grad_fn).__name__ == "_NormReLUBackward"
    theirs = run(conv64, norm64, x64, r64, grad.double())
    pairs = [(ours, theirs), (x.grad, x64.grad), (conv.weight.grad, conv64.weight.grad)]
    pairs += [(norm.weight.grad, norm64.weight.grad), (norm.bias.grad, norm64.bias.grad)]
    pairs += [(norm.running_mean, norm64.running_mean), (norm.running_var, norm64.running_var)]
    pairs += [(r.grad, r64.grad)] if residual else []
    for a, b in pairs:
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


SAME = [(width, width, size) for width in (16, 32, 48, 64) for size in ((8, 8), (7, 10), (5, 1))]
HALVED = [(16, 32, (32, 12)), (16, 32, (6, 10)), (32, 64, (8, 8)), (16, 48, (2, 14)), (48, 80, (4, 2))]


@pytest.mark.parametrize(("inputs", "channels", "size"), SAME + HALVED)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_block_is_its_two_halves(kernels, inputs, channels, size, threads):
    torch.set_num_threads(threads)
    assert_blocks_same([BasicBlock(inputs, channels)], inputs, size)


TRUNKS = {
    "a network's": ([(16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 64)], (8, 12)),
    "smaller at once": ([(16, 48), (48, 48), (48, 48)], (6, 10)),
    "smaller at the end": ([(32, 32), (32, 64)], (16, 2)),
    "smaller and smaller": ([(16, 32), (32, 64), (64, 96)], (16, 24)),
}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_blocks_are_those_one_by_one(kernels, trunk, threads):
    channels, size = TRUNKS[trunk]
    torch.set_num_threads(threads)
    assert_blocks_same([BasicBlock(*pair) for pair in channels], channels[0][0], size)


def test_a_block_may_occur_twice():
    block = BasicBlock(16, 16)
    assert_blocks_same([block, block, BasicBlock(16, 32)], 16, (8, 8))


def assert_blocks_same(blocks, inputs, size):
    """Compare output, gradients and statistics with torch's in float64."""
    torch.manual_seed(len(blocks))
    trunk = nn.Sequential(*blocks).to(memory_format=LAST)
    with torch.no_grad():
        for norm in [norm for block in blocks for norm in (block.norm1, block.norm2)]:
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    x, _ = tensors(3, inputs, inputs, *size, False)
    trunk64, x64 = doubled(trunk, x)
    with running(trunk):
        ours = residual_blocks(trunk, x)
    grad = torch.randn(ours.shape).contiguous(memory_format=LAST)
    kept = grad.clone()
    assert type(ours.grad_fn).__name__ == "_ResidualBlocksBackward"
    assert type(ours.grad_fn.next_functions[0][0]).__name__ == "AccumulateGrad"  # of x
    ours.backward(grad)
    assert torch.equal(grad, kept)
    theirs = trunk64(x64)
    theirs.backward(grad.double())
    pairs = [(ours, theirs), (x.grad, x64.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(trunk.parameters(), trunk64.parameters(), strict=True)]
    pairs += zip(trunk.buffers(), trunk64.buffers(), strict=True)
    for a, b in pairs:
        # in norm: a rounding error may decide what a ReLU lets pass, once in a hundred thousand
        a, b = a.double(), b.double()
        assert (a - b).norm() <= 1e-2 * b.norm()
        assert ((a - b).abs() > 1e-4 * b.abs().max()).float().mean() < 1e-2


def test_blocks_that_the_kernels_cannot_run_at_once_are_run_one_by_one():
    torch.manual_seed(0)
    trunk = nn.Sequential(BasicBlock(16, 32), BasicBlock(32, 64)).to(memory_format=LAST)
    x, _ = tensors(3, 16, 16, 6, 6, False)  # 3 by 3 are not halved by the kernels
    trunk64, x64 = doubled(trunk, x)
    with running(trunk):
        ours = residual_blocks(trunk, x)
    torch.testing.assert_close(ours.double(), trunk64(x64), rtol=1e-4, atol=1e-5)
    assert [block.norm1.num_batches_tracked for block in trunk] == [1, 1]


class Scaled(BasicBlock):
    def forward(self, input):
        return 3 * super().forward(input)


@pytest.mark.parametrize("where", ["blocks", "blocks.1", "blocks.4.conv2", ""])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_a_networks_hooks_fire(where, kind):
    model = CifarResNet(14).to(memory_format=LAST)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=LAST).requires_grad_()
    module, fired = model.get_submodule(where), []
    everywhere = getattr(nn.modules.module, f"register_module_{kind}_hook")
    register = getattr(module, f"register_{kind}_hook") if where else everywhere
    handle = register(lambda module, *_: fired.append(module))
    try:
        with running(model):
            model(x).sum().backward()
    finally:
        handle.remove()
    assert {id(m) for m in fired} == {id(m) for m in ([module] if where else model.modules())}


def test_hooks_on_all_modules_see_what_passes():
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, _, out: seen.append((module, out)))
    try:
        model = CifarResNet(8).to(memory_format=LAST)
        with running(model):
            model(torch.randn(2, 3, 8, 8).contiguous(memory_format=LAST))
    finally:
        handle.remove()
    assert all(output.min() < 0 for module, output in seen if type(module) is nn.BatchNorm2d)


class Doubled(nn.Sequential):
    def forward(self, input):
        return 2 * super().forward(input)


def test_a_sequence_of_another_kind_is_called():
    trunk = Doubled(BasicBlock(16, 16), BasicBlock(16, 16)).to(memory_format=LAST)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    expected = copy.deepcopy(trunk)(x)
    with running(trunk):
        torch.testing.assert_close(residual_blocks(trunk, x), expected, rtol=1e-4, atol=1e-4)


def test_layers_of_a_block_that_do_not_fit_are_refused_as_torch_does():
    x, _ = tensors(2, 16, 16, 8, 8, False)
    for name, layer, said in (
        ("norm1", nn.BatchNorm2d(32), "running_mean should contain 16 elements"),
        ("norm2", nn.BatchNorm2d(32), "running_mean should contain 16 elements"),
        ("conv2", nn.Conv2d(32, 16, 3, padding=1, bias=False), "expected input"),
        ("conv2", nn.Conv2d(16, 32, 3, padding=1, bias=False), "running_mean should contain 32 elements"),
    ):
        block = BasicBlock(16, 16)
        setattr(block, name, layer)
        with running(block), pytest.raises(RuntimeError, match=said):
            block.to(memory_format=LAST)(x)


@pytest.mark.parametrize("where", ["blocks", "blocks.1"])
def test_a_forward_of_a_modules_own_is_called(where):
    model, calls = CifarResNet(14).to(memory_format=LAST), []
    module = model.get_submodule(where)
    inner = module.forward
    module.forward = lambda input: calls.append(where) or inner(input)
    with running(model):
        model(torch.randn(2, 3, 8, 8).contiguous(memory_format=LAST))
    assert calls == [where]


def test_a_networks_block_of_another_kind_is_called():
    model = CifarResNet(14).to(memory_format=LAST)
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=LAST)
    torch.manual_seed(0)
    model.blocks[2] = Scaled(16, 32).to(memory_format=LAST)
    expected = copy.deepcopy(model)(x)
    with running(model):
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [24, 40])
def test_a_block_that_the_kernels_cannot_run_is_torchs(channels):
    torch.manual_seed(0)
    block = BasicBlock(24, channels).to(memory_format=LAST)
    x = torch.randn(2, 24, 8, 8).contiguous(memory_format=LAST)
    expected = copy.deepcopy(block)(x)
    with running(block):
        assert torch.equal(block(x), expected)


def test_a_block_cut_by_hand_is_torchs():
    torch.manual_seed(0)
    block = BasicBlock(32, 32).to(memory_format=LAST)
    with torch.no_grad():
        block.conv1.weight = nn.Parameter(block.conv1.weight[:16].clone())
        block.conv2.weight = nn.Parameter(block.conv2.weight[:, :16].clone())
        for name in ("weight", "bias"):
            setattr(block.norm1, name, nn.Parameter(getattr(block.norm1, name)[:16].clone()))
        for name in ("running_mean", "running_var"):
            setattr(block.norm1, name, getattr(block.norm1, name)[:16].clone())
    x, _ = tensors(2, 32, 32, 8, 8, False)
    expected = copy.deepcopy(block)(x)
    with running(block):
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["norm1", "norm2"])
def test_a_norm_in_evaluation_keeps_its_statistics(norm):
    block = BasicBlock(16, 16).to(memory_format=LAST)
    block.get_submodule(norm).eval()
    x, _ = tensors(2, 16, 16, 8, 8, False)
    expected = copy.deepcopy(block)(x)
    with running(block):
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert block.get_submodule(norm).num_batches_tracked == 0


def test_norms_need_not_count_batches():
    block = BasicBlock(16, 16).to(memory_format=LAST)
    block.norm1.num_batches_tracked = block.norm2.num_batches_tracked = None
    x, _ = tensors(2, 16, 16, 8, 8, False)
    with running(block):
        ours = block(x)
    assert type(ours.grad_fn).__name__ == "_ResidualBlocksBackward"


def test_blocks_without_a_way_back_do_not_join_it():
    trunk = nn.Sequential(*[BasicBlock(16, 16) for _ in range(3)]).to(memory_format=LAST)
    other = copy.deepcopy(trunk)
    trunk[:2].requires_grad_(False)
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=LAST)
    with running(nn.ModuleList((trunk, other))):
        ours = residual_blocks(trunk, x)
        with torch.no_grad():
            none = residual_blocks(other, x)
    assert torch.equal(ours, none)
    assert not none.requires_grad
    assert len([t for t in ours.grad_fn.saved_tensors if t.shape == x.shape]) == 4  # those of one block
    assert [block.norm1.num_batches_tracked for block in trunk] == [1, 1, 1]
    assert residual_blocks(nn.Sequential(), x) is x


@pytest.mark.parametrize("size", [(7, 9), (7, 10), (8, 9)])
def test_an_odd_image_is_halved_by_torch(size):
    torch.manual_seed(0)
    block = BasicBlock(16, 32).to(memory_format=LAST)
    x, _ = tensors(3, 16, 32, *size, False)
    block64, x64 = doubled(block, x)
    with running(block):
        ours = block(x)
    theirs = block64(x64)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    assert ours.shape == (3, 32, 4, 5)


def test_the_norms_of_blocks_need_several_values_too():
    trunk = nn.Sequential(BasicBlock(16, 16), BasicBlock(16, 32)).to(memory_format=LAST)
    x, _ = tensors(1, 16, 16, 2, 2, False)
    for blocks in (trunk, trunk[1:]):
        with (
            running(trunk),
            pytest.raises(ValueError, match=r"over one value a channel to train, got \[1, 32, 1, 1\]"),
        ):
            residual_blocks(blocks, x)
    assert trunk[0].norm1.num_batches_tracked == 0


@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (2, 16, 8, 8), (2, 32, 8, 7)])
def test_a_residual_of_another_shape_is_torchs_to_broadcast_or_refuse(shape):
    conv, norm = layers(16, 32)
    x, _ = tensors(2, 16, 32, 8, 8, False)
    r = torch.randn(shape).contiguous(memory_format=LAST)
    if shape[2:] == (1, 1):
        expected = torch.relu(copy.deepcopy(norm)(conv(x)) + r)
        assert torch.equal(conv_norm_relu(conv, norm, x, r), expected)
    else:
        with pytest.raises(RuntimeError, match="must match the size"):
            conv_norm_relu(conv, norm, x, r)


def test_channels_that_do_not_fit_are_refused_as_torch_does():
    conv, norm = layers(16, 32)
    x, _ = tensors(2, 32, 32, 8, 8, False)
    with pytest.raises(RuntimeError, match="expected input"):
        conv_norm_relu(conv, norm, x)
    x, _ = tensors(2, 16, 32, 8, 8, False)
    with pytest.raises(RuntimeError, match="running_mean should contain 32 elements"):
        conv_norm_relu(conv, nn.BatchNorm2d(16), x)


CASES = {
    "double": dict(dtype=torch.float64),
    "channels first": dict(layout=torch.contiguous_format),
    "odd channels": dict(channels=(16, 24)),
    "bias": dict(bias=True),
    "dilated": dict(dilation=2, padding=2),
    "groups": dict(groups=2),
    "5x5": dict(kernel=5, padding=2),
    "no padding": dict(padding=0),
    "reflected": dict(padding_mode="reflect"),
    "cumulative average": dict(momentum=None),
    "no scale": dict(affine=False),
    "no statistics": dict(track=False),
}


@pytest.mark.parametrize("case", CASES)
def test_elsewhere_it_is_torchs_to_the_last_bit(case):
    options = {"dtype": torch.float32, "layout": LAST, "channels": (16, 32), "bias": False}
    options |= {"dilation": 1, "padding": 1, "groups": 1, "kernel": 3, "padding_mode": "zeros"}
    options |= {"momentum": 0.1, "affine": True, "track": True} | CASES[case]
    keys = ("padding", "dilation", "groups", "bias", "padding_mode")
    torch.manual_seed(0)
    conv = nn.Conv2d(*options["channels"], options["kernel"], **{key: options[key] for key in keys})
    norm = nn.BatchNorm2d(
        options["channels"][1],
        momentum=options["momentum"],
        affine=options["affine"],
        track_running_stats=options["track"],
    )
    conv, norm = (m.to(dtype=options["dtype"], memory_format=options["layout"]) for m in (conv, norm))
    x = torch.randn(2, 16, 8, 8, dtype=options["dtype"]).contiguous(memory_format=options["layout"])
    other = copy.deepcopy(norm)
    expected = torch.relu(other(conv(x)))
    ours = conv_norm_relu(conv, norm, x)
    if case in ("bias", "dilated", "groups", "5x5", "no padding", "reflected"):
        # torch convolves; norm and ReLU are ours
        torch.testing.assert_close(ours, expected)
        assert type(ours.grad_fn).__name__ == "_NormReLUBackward"
    else:
        assert torch.equal(ours, expected)
        assert torch.equal(norm.running_mean, other.running_mean) if options["track"] else True


class Standardised(nn.Conv2d):
    def forward(self, input):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(input, weight, None)


class Tripled(nn.BatchNorm2d):
    def forward(self, input):
        return 3 * super().forward(input)


def test_subclasses_are_called_as_they_are():
    conv, norm = layers(16, 16)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    other = Standardised(16, 16, 3, padding=1, bias=False).to(memory_format=LAST)
    tripled = Tripled(16)
    cases = [(other, norm), (conv, tripled), (conv, nn.Identity()), (other, nn.Identity())]
    for one, two in cases:
        expected = torch.relu(copy.deepcopy(two)(one(x)))
        torch.testing.assert_close(conv_norm_relu(one, two, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["conv1", "norm1", "conv2", "norm2"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_fire(which, kind):
    block = BasicBlock(16, 16).to(memory_format=LAST)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    fired = []
    register = getattr(block.get_submodule(which), f"register_{kind}_hook")
    register(lambda *_: fired.append(which))
    with running(block):
        block(x).sum().backward()
    assert fired == [which]


def test_tensors_that_the_kernels_cannot_read_are_torchs():
    conv, norm = layers(16, 16)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    norm.weight = nn.Parameter(torch.arange(32.0)[::2])
    assert not norm.weight.is_contiguous()
    expected = torch.relu(copy.deepcopy(norm)(conv(x)))
    torch.testing.assert_close(conv_norm_relu(conv, norm, x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_default_dtype_does_not_matter(dtype):
    block = BasicBlock(16, 16).to(memory_format=LAST)
    other = copy.deepcopy(block)
    strided = BasicBlock(16, 32).to(memory_format=LAST)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    with running(other):
        expected = other(x)
    torch.set_default_dtype(dtype)
    try:
        with running(nn.ModuleList((block, strided))):
            output = block(x)
            output.sum().backward()
            strided(x).sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(output, expected)
    assert x.grad.isfinite().all()


def test_frozen_layers_and_a_kept_graph():
    block = BasicBlock(16, 16)
    trunk = nn.Sequential(block, BasicBlock(16, 32), BasicBlock(32, 32)).to(memory_format=LAST)
    block.conv1.weight.requires_grad_(False)
    block.norm2.requires_grad_(False)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    with running(trunk):
        total = residual_blocks(trunk, x).square().sum()
    total.backward(retain_graph=True)
    once, weight = x.grad.clone(), block.conv2.weight.grad.clone()
    total.backward()
    assert torch.equal(x.grad, 2 * once)
    assert torch.equal(block.conv2.weight.grad, 2 * weight)
    assert block.conv1.weight.grad is None
    assert block.norm2.weight.grad is None


def test_statistics_that_a_graph_still_needs_are_guarded():
    conv, norm = layers(16, 16)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    norm.eval()
    needs = norm(conv(x)).sum()
    norm.train()
    conv_norm_relu(conv, norm, x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        needs.backward()


def test_autocast_is_left_to_torch():
    conv, norm = layers(16, 16)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv_norm_relu(conv, norm, x).dtype == torch.bfloat16


@pytest.mark.parametrize("inputs", [3, 16])
def test_weights_and_gradients_may_lie_otherwise_in_memory(kernels, inputs):
    conv, norm = layers(inputs, 16)
    block = BasicBlock(16, 32)
    x, _ = tensors(2, inputs, 16, 6, 6, False)
    x.requires_grad_(inputs == 16)
    grad = torch.randn(32).view(1, 32, 1, 1).expand(2, 32, 3, 3)
    found = []
    for layout in (LAST, torch.contiguous_format):
        modules = nn.ModuleList((conv, norm, block)).to(memory_format=layout)
        modules.zero_grad()
        x.grad = None
        with running(block):
            block(conv_norm_relu(conv, norm, x)).backward(grad)
        found.append([p.grad.clone() for p in modules.parameters()] + ([x.grad] if inputs == 16 else []))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_the_same_call_gives_the_same_bits():
    torch.set_num_threads(3)
    results = []
    for _ in range(5):
        conv, norm = layers(32, 32)
        x, r = tensors(5, 32, 32, 10, 10, True)
        model = CifarResNet(8).to(memory_format=LAST)
        image = torch.randn(5, 3, 12, 12).contiguous(memory_format=LAST)
        with running(model):
            y = run(conv, norm, x, r, torch.ones(5, 32, 10, 10))
            model(image).square().sum().backward()
        ours = [y, x.grad, r.grad, conv.weight.grad, norm.weight.grad, norm.running_var]
        results.append(ours + [p.grad for p in model.parameters()] + list(model.buffers()))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_a_frozen_input_gets_no_gradient():
    conv, norm = layers(16, 16)
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=LAST)
    conv_norm_relu(conv, norm, x).sum().backward()
    assert x.grad is None
    assert conv.weight.grad is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_lost(kernels, bad):
    conv, norm = layers(16, 16)
    block = BasicBlock(16, 32).to(memory_format=LAST)
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=LAST)
    x[1, 3, 4, 4] = bad
    assert not conv_norm_relu(conv, norm, x).isfinite().any()
    with running(block):
        assert not block(x).isfinite().any()


@pytest.mark.parametrize("kind", ["convolution", "strided", "block"])
def test_a_second_derivative_is_refused(kind):
    conv, norm = layers(16, 16)
    conv.stride = (2, 2) if kind == "strided" else (1, 1)
    x, _ = tensors(2, 16, 16, 8, 8, False)
    block = BasicBlock(16, 16).to(memory_format=LAST)
    with running(block):
        total = (block(x) if kind == "block" else conv_norm_relu(conv, norm, x)).sum()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(total, x, create_graph=True)


def test_one_pixel_is_refused_as_torch_does():
    conv, norm = layers(16, 16)
    with pytest.raises(ValueError, match=r"over one value a channel to train, got \[1, 16, 1, 1\]"):
        conv_norm_relu(conv, norm, torch.ones(1, 16, 1, 1).contiguous(memory_format=LAST))


def test_a_network_is_as_near_to_float64_as_torchs_own():
    torch.manual_seed(0)
    model = build("resnet20", in_channels=3, num_classes=10).to(memory_format=LAST)
    x, y = torch.randn(32, 3, 32, 32).contiguous(memory_format=LAST), torch.arange(32) % 10
    gradients = []
    for kind in ("ours", "torch", "float64"):
        network = copy.deepcopy(model)
        inputs = x
        if kind == "float64":
            network, inputs = network.double(), x.double()
        with running(network) if kind == "ours" else torch.enable_grad():
            nn.functional.cross_entropy(network(inputs), y).backward()
        gradients.append(torch.cat([p.grad.double().flatten() for p in network.parameters()]))
    ours, torchs, exact = gradients
    # rounding is ten times torch's, and decides now and then what a ReLU lets pass
    assert (ours - exact).norm() < 10 * (torchs - exact).norm()
    assert (ours - exact).norm() < 1e-2 * exact.norm()


def test_running_is_of_one_network_and_ends():
    model, other = (CifarResNet(8).to(memory_format=LAST) for _ in range(2))
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=LAST)
    expected = copy.deepcopy(model)(x)
    with running(model):
        with running(model):
            pass
        assert not torch.equal(copy.deepcopy(model)(x), expected)
        assert all("forward" in vars(m) for m in (model, *model.blocks))
        assert not any("forward" in vars(m) for m in other.modules())
    assert not any("forward" in vars(m) for m in model.modules())
    assert torch.equal(model(x), expected)
    with pytest.raises(KeyError), running(model):
        raise KeyError
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize("threads", [1, 3])
def test_where_there_is_no_memory_an_exception_says_so(kernels, threads):
    weight = torch.ones(16, 16, 3, 3).contiguous(memory_format=LAST)
    parameters = ctypes.byref(convolution._parameters(weight))
    width = 2**36  # a thread finds no memory for a row of it; nothing is read before
    with pytest.raises(
        MemoryError, match=r"no memory is left .*; lower batch_size, or use acceleration='none'"
    ):
        kernels.longtail_convolve(None, parameters, None, None, None, 1, 1, width, 16, 16, threads)
    channels = 2**20  # nor the caller, for the filter
    with pytest.raises(MemoryError, match="no memory is left"):
        kernels.longtail_convolve(None, parameters, None, None, None, 1, 8, 8, channels, channels, threads)
    conv, norm = layers(16, 16)  # and the next call has what it needs
    assert_same(conv, norm, *tensors(3, 16, 16, 8, 8, False))
