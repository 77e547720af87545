"""Mixing, reweighting, cut sampling and label-aware smoothing: against their papers' formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from longtail import methods, recipes
from longtail.compare import compare
from longtail.methods import Method, Rule
from longtail.methods.synthesis import smote
from longtail.sampling import ClassAwareSampler
from longtail.training import train
from longtail.training.data import TrainingData
from longtail.training.loop import PausedError

CPU = torch.device("cpu")


def short(**changes):
    return recipes.digits(epochs=4, warmup_epochs=0, **changes)


def data_of(method, **changes):
    return TrainingData(short(method=method, **changes), None, CPU)


def test_mixup_mixes_inputs_and_targets_alike():
    mixed, plain = data_of(methods.get("mixup", alpha=0.4)), data_of(methods.get("plain"))
    share, *both = mixed.draw(2)
    half = len(both) // 2
    one, two = both[:half], both[half:]
    inputs, targets = mixed.gather([share, *both])
    (x, y), (x2, y2) = plain.gather(one), plain.gather(two)
    keep = share.double()[:, None, None, None]
    torch.testing.assert_close(
        inputs.double(), keep * x.double() + (1 - keep) * x2.double(), atol=1e-5, rtol=0
    )
    hot = torch.eye(10, dtype=torch.float64)
    expected = share.double()[:, None] * hot[y] + (1 - share.double()[:, None]) * hot[y2]
    torch.testing.assert_close(targets.double(), expected, atol=1e-6, rtol=0)
    assert sorted(two[0].tolist()) == sorted(one[0].tolist())  # the same samples, in another order
    assert not torch.equal(one[0], two[0])
    assert (y != y2).any()
    # the epoch's own order is that of a plain training
    assert torch.equal(one[0], plain.draw(2)[0])
    assert not torch.equal(mixed.draw(3)[0], share)


def test_mixups_shares_are_beta(rng):
    from scipy import stats

    shares = methods.MIXINGS["mixup"](np.random.default_rng(1), 4000, alpha=0.3)
    assert stats.kstest(shares, stats.beta(0.3, 0.3).cdf).pvalue > 0.01


@pytest.mark.parametrize("name", ["mixup", "learning_to_reweight", "undersampling"])
def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path, name):
    recipe = short(method=methods.get(name))
    whole = train(recipe, device="cpu", threads=1)
    for _ in range(recipe.epochs - 1):
        with pytest.raises(PausedError):
            train(recipe, tmp_path, device="cpu", threads=1, deadline=0)
    run = train(recipe, tmp_path, device="cpu", threads=1)
    assert run.history == whole.history
    assert run.evaluation == whole.evaluation


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh())
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.body(x))


def test_reweighting_is_the_step_on_the_weights(rng):
    """Equation 12 as it is written: a virtual step with weights of zero, and its slope on the part's loss."""
    torch.manual_seed(3)
    model = Net().double().train()
    x, part = torch.randn(12, 5).double(), torch.randn(6, 5).double()
    y, of_part = torch.randint(0, 3, (12,)), torch.arange(6) % 3
    each = nn.CrossEntropyLoss(reduction="none")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ours = methods.REWEIGHTINGS["learning_to_reweight"](model, each, (x, y), (part, of_part))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    from torch.func import functional_call

    eps = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    values = dict(model.named_parameters())
    loss = (eps * each(functional_call(model, values, (x,)), y)).sum()
    slopes = torch.autograd.grad(loss, list(values.values()), create_graph=True)
    moved = {name: p - 0.1 * slope for (name, p), slope in zip(values.items(), slopes, strict=True)}
    (slope,) = torch.autograd.grad(each(functional_call(model, moved, (part,)), of_part).mean(), eps)
    gains = (-slope).clamp(min=0)
    assert 0 < (gains > 0).sum() < 12
    torch.testing.assert_close(ours, gains / gains.sum(), atol=1e-12, rtol=1e-9)


def test_samples_that_help_nothing_weigh_nothing():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    each = nn.CrossEntropyLoss(reduction="none")
    x = torch.tensor([[1.0, 0.0]])
    against = methods.REWEIGHTINGS["learning_to_reweight"](
        model, each, (x, torch.tensor([0])), (x, torch.tensor([1]))
    )
    assert against.tolist() == [0.0]


