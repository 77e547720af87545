"""The residual networks of the paper: sizes, the definition written out in NumPy, and how they run."""

import numpy as np
import pytest
import torch
from torch import nn

from longtail import init_prior_bias_, models
from longtail.models import CifarResNet
from longtail.models.resnet_cifar import BasicBlock

DEPTHS = (20, 32, 44, 56, 110)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def by_hand(depth, classes):
    """Weights of 3x3 convolutions, two numbers a channel of batch norm, and the classifier."""
    n = (depth - 2) // 6
    pairs = [(3, 16)] + [(16, 16)] * 2 * n
    pairs += [(16, 32)] + [(32, 32)] * (2 * n - 1) + [(32, 64)] + [(64, 64)] * (2 * n - 1)
    return sum(9 * a * b + 2 * b for a, b in pairs) + 64 * classes + classes


# sizes


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("classes", [10, 100])
def test_every_parameter_is_accounted_for(depth, classes):
    with torch.device("meta"):
        model = models.build(f"resnet{depth}", in_channels=3, num_classes=classes)
    assert isinstance(model, CifarResNet)
    assert parameters(model) == by_hand(depth, classes)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert layers[-1] is model.head


def test_the_papers_network_has_its_published_size():
    assert parameters(CifarResNet(32, num_classes=10)) == 464_154
    assert parameters(CifarResNet(32, num_classes=100)) == 470_004


def test_the_shortcut_has_no_parameters():
    block = BasicBlock(16, 32)
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {
        "conv1",
        "norm1",
        "conv2",
        "norm2",
    }
    for p in block.parameters():
        nn.init.zeros_(p)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    # of 32 channels, 8 of zeros come first and 8 last; between them each pixel is the mean of four
    assert not out[:, :8].any()
    assert not out[:, 24:].any()
    corners = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
    torch.testing.assert_close(out[:, 8:24], corners / 4)


# the definition, in NumPy's float64 and loops


def conv(x, weight, stride):
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((n, len(weight), -(-height // stride), -(-width // stride)))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = padded[:, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[:, :, i, j] = np.einsum("nchw,kchw->nk", window, weight)
    return out


def norm(x, layer, training):
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    else:
        mean, var = layer.running_mean.numpy(), layer.running_var.numpy()
    scale = layer.weight.detach().numpy() / np.sqrt(var + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + layer.bias.detach().numpy()[:, None, None]


def oracle(block, x, training):
    stride = 1 if block.conv1.in_channels == block.conv1.out_channels else 2
    out = np.maximum(norm(conv(x, block.conv1.weight.detach().numpy(), stride), block.norm1, training), 0)
    out = norm(conv(out, block.conv2.weight.detach().numpy(), 1), block.norm2, training)
    shortcut = x
    if stride == 2:
        shortcut = np.zeros_like(out)
        first = (block.conv1.out_channels - block.conv1.in_channels) // 2
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                square = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                shortcut[:, first : first + x.shape[1], i, j] = square.mean((2, 3))
    return np.maximum(out + shortcut, 0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("before", "after", "size"), [(4, 4, (6, 6)), (4, 8, (6, 6)), (4, 8, (5, 7))])
def test_a_block_is_its_definition(before, after, size, training):
    block = BasicBlock(before, after).double()
    for layer in (block.norm1, block.norm2):
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(layer.running_var, 0.5, 2)
    block.train(training)
    x = torch.randn(3, before, *size, dtype=torch.float64)
    expected = oracle(block, x.numpy(), training)
    torch.testing.assert_close(block(x).detach().numpy(), expected, rtol=1e-11, atol=1e-11)


def test_the_stages_are_those_of_the_paper():
    model = CifarResNet(20, num_classes=7).eval()
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def test_batch_norm_follows_the_official_settings():
    layers = [m for m in CifarResNet(20).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 19
    assert {(m.eps, m.momentum, m.affine, m.track_running_stats) for m in layers} == {(1e-5, 0.1, True, True)}
    layer = layers[0]
    layer(torch.full((4, 16, 2, 2), 3.0))
    # TensorFlow's decay 0.9: nine tenths of the old mean, one tenth of the batch's
    torch.testing.assert_close(layer.running_mean, torch.full((16,), 0.3))


def test_weights_start_as_glorot_uniform_and_the_bias_at_zero():
    model = CifarResNet(20, num_classes=100)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = 9 if isinstance(layer, nn.Conv2d) else 1
            limit = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            assert limit * 0.95 < layer.weight.abs().max() <= limit
            # a uniform variable of half-width a has variance a^2 / 3
            assert layer.weight.var().item() == pytest.approx(limit**2 / 3, rel=0.2)
    assert not model.head.bias.any()
    init_prior_bias_(model.head)
    torch.testing.assert_close(model.head.bias, torch.full((100,), -float(np.log(99))))


def test_a_seed_gives_the_same_network():
    first, second = (torch.random.manual_seed(5) and CifarResNet(20) for _ in range(2))
    assert all(map(torch.equal, first.parameters(), second.parameters()))


# running


def test_every_parameter_gets_a_gradient():
    model = CifarResNet(8, num_classes=5)
    nn.functional.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_changes_nothing_but_rounding(training):
    # in float64, where rounding cannot hide another result
    model = CifarResNet(8).double().train(training)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = model(x)
    layouts = []
    model.to(memory_format=torch.channels_last)
    for block in model.blocks:
        block.register_forward_hook(
            lambda _m, _i, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=1e-9, atol=1e-9)
    assert all(layouts)  # no block fell back to the other layout


def test_bf16_autocast_stays_near_fp32():
    model = CifarResNet(8).to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 16, 16).to(memory_format=torch.channels_last)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    # eight layers of 8-bit mantissas
    assert (logits.float() - expected).norm() < 0.05 * expected.norm()


def test_one_graph_for_the_compiler():
    torch._dynamo.reset()
    model = CifarResNet(8).eval()
    # "eager" traces the whole graph without breaks; the code generator behind it needs a C compiler
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((31,), ValueError, r"depth must be 6n\+2, got 31; give 32"),
        ((2,), ValueError, r"depth .*got 2; give 6n\+2"),
        (("32",), TypeError, "depth must be a number"),
        ((32, 0), ValueError, "in_channels .*got 0"),
        ((32, 3, 0), ValueError, "num_classes .*got 0"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        CifarResNet(*arguments)


def test_a_mistyped_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="'resnet23'; did you mean 'resnet"):
        models.build("resnet23", in_channels=3, num_classes=10)
