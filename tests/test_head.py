"""The classifier's last layer: its prior bias, and the optimizer's parameter groups."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from longtail import init_prior_bias_, parameter_groups

# ---- init_prior_bias_


@pytest.mark.parametrize("classes", [2, 10, 100, 8142])
@pytest.mark.parametrize(
    "make", [lambda c: nn.Linear(3, c), lambda c: nn.Conv1d(3, c, 1), lambda c: nn.Conv2d(3, c, 1)]
)
def test_the_default_prior_is_one_over_the_number_of_classes(classes, make):
    layer = make(classes)
    weight = layer.weight.clone()
    assert init_prior_bias_(layer) is layer
    want = torch.full((classes,), -math.log((1 - 1 / classes) * classes), dtype=torch.float64)
    torch.testing.assert_close(layer.bias.double(), want, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        torch.sigmoid(layer.bias), torch.full((classes,), 1 / classes), rtol=1e-5, atol=0
    )
    assert torch.equal(layer.weight, weight)
    assert layer.bias.requires_grad
    assert layer.bias.grad_fn is None


def test_a_conv_head_starts_at_the_prior():
    with torch.no_grad():
        out = torch.sigmoid(init_prior_bias_(nn.Conv2d(4, 10, 1))(torch.zeros(2, 4, 5, 5)))
    torch.testing.assert_close(out, torch.full((2, 10, 5, 5), 0.1))


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, torch.tensor, lambda p: np.array(p, dtype=np.float32)]
)
def test_a_prior_per_class(kind):
    prior = [0.7, 0.2, 0.1]
    layer = init_prior_bias_(nn.Linear(4, 3), kind(prior))
    torch.testing.assert_close(torch.sigmoid(layer.bias), torch.tensor(prior))


@pytest.mark.parametrize(
    "prior",
    [
        pd.Series([0] + [1] * 6 + [2] * 3).value_counts(normalize=True),  # the largest first
        {2: 0.3, 0: 0.1, 1: 0.6},
        pd.Series([0.1, 0.6, 0.3], index=["cat", "dog", "eel"]),
        np.array([0.3, 0.6, 0.1])[::-1],
        np.array([0.1, 0.6, 0.3], dtype=">f8"),
        pd.Series([0.1, 0.6, 0.3]).to_numpy(),  # read-only
    ],
)
def test_a_prior_by_class_and_arrays_that_torch_does_not_read(prior):
    layer = init_prior_bias_(nn.Linear(4, 3), prior)
    torch.testing.assert_close(torch.sigmoid(layer.bias), torch.tensor([0.1, 0.6, 0.3]))


def test_tiny_and_large_priors_are_exact():
    layer = init_prior_bias_(nn.Linear(4, 3).double(), [1e-300, 1 - 1e-15, 0.5])
    want = [math.log(1e-300), math.log(1 - 1e-15) - math.log1p(-(1 - 1e-15)), 0.0]
    assert layer.bias.tolist() == pytest.approx(want, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_bias_keeps_its_dtype(dtype):
    layer = init_prior_bias_(nn.Linear(4, 10).to(dtype), 0.01)
    assert layer.bias.dtype == dtype
    assert layer.bias[0].item() == pytest.approx(-math.log(99), rel=4e-3)


def test_one_output_needs_a_prior():
    with pytest.raises(
        ValueError, match="prior of a single output cannot be 1 / C = 1; pass the positive class's share"
    ):
        init_prior_bias_(nn.Linear(4, 1))
    assert init_prior_bias_(nn.Linear(4, 1), 0.25).bias.item() == pytest.approx(-math.log(3))


@pytest.mark.parametrize(
    ("layer", "prior", "error", "message"),
    [
        (
            nn.Linear(4, 3, bias=False),
            None,
            TypeError,
            "layer must have a 1-D bias, got Linear without one; pass bias=True",
        ),
        (nn.ReLU(), None, TypeError, "layer must have a 1-D bias, got ReLU without one"),
        (
            nn.Sequential(nn.Linear(4, 3)),
            None,
            TypeError,
            "layer must have a 1-D bias, got Sequential without one",
        ),
        (nn.Linear(4, 3), 0.0, ValueError, r"prior must be in \(0, 1\), got 0\.0; give each class's share"),
        (nn.Linear(4, 3), 1, ValueError, r"prior must be in \(0, 1\), got 1\.0"),
        (nn.Linear(4, 3), math.nan, ValueError, r"prior must be in \(0, 1\), got nan"),
        (nn.Linear(4, 3), [0.1, -0.2, 0.1], ValueError, r"prior must be in \(0, 1\), got -0\.2; give"),
        (
            nn.Linear(4, 3),
            [90, 9, 1],
            ValueError,
            r"prior must be in \(0, 1\), got 90\.0; give each class's share",
        ),
        (
            nn.Linear(4, 3),
            [0.1, 0.1],
            ValueError,
            r"prior must be a number or 3 numbers, one per output, got shape \(2,\)",
        ),
        (
            nn.Linear(4, 3),
            [[0.1] * 3],
            ValueError,
            r"prior must be a number or 3 numbers, .* got shape \(1, 3\)",
        ),
        (nn.Linear(4, 3), "small", TypeError, "prior must be numbers, got str 'small'"),
        (nn.Linear(4, 3), True, TypeError, "prior must be numbers, got bool True"),
        (nn.Linear(4, 3), {"a": 0.1}, ValueError, r"prior must be a number or 3 numbers, .* shape \(1,\)"),
        (nn.Linear(4, 2), {1: 0.1, 2: 0.9}, ValueError, "prior has 2 integer names, but not 0 of"),
    ],
)
def test_bad_priors(layer, prior, error, message):
    before = {name: p.clone() for name, p in layer.named_parameters()}
    with pytest.raises(error, match=message):
        init_prior_bias_(layer, prior)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())


# ---- parameter_groups


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)


def names_in(model, group):
    by_id = {id(p): name for name, p in model.named_parameters()}
    return [by_id[id(p)] for p in group["params"]]


EVERYTHING = [name for name, _ in Net().named_parameters()]


@pytest.mark.parametrize(
    ("no_decay", "exempt"),
    [
        ("head", ["head.bias"]),
        ("none", []),
        ("bias_and_norm", ["conv.bias", "norm.weight", "norm.bias", "hidden.bias", "head.bias"]),
        (["head.bias"], ["head.bias"]),
        (["head.*", "norm.weight"], ["norm.weight", "head.weight", "head.bias"]),
        (["*.bias", "head.bias"], ["conv.bias", "norm.bias", "hidden.bias", "head.bias"]),
        (["*"], EVERYTHING),
        (lambda m: [m.norm, m.head.bias], ["norm.weight", "norm.bias", "head.bias"]),
        (lambda m: m.head, ["head.weight", "head.bias"]),
        (lambda m: m.head.bias, ["head.bias"]),
        (lambda m: (x for x in ["head.bias"]), ["head.bias"]),
        ([], []),
    ],
)
def test_each_parameter_is_in_one_group_once(no_decay, exempt):
    model = Net()
    groups = parameter_groups(
        model, weight_decay=2e-4, no_decay=no_decay(model) if callable(no_decay) else no_decay
    )
    found = {group["weight_decay"]: names_in(model, group) for group in groups}
    assert len(found) == len(groups)
    assert found.get(0.0, []) == exempt
    assert found.get(2e-4, []) == [name for name in EVERYTHING if name not in exempt]
    assert all(group["params"] for group in groups)


def test_the_default_is_the_papers_rule():
    model = Net()
    assert names_in(model, parameter_groups(model, weight_decay=2e-4)[-1]) == ["head.bias"]


def test_a_head_without_bias_exempts_nothing():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    (group,) = parameter_groups(model, weight_decay=1e-4)
    assert len(group["params"]) == 3


def test_shared_parameters_stand_once_and_answer_to_every_name():
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "head": nn.Linear(4, 7)})
    model["head"].weight = model["embed"].weight
    for pattern in ("embed.weight", "head.weight"):
        decayed, exempt = parameter_groups(model, weight_decay=0.1, no_decay=[pattern])
        assert [p is model["embed"].weight for p in exempt["params"]] == [True]
        assert [p is model["head"].bias for p in decayed["params"]] == [True]
    torch.optim.SGD(parameter_groups(model, weight_decay=0.1), lr=0.1)


def test_frozen_parameters_are_left_out():
    model = Net()
    model.conv.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    (group,) = parameter_groups(model, weight_decay=0.1)
    assert names_in(model, group) == [
        "norm.weight",
        "norm.bias",
        "hidden.weight",
        "hidden.bias",
        "head.weight",
    ]


@pytest.mark.parametrize(
    "make", [lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9), lambda g: torch.optim.AdamW(g, lr=0.1)]
)
def test_torch_optimizers_decay_all_but_the_exempt(make):
    model = nn.Linear(3, 2)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = make(parameter_groups(model, weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert model.bias.tolist() == [1, 1]
    torch.testing.assert_close(model.weight, torch.full((2, 3), 0.95))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"weight_decay": -0.1}, ValueError, r"weight_decay must be in \[0, inf\), got -0\.1"),
        ({"weight_decay": math.nan}, ValueError, r"weight_decay must be in \[0, inf\), got nan"),
        ({"weight_decay": math.inf}, ValueError, r"weight_decay must be in \[0, inf\), got inf"),
        ({"weight_decay": "1e-4"}, TypeError, r"weight_decay must be a number in \[0, inf\), got str '1e-4'"),
        (
            {"no_decay": "haed"},
            ValueError,
            "no_decay must be one of 'head', .* got 'haed'; did you mean 'head'",
        ),
        (
            {"no_decay": ["haed.*"]},
            ValueError,
            r"no_decay entry 'haed\.\*' matches no parameter of model; it has 'conv\.weight'",
        ),
        (
            {"no_decay": [nn.Linear(2, 2)]},
            ValueError,
            "no_decay entry Linear matches no parameter of model; it has",
        ),
        ({"no_decay": [nn.ReLU()]}, ValueError, "no_decay entry ReLU matches no parameter of model"),
        (
            {"no_decay": [nn.Parameter(torch.ones(1))]},
            ValueError,
            "no_decay entry Parameter matches no parameter",
        ),
        ({"no_decay": [3]}, TypeError, "no_decay entries must be names, modules or parameters, got int 3"),
        ({"no_decay": 3}, TypeError, "no_decay must be .* got int 3"),
        ({"no_decay": None}, TypeError, "no_decay must be .* got NoneType None"),
    ],
)
def test_bad_groups(kwargs, error, message):
    with pytest.raises(error, match=message):
        parameter_groups(Net(), **{"weight_decay": 0.1, **kwargs})


def test_bad_models():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list \[\]"):
        parameter_groups([], weight_decay=0.1)
    with pytest.raises(
        ValueError, match="no_decay='head' found no Linear or Conv layer in model; name the parameters"
    ):
        parameter_groups(nn.Embedding(3, 3), weight_decay=0.1)