def test_the_balanced_part_is_a_part_of_the_training_set():
    """A part taken from elsewhere, such as the test set, would be a leak."""
    data = data_of(methods.get("learning_to_reweight", per_class=3))
    inputs, targets = data.balanced_part(3)
    smallest = min(3, data.counts.min())
    assert np.bincount(targets.numpy()).tolist() == [smallest] * 10
    train_rows = {row.numpy().tobytes() for row in torch.cat(list(data.plain_batches()))}
    test_rows = {row.numpy().tobytes() for row in torch.cat(list(data.test_batches()))}
    part = [row.numpy().tobytes() for row in inputs]
    assert set(part) <= train_rows
    assert not set(part) & test_rows
    assert len(set(part)) == len(part)
    again = data_of(methods.get("learning_to_reweight", per_class=3), seed=1, subset_seed=0).balanced_part(3)
    assert not torch.equal(again[0], inputs)


def test_undersampling_draws_a_fixed_part():
    labels = [0] * 50 + [1] * 20 + [4] * 5
    sampler = ClassAwareSampler(labels, "undersampling", seed=7)
    seen = [set(sampler.order(epoch).tolist()) for epoch in range(4)]
    assert all(one == seen[0] for one in seen)
    assert [sum(labels[i] == c for i in seen[0]) for c in (0, 1, 4)] == [5, 5, 5]
    assert len(sampler.order(0)) == 75
    assert set(ClassAwareSampler(labels, "undersampling", seed=8).order(0).tolist()) != seen[0]
    by_method = methods.get("undersampling").sampler(labels, seed=7)
    assert (by_method.order(2) == sampler.order(2)).all()
    drawn = ClassAwareSampler(labels, "undersampling", seed=7, replacement=True).order(0)
    assert set(drawn.tolist()) <= seen[0]
    cut = ClassAwareSampler(labels, "none", cut=10, num_samples=25, seed=1)
    picked = np.bincount(np.asarray(labels)[cut.order(0)], minlength=5)
    assert picked.sum() == 25
    for bad in (0, -1, 2.5):
        with pytest.raises((TypeError, ValueError), match="cut must be"):
            ClassAwareSampler(labels, "none", cut=bad)


def test_oversampling_is_class_aware_in_an_epoch_of_the_same_length():
    labels = [0] * 50 + [1] * 20 + [2] * 5
    over, aware = (methods.get(name).sampler(labels, seed=3) for name in ("oversampling", "class_aware"))
    assert (over.order(1) == aware.order(1)).all()
    whole = methods.get("oversampling").sampler(labels, num_samples=150, seed=3).order(0)
    assert np.bincount(np.asarray(labels)[whole]).tolist() == [50, 50, 50]


def test_label_aware_smoothing_is_the_published_formula(rng, monkeypatch):
    """Equations 5 and 6 of Zhong et al. in float64 NumPy: the gradient of the first step says it all."""
    counts, features = [9, 4, 2], torch.tensor(rng.normal(size=(15, 4)), dtype=torch.float64)
    targets = torch.tensor(np.repeat([0, 1, 2], counts))
    refit = methods.REFITS["label_aware_retraining"]
    steps = {
        "epochs": 1,
        "batch_size": 15,
        "learning_rate": 1.0,
        "head_smoothing": 0.4,
        "tail_smoothing": 0.1,
    }
    start = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    weight, bias = refit(features, targets, *start, seed=5, **steps)
    # the first step from zero, with all probabilities 1/3
    order = ClassAwareSampler(targets.numpy(), "inverse", seed=5).order(0)
    eps = 0.1 + 0.3 * np.sin(0.5 * np.pi * (np.array(counts) - 2) / 7)
    drawn = targets.numpy()[order]
    wanted = np.repeat(eps[drawn][:, None] / 2, 3, axis=1)
    wanted[np.arange(15), drawn] = 1 - eps[drawn]
    scale = features.std().item()
    slope = (1 / 3 - wanted).T @ (features.numpy()[order] / scale) / 15
    np.testing.assert_allclose(weight.numpy(), -slope / scale, atol=1e-12)
    np.testing.assert_allclose(bias.numpy(), -(1 / 3 - wanted).mean(0), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.get("mixup", alpha=0), "alpha must be .* got 0"),
        (lambda: methods.get("learning_to_reweight", per_class=0), "per_class must be .* got 0"),
        (lambda: methods.get("label_aware_smoothing", head_smoothing=1.0), "head_smoothing must be"),
        (lambda: methods.get("undersampling").replace(schedule=Rule("deferred")), "cannot begin later"),
        (
            lambda: methods.get("learning_to_reweight").replace(mixing=Rule("mixup")),
            "given beside mixing, but takes no mixed targets",
        ),
        (
            lambda: Method(reweighting=Rule("learning_to_reweight"), adjustment=Rule("logit")),
            "given beside adjustment, but leaves no prior that is known",
        ),
        (lambda: Method(mixing=Rule("cutmix")), "mixing must be one of 'mixup', got 'cutmix'"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_mislas_shares_the_run_of_mixup():
    assert methods.get("mislas").training == methods.get("mixup")
    assert methods.get("label_aware_smoothing").training == methods.get("plain")


# ---- samples that are made up


def to_segment(point, a, b):
    along = (point - a) @ (b - a) / max((b - a) @ (b - a), 1e-12)
    return np.linalg.norm(point - a - min(max(along, 0), 1) * (b - a))


def test_smote_puts_samples_between_neighbours_of_their_class(rng):
    pytest.importorskip("imblearn")
    # the second column is a thousand times as wide: without scaling it alone would choose the neighbours
    y = np.repeat([0, 1, 2, 3], [40, 12, 3, 1])
    x = rng.normal(size=(56, 2)) * [1.0, 1000.0]
    more, labels = smote(x, y, seed=3)
    assert np.array_equal(more[:56], x)
    assert np.array_equal(labels[:56], y)
    assert np.bincount(labels).tolist() == [40] * 4
    spread = x.std(0)
    for c, near in ((1, 5), (2, 2), (3, 0)):
        own, new = x[y == c] / spread, more[56:][labels[56:] == c] / spread
        apart = np.linalg.norm(own[:, None] - own[None], axis=2)
        neighbours = np.argsort(apart, axis=1)[:, 1 : near + 1]
        pairs = [(own[i], own[j]) for i in range(len(own)) for j in (neighbours[i] if near else [i])]
        for point in new:
            assert min(to_segment(point, a, b) for a, b in pairs) < 1e-9
    again = smote(x, y, seed=3)[0]
    assert np.array_equal(more, again)
    assert not np.array_equal(more, smote(x, y, seed=4)[0])


def test_smote_knows_categories_and_missing_values(rng):
    pytest.importorskip("imblearn")
    y = np.repeat([0, 1], [30, 8])
    x = np.column_stack([rng.normal(size=38), rng.integers(0, 3, 38), rng.normal(size=38)])
    x[[2, 31], 0], x[[3, 33], 1] = np.nan, np.nan
    for kinds, columns in ((["number", "category", "number"], [0, 1, 2]), (["category"], [1])):
        more, labels = smote(x[:, columns], y, kinds, seed=0)
        new = more[38:]
        assert np.array_equal(more[:38], x[:, columns], equal_nan=True)
        assert np.bincount(labels).tolist() == [30, 30]
        codes = new[:, kinds.index("category")]
        assert set(codes[~np.isnan(codes)]) <= set(x[30:, 1])
        numbers = [i for i, kind in enumerate(kinds) if kind == "number"]
        assert np.isfinite(new[:, numbers]).all()


def test_smote_is_for_tables_and_features_and_alone():
    method = methods.get("smote")
    assert dict(method.synthesis.settings) == {"k_neighbors": 5}
    assert methods.get("smote:k_neighbors=2").prior([9, 3, 1]) == pytest.approx([1 / 3] * 3)
    with pytest.raises(ValueError, match=r"'smote' makes all classes .* beside weight 'inverse'"):
        method.replace(weight=Rule("inverse"))
    with pytest.raises(ValueError, match="k_neighbors must be"):
        methods.get("smote:k_neighbors=0")
    with pytest.raises(ValueError, match=r"'smote' makes new .*'digits'; compare it on those .*class_aware"):
        train(recipes.digits(method=method))
    with pytest.raises(ValueError, match=r"'smote' makes new samples .*'digits'"):
        compare(recipes.digits(), ["smote"])
