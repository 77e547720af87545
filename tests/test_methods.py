"""Methods as data: their rules, their text, what a recipe makes of them, and what the loop does with them."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import longtail
from longtail import ClassBalancedLoss, class_weights, methods, recipes, vectors
from longtail.adjust import ADJUSTMENTS
from longtail.methods import Method, Rule
from longtail.models.cosine import CosineLinear
from longtail.training import PausedError, Recipe, evaluate_run, load_run, train
from longtail.training.data import TrainingData
from longtail.vectors import MARGINS, OFFSETS, SCALES, WEIGHTS

COUNTS = [90, 30, 4]
CPU = torch.device("cpu")


@pytest.fixture
def register():
    """Registers things for one test."""
    taken = []

    def put(functions, name, function):
        functions.register(name, function)
        taken.append((functions, name))

    yield put
    for functions, name in taken:
        functions.unregister(name)


def short(**changes):
    return recipes.digits(**{"epochs": 4, "warmup_epochs": 1, "eval_every": 1, **changes})


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(run):
    return [metrics.loss for metrics in run.history]


# ---- the catalogue


def test_ldam_is_the_published_loss(rng):
    """s (cos - m_y) inside the cross-entropy, m ~ n^(-1/4) with the largest 0.5 (the authors' code)."""
    features, weight = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    target = np.array([0, 1, 2, 2, 1, 0])
    cosine = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ (
        weight / np.linalg.norm(weight, axis=1, keepdims=True)
    ).T
    margin = np.array(COUNTS, dtype=float) ** -0.25
    margin *= 0.5 / margin.max()
    z = 30 * (cosine - margin * np.eye(3)[target])
    wanted = -(z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(6), target].mean()
    head = CosineLinear(4, 3, 30.0).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
    logits = head(torch.tensor(features))
    loss = methods.get("ldam").criterion(COUNTS)(logits, torch.tensor(target))
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_a_cosine_head_trains_and_is_read_back(tmp_path):
    recipe = short(method=methods.get("ldam_drw"))
    run = train(recipe, tmp_path, device="cpu", threads=1)
    assert isinstance(run.model.head, CosineLinear)
    assert run.model.head.bias is None
    assert evaluate_run(tmp_path, device="cpu") == run.evaluation
    assert recipe.method.plain == Method()
    for other in ({"loss": "focal"}, {"refit": Rule("nearest_class_mean")}):
        with pytest.raises(ValueError, match=r"cosine=30 is given beside .*, which needs a bias"):
            Method(cosine=30.0, **other)


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_method_is_data(name):
    method = methods.get(name)
    text = json.dumps(method.to_dict())
    again = Method.from_dict(json.loads(text))
    assert (again, again.name, again.source) == (method, name, method.source)
    assert method.source
    assert method.plain == Method(loss="sigmoid" if method.many_labels else "softmax")
    assert hash(again) == hash(method)
    assert recipes.digits(method=method, many_labels=method.many_labels).method == method


def test_the_catalogue_holds_what_there_is():
    assert methods.NAMES[:4] == ("plain", "inverse", "inverse_sqrt", "effective")
    assert {"logit_adjusted", "posthoc_logit_adjusted", "deferred_effective", "class_aware"} < set(
        methods.NAMES
    )
    assert longtail.methods is methods


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "focal", "softmax_focal"])
@pytest.mark.parametrize("scheme", ["none", "inverse", "inverse_sqrt", "effective"])
def test_a_methods_loss_is_the_class_balanced_loss(loss, scheme):
    (method,) = methods.grid([loss], [scheme], beta=0.9, gamma=0.5)
    ours = method.criterion(COUNTS, ignore_index=1)
    theirs = ClassBalancedLoss(COUNTS, loss=loss, scheme=scheme, beta=0.9, gamma=0.5, ignore_index=1)
    logits, target = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    assert torch.equal(ours(logits, target), theirs(logits, target))
    assert method.activation == ("sigmoid" if loss in ("sigmoid", "focal") else "softmax")
    assert method.slug == f"{loss}-{scheme}"
    assert method.plain.slug == f"{loss}-none"


@given(
    loss=st.sampled_from(["softmax", "focal"]),
    scheme=st.sampled_from(["none", "inverse", "effective"]),
    smoothing=st.sampled_from([0.0, 0.1]),
    sampling=st.sampled_from([None, Rule("inverse"), Rule("effective", beta=0.5)]),
    start=st.sampled_from([None, 0.0, 0.5, 1]),
    bias=st.sampled_from(["auto", True, False]),
)
def test_methods_are_equal_if_they_do_the_same(loss, scheme, smoothing, sampling, start, bias):
    schedule = None if start is None else Rule("deferred", start=start)
    parts = {"loss": loss, "weight": Rule(scheme), "label_smoothing": smoothing, "sampling": sampling}
    method = Method("one", schedule=schedule, prior_bias=bias, **parts)
    again = Method.from_dict(json.loads(json.dumps(method.to_dict())))
    assert again == method
    assert again.short_hash == method.short_hash
    assert method.replace(name="another", source="elsewhere") == method
    assert method.replace(gamma=3.0) == method or loss == "focal"
    assert method.replace(normalizer="weights") != method
    assert method.replace(weight=Rule("inverse_sqrt")) != method
    recipe = recipes.digits(method=method)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).hash == recipe.hash


def test_a_rules_defaults_are_written_out():
    assert methods.get("effective").weight == Rule("effective", beta=0.999)
    assert methods.get("effective", beta=1).to_dict()["weight"] == {"rule": "effective", "beta": 1.0}


def test_settings_reach_fields_and_rules_and_the_name():
    method = methods.get("effective", beta=0.9, loss="focal")
    assert (method.weight, method.loss) == (Rule("effective", beta=0.9), "focal")
    assert method.name == "effective:beta=0.9:loss=focal"
    assert re.fullmatch(r"[\w.=-]+", method.slug.replace("_", ""))
    assert method.settings == {"loss": "focal", "gamma": 2.0, "weight": "effective", "weight.beta": 0.9}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.get("efective"), r"method must be one of 'plain'.* did you mean 'effective'\?"),
        (
            lambda: methods.get("effective", bta=1),
            r"a setting of method 'effective' .* did you mean 'beta'\?",
        ),
        (lambda: methods.get("plain", beta=0.9), "a setting of method 'plain' must be one of 'loss'"),
        (lambda: methods.get("effective", beta=2), r"beta must be in \[0, 1\], got 2"),
        (lambda: Method(loss="sofmax"), "loss must be one of .* did you mean 'softmax'"),
        (lambda: Method(gamma=-1), r"gamma must be in \[0, inf\), got -1"),
        (lambda: Method(weight=Rule("effective", n=3)), "'effective' has no setting 'n'; it takes beta"),
        (lambda: Method(weight=Rule("inverse", beta=0.9)), "'inverse' has no setting 'beta'; it takes none"),
        (lambda: Method(weight=Rule("square")), "weight must be one of 'none', 'inverse'"),
        (lambda: Method(schedule=Rule("deferred", start=2)), r"start must be in \[0, 1\], got 2"),
        (lambda: Method(prior_bias="yes"), "prior_bias must be 'auto', True or False, got 'yes'"),
        (lambda: Method.from_dict({"wieght": "inverse"}), "did you mean 'weight'"),
        (lambda: Method.from_dict({"weight": {"name": "inverse"}}), "object with the key 'rule'"),
        (lambda: Method.from_dict([]), "must be an object of fields, got list"),
        (lambda: Method().at(0, 4), r"epoch must be in \[1, 4\], got 0"),
        (lambda: Method().at(5, 4), r"epoch must be in \[1, 4\], got 5"),
    ],
)
def test_bad_methods_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Method(weight="inverse"),
            r"weight must be a Rule, got str 'inverse'; write Rule\('inverse'\)",
        ),
        (lambda: Method(weight=None), "weight must be a Rule, got NoneType"),
        (lambda: Method("two\nlines"), "name must be one line of text"),
        (lambda: Rule("effective", beta=[0.9]), "beta of rule 'effective' must be a number, text or bool"),
        (
            lambda: recipes.digits(method="effective"),
            "method must be a Method, got str 'effective'; longtail.me",
        ),
    ],
)
def test_parts_of_the_wrong_type_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("values", "message"),
    [([1.0, 2.0], "one finite number a class"), ([1.0, np.nan, 2.0], "one finite number a class")],
)
def test_a_rule_that_gives_no_vector_is_refused(register, values, message):
    register(OFFSETS, "broken", lambda counts, weight: values)
    with pytest.raises(ValueError, match=f"offset 'broken' must give {message}"):
        Method(offset=Rule("broken"))


# ---- recipes of before


@pytest.mark.parametrize(  # of results/compare-digits/compare.csv
    ("loss", "scheme", "seed", "short_hash"),
    [("softmax", "none", 0, "8010dd3565f6"), ("focal", "effective", 4, "7d123bd29ef6")],
)
def test_hashes_are_what_they_were(loss, scheme, seed, short_hash):
    flat = recipes.digits(loss=loss, scheme=scheme, seed=seed)
    (method,) = methods.grid([loss], [scheme], beta=0.99)
    assert flat.short_hash == short_hash
    assert recipes.digits(seed=seed).replace(method=method) == flat
    assert recipes.digits(seed=seed, method=method).short_hash == short_hash
    assert "method" not in json.loads(flat.to_json())


class Grown(Recipe):
    """A recipe of a version to come."""

    patience: int = 0


def test_a_new_field_at_its_default_changes_no_hash_and_no_file():
    old, new = recipes.digits(), Grown(**recipes.digits().to_dict())
    assert (new.hash, new.to_json()) == (old.hash, old.to_json())
    more = new.replace(patience=3)
    assert more.hash != old.hash
    assert json.loads(more.to_json())["patience"] == 3


def test_fields_of_the_first_version_and_a_method_do_not_contradict():
    method = methods.get("effective", beta=0.9)
    assert recipes.digits(method=method, beta=0.9).beta == 0.9
    with pytest.raises(ValueError, match=r"recipe field 'beta': method has 0.9, but 0.5 is given beside it"):
        recipes.digits(method=method, beta=0.5)
    with pytest.raises(ValueError, match=r"recipe field 'loss': method has 'softmax', but 'focal' is given"):
        recipes.digits(method=method, loss="focal")


def test_a_field_of_the_first_version_changes_one_part_of_a_method():
    recipe = recipes.digits(method=methods.get("class_aware"))
    changed = recipe.replace(loss="focal", scheme="effective", beta=0.9)
    assert changed.method == Method(
        loss="focal", weight=Rule("effective", beta=0.9), sampling=Rule("inverse")
    )
    assert (changed.loss, changed.scheme, changed.beta) == ("focal", "effective", 0.9)
    assert changed.replace(epochs=50).method == changed.method
    assert changed.replace(method=Method()).method == Method()


def test_sampling_of_image_recipes_is_the_methods():
    recipe = recipes.images("photos", sampling="inverse")
    assert recipe.method.sampling == Rule("inverse")
    assert (
        recipes.images("photos", method=methods.get("class_aware"), scheme="none").hash
        == recipe.replace(scheme="none").hash
    )
    assert json.loads(recipe.to_json())["sampling"] == "inverse"


# ---- vectors in the loss


def shifted(register):
    register(OFFSETS, "log_share", lambda counts, weight: np.log(counts / counts.sum()))
    register(SCALES, "by_rank", lambda counts: 1 / (1 + np.arange(len(counts))))
    register(MARGINS, "quarter", lambda counts, *, top=0.5: top * (counts.min() / counts) ** 0.25)
    return Method(
        weight=Rule("inverse"), offset=Rule("log_share"), scale=Rule("by_rank"), margin=Rule("quarter")
    )


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 5)])
def test_offset_scale_and_margin_against_numpy(register, rng, shape):
    method = shifted(register)
    logits, target = rng.normal(size=shape), rng.integers(0, 3, size=(shape[0], *shape[2:]))
    target.flat[0] = -100
    counts = np.array(COUNTS, dtype=float)
    rows = np.moveaxis(logits, 1, -1).reshape(-1, 3)
    classes = target.reshape(-1)
    z = rows / (1 + np.arange(3)) + np.log(counts / counts.sum())
    one_hot = np.eye(3)[np.where(classes < 0, 0, classes)]
    z = z - one_hot * 0.5 * (4 / counts) ** 0.25
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    each = -(one_hot * log_p).sum(1) * np.asarray(class_weights(COUNTS, "inverse"))[one_hot.argmax(1)]
    wanted = each[classes >= 0].sum() / (classes >= 0).sum()
    criterion = method.criterion(COUNTS)
    assert isinstance(criterion, ClassBalancedLoss)
    input, labels = torch.tensor(logits), torch.tensor(target)
    assert criterion(input, labels).item() == pytest.approx(wanted, rel=1e-6)
    assert criterion(input.float(), labels).item() == pytest.approx(wanted, rel=1e-5)
    bare = ClassBalancedLoss(COUNTS, scheme="inverse")
    assert torch.equal(criterion.eval()(input, labels), bare(input, labels))
    assert criterion.count(labels) == bare.count(labels)


def test_a_margin_of_one_hot_targets_is_that_of_indices(register):
    method = shifted(register)
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    criterion = method.criterion(COUNTS)
    one_hot = nn.functional.one_hot(target, 3).float()
    torch.testing.assert_close(criterion(logits, one_hot), criterion(logits, target))


@pytest.mark.parametrize(
    "rule", [vectors.ldam, vectors.class_dependent_temperature, lambda n: vectors.log_weighted_prior(n, None)]
)
def test_vectors_are_made_of_counts_of_any_kind_or_refused(rule):
    wanted = rule([90, 10, 0])
    for counts in (Counter({1: 10, 0: 90, 2: 0}), {"c": 90, "b": 10, "a": 0}, torch.tensor([90, 10, 0])):
        np.testing.assert_array_equal(rule(counts), wanted)
    assert wanted[1] == wanted[2]
    for bad in ([90, np.nan], [90, -1], [0, 0], [[90, 10]], []):
        with pytest.raises(ValueError, match=r"^counts must"):
            rule(bad)
    with pytest.raises(TypeError, match=r"^counts must be numbers"):
        rule("ab")


def test_a_weight_rule_from_elsewhere(register):
    register(WEIGHTS, "square_root_of_rank", lambda counts: np.sqrt(1.0 + np.arange(len(counts))))
    criterion = Method(weight=Rule("square_root_of_rank")).criterion(COUNTS)
    torch.testing.assert_close(criterion.weight, torch.tensor([1.0, 2.0, 3.0]).sqrt())
    recipe = short(method=Method(weight=Rule("square_root_of_rank")))
    assert Recipe.from_json(recipe.to_json()).hash == recipe.hash != short(scheme="none").hash


# ---- the loop


def test_a_deferred_weight_acts_from_its_start(tmp_path):
    late = Method(weight=Rule("inverse"), schedule=Rule("deferred", start=0.5))
    run = train(short(method=late), tmp_path / "late", device="cpu", threads=1)
    plain = train(short(method=late.plain), device="cpu", threads=1)
    always = train(short(scheme="inverse"), device="cpu", threads=1)
    assert losses(run)[:2] == losses(plain)[:2]
    assert losses(run)[2] != losses(plain)[2]
    assert losses(run)[0] != losses(always)[0]
    assert load_run(tmp_path / "late").recipe.method == late
    assert evaluate_run(tmp_path / "late", device="cpu") == run.evaluation


@pytest.mark.parametrize("kind", ["weight", "sampling"])
def test_a_run_stopped_at_every_epoch_ends_with_the_same_bits(tmp_path, kind):
    rule = {kind: Rule("inverse")}
    recipe = short(method=Method(schedule=Rule("deferred", start=0.5), **rule))
    whole = train(recipe, device="cpu", threads=1)
    stops = 0
    while True:
        try:
            run = train(recipe, tmp_path, device="cpu", threads=1, deadline=0)
            break
        except PausedError:
            stops += 1
    assert stops == recipe.epochs - 1
    assert same(run.model, whole.model)
    assert run.history == whole.history


def test_the_loop_draws_classes_as_the_method_says():
    data = TrainingData(short(method=methods.get("class_aware")), None, CPU)
    order = data.draw(1)[0]
    drawn = np.bincount(data.targets[order].numpy(), minlength=10)
    assert drawn.max() - drawn.min() <= 1
    assert len(order) == len(data)
    assert not torch.equal(order, data.draw(2)[0])
    late = methods.get("class_aware").replace(schedule=Rule("deferred", start=0.5))
    data = TrainingData(short(method=late), None, CPU)
    for epoch, balanced in ((1, False), (2, False), (3, True), (4, True)):
        drawn = np.bincount(data.targets[data.draw(epoch)[0]].numpy(), minlength=10)
        assert (drawn.max() - drawn.min() <= 1) == balanced
        assert (drawn == data.counts).all() != balanced


def test_graphs_are_refused_with_a_schedule(monkeypatch):
    recipe = short(method=Method(weight=Rule("inverse"), schedule=Rule("deferred")))
    with pytest.raises(ValueError, match="acceleration='graphs' needs CUDA"):
        train(recipe, device="cpu", acceleration="graphs")


def test_an_adjustment_decides_after_training(register, tmp_path):
    register(
        ADJUSTMENTS,
        "only",
        lambda logits, counts, prior, *, favourite=0: (
            logits + 1e6 * (np.arange(logits.shape[1]) == favourite)
        ),
    )
    recipe = short(method=Method("always 3", adjustment=Rule("only", favourite=3)))
    run = train(recipe, tmp_path, device="cpu", threads=1)
    plain = train(short(scheme="none"), device="cpu", threads=1)
    assert same(run.model, plain.model)  # nothing of it touches the training
    assert run.evaluation.per_class_error == tuple(float(c != 3) for c in range(10))
    assert evaluate_run(tmp_path, device="cpu") == run.evaluation


def test_an_adjustment_keeps_the_shape(register):
    register(ADJUSTMENTS, "first", lambda logits, counts, prior: logits[:, :1])
    with pytest.raises(
        ValueError, match=r"adjustment 'first' made shape \(4, 1\) of logits of shape \(4, 3\)"
    ):
        Method(adjustment=Rule("first")).adjust(np.zeros((4, 3)), COUNTS)


# ---- second stages


def clusters(rng, counts=(200, 40, 10), dims=6):
    targets = torch.tensor(np.repeat(np.arange(len(counts)), counts))
    centres = torch.tensor(rng.normal(size=(len(counts), dims)), dtype=torch.float32)
    return centres[targets] + 0.3 * torch.tensor(
        rng.normal(size=(len(targets), dims)), dtype=torch.float32
    ), targets


def test_nearest_class_mean_is_the_nearest_mean(rng):
    features, targets = clusters(rng)
    weight, bias = methods.REFITS["nearest_class_mean"](features, targets, torch.zeros(4, 6), torch.zeros(4))
    decided = (features @ weight.T + bias).argmax(1).numpy()
    means = np.stack([features[targets == c].numpy().mean(0) for c in range(3)])
    nearest = ((features.numpy()[:, None] - means) ** 2).sum(2).argmin(1)
    assert np.array_equal(decided, nearest)  # and never the empty class 3


def test_tau_normalisation_sets_the_lengths(rng):
    weight, bias = torch.tensor(rng.normal(size=(3, 5))), torch.ones(3)
    normalise = methods.REFITS["tau_normalisation"]
    for tau in (0.0, 0.5, 1.0):
        new, offset = normalise(None, None, weight, bias, tau=tau)
        torch.testing.assert_close(new.norm(dim=1), weight.norm(dim=1) ** (1 - tau))
        torch.testing.assert_close(
            new / new.norm(dim=1, keepdim=True), weight / weight.norm(dim=1, keepdim=True)
        )
        assert not offset.any()
    new, _ = normalise(None, None, torch.stack([weight[0], 0 * weight[1]]), torch.ones(2))
    assert new[0].norm() == pytest.approx(1)
    assert not new[1].any()  # no NaN of a class whose vector is zero


def test_classifier_retraining_ends_near_the_balanced_optimum(rng):
    features, targets = clusters(rng)
    from sklearn.linear_model import LogisticRegression

    retrain = methods.REFITS["classifier_retraining"]
    weight, bias = retrain(features, targets, torch.zeros(3, 6), torch.zeros(3), seed=1, epochs=30)
    again = retrain(features, targets, torch.zeros(3, 6), torch.zeros(3), seed=1, epochs=30)
    other = retrain(features, targets, torch.zeros(3, 6), torch.zeros(3), seed=2, epochs=30)
    assert torch.equal(weight, again[0])
    assert not torch.equal(weight, other[0])
    new = torch.tensor(rng.normal(size=(2000, 6)), dtype=torch.float32)
    ours = (new @ weight.T + bias).argmax(1).numpy()
    balanced, plain = (
        (ours == LogisticRegression(class_weight=w, max_iter=1000).fit(features, targets).predict(new)).mean()
        for w in ("balanced", None)
    )
    assert balanced > max(0.9, plain + 0.05)


def test_settings_behind_colons():
    assert methods.get("effective:beta=0.9:loss=focal") == methods.get("effective", beta=0.9, loss="focal")
    assert dict(methods.get("crt:epochs=5").refit.settings)["epochs"] == 5
    with pytest.raises(ValueError, match="a setting is written name=value, got 'beta'"):
        methods.get("effective:beta")
    with pytest.raises(TypeError, match="method must be a name, got 3"):
        methods.get(3)


def test_methods_that_share_a_training():
    plain = methods.get("plain")
    for name in ("posthoc_logit_adjusted", "crt", "tau_norm", "ncm"):
        assert methods.get(name).training == plain
        assert methods.get(name) != plain
    assert methods.get("effective").training == methods.get("effective")


def test_every_row_tells_what_a_reader_wants_to_know():
    assert set(methods.ABOUT) == set(methods.NAMES)
    for about in methods.ABOUT.values():
        assert about.formula
        assert about.pitfall


@pytest.mark.parametrize("name", methods.NAMES)
def test_what_a_method_needs_is_what_it_is_refused_without(name):
    from longtail.compare.learners import missing_part

    method, told = methods.get(name), methods.needs(methods.get(name))
    without_network = ("nothing", "a training that takes", "a model that is trained", "a table or features")
    assert told.startswith(without_network) == (not missing_part(method))
    in_memory = method.mixing is not None or method.reweighting is not None
    assert ("in memory" in told) == in_memory
    assert ("last layer is linear" in told) == (method.refit is not None)
    assert (told == "many labels a sample") == method.many_labels


@pytest.mark.parametrize("name", ["crt", "label_aware_smoothing", "tau_norm", "ncm"])
def test_a_second_stage_changes_the_last_layer_alone(tmp_path, name):
    recipe = short(method=methods.get(name))
    run = train(recipe, tmp_path / "run", device="cpu", threads=1)
    plain = train(short(scheme="none"), tmp_path / "plain", device="cpu", threads=1)
    ours, theirs = run.model.state_dict(), plain.model.state_dict()
    assert {key for key in ours if not torch.equal(ours[key], theirs[key])} == {"head.weight", "head.bias"}
    assert losses(run) == losses(plain)
    assert evaluate_run(tmp_path / "run", device="cpu") == run.evaluation
    shared = train(recipe, tmp_path / "shared", device="cpu", threads=1, trained=tmp_path / "plain")
    assert same(shared.model, run.model)
    assert shared.evaluation == run.evaluation
    assert shared.history == run.history


def test_features_are_those_of_the_samples_as_they_are(register, tmp_path):
    seen = {}

    def look(features, targets, weight, bias, *, seed=0):
        seen.update(features=features, targets=targets)
        return weight, bias

    register(methods.REFITS, "look", look)
    run = train(short(method=Method(refit=Rule("look"))), device="cpu", threads=1)
    data = TrainingData(short(augmentation="none"), None, CPU)
    inputs = data.gather([torch.arange(len(data))])[0]
    kept = []
    run.model.head.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        run.model(inputs)
    torch.testing.assert_close(seen["features"], kept[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(seen["targets"], data.targets)


def test_only_what_was_trained_so_is_taken(tmp_path):
    train(short(scheme="none"), tmp_path / "plain", device="cpu", threads=1)
    for other in (short(method=methods.get("crt"), seed=1), short(method=methods.get("crt:loss=focal"))):
        with pytest.raises(ValueError, match=r"holds recipe .*, which is not what this one trains"):
            train(other, device="cpu", trained=tmp_path / "plain")
    with pytest.raises(ValueError, match="is for methods that decide or refit after training, and"):
        train(short(scheme="none"), device="cpu", trained=tmp_path / "plain")


def test_the_same_adjustment_in_a_prediction(tmp_path):
    from longtail.predict import Classifier

    train(short(method=methods.get("posthoc_logit_adjusted")), tmp_path / "a", device="cpu", threads=1)
    train(short(scheme="none"), tmp_path / "b", device="cpu", threads=1)
    sample = longtail.datasets.digits().test.inputs[0]
    ours, plain = (Classifier(tmp_path / run)(sample).probabilities for run in "ab")
    counts = load_run(tmp_path / "a").evaluation.class_counts
    np.testing.assert_allclose(ours, longtail.adjust_probabilities(plain[None], counts)[0], rtol=1e-6)


@pytest.mark.parametrize(
    "name", [*methods.NAMES, "effective:beta=0.9:loss=focal", "ldam:cosine=10", "crt:epochs=3"]
)
def test_the_line_of_code_makes_the_method(name):
    method = methods.get(name)
    names = {"longtail": longtail, "labels": [0] * 90 + [1] * 10, "logits": np.zeros((1, 2))}
    counts = [90, 10]
    if method.many_labels:
        names["labels"] = np.repeat(np.eye(2, dtype=int), counts, axis=0)
        counts = longtail.class_counts(names["labels"])
    line = methods.code(method)
    exec(line, names)
    if "method" in names:
        assert names["method"] == method
    elif "criterion" in names:
        ours, theirs = names["criterion"], method.criterion(counts)
        assert torch.equal(ours.weight, theirs.weight)
        assert (ours.loss, ours.gamma) == (theirs.loss, theirs.gamma)
    else:
        np.testing.assert_allclose(names["logits"], method.adjust(np.zeros((1, 2)), [90, 10]))


def test_a_method_of_ones_own_is_written_whole():
    mine = Method("mine", loss="focal", sampling=Rule("inverse"), label_smoothing=0.1)
    names = {"longtail": longtail}
    exec(methods.code(mine), names)
    assert names["method"] == mine
    changed = methods.get("deferred_effective", beta=0.9).replace(name="deferred_effective")
    assert methods.code(changed) == 'method = longtail.methods.get("deferred_effective", beta=0.9)'


def test_a_gamma_is_that_of_the_rule_where_the_loss_has_none():
    assert methods.get("vs", gamma=0.7).scale == Rule("class_dependent_temperature", gamma=0.7)
    assert methods.get("vs:gamma=0.7") != methods.get("vs")
    with pytest.raises(ValueError, match=r"gamma=1 of method 'vs' may be the loss's or that of its rule"):
        methods.get("vs:loss=focal:gamma=1")


def test_whole_numbers_make_the_same_method():
    one, other = (Method(loss="focal", gamma=g, offset=Rule("log_prior")) for g in (3, 3.0))
    assert one == other
    assert hash(one) == hash(other)
    assert recipes.digits(method=one).hash == recipes.digits(method=other).hash


def test_names_of_different_settings_differ():
    assert methods.get("effective", beta=0.99999999).name == "effective:beta=0.99999999"


@pytest.mark.parametrize("text", ["crt:epochs=-1", "tau_norm:tau=-1", "posthoc_logit_adjusted:tau=-1"])
def test_settings_of_what_comes_after_training_are_checked_before_it(text):
    with pytest.raises(ValueError, match=r"(epochs|tau) must be in .*, got -1"):
        methods.get(text)


def test_a_loss_of_a_wrong_type_in_a_file():
    with pytest.raises(ValueError, match="loss must be one of 'softmax'"):
        Method.from_dict({"loss": ["softmax"]})


def test_an_adjustment_reads_logits_as_the_loss_does():
    counts = {"b": 900, "a": 90, "c": 10}
    logits = np.zeros((1, 3))
    for loss in ("softmax", "sigmoid"):
        method = methods.get("posthoc_logit_adjusted", loss=loss)
        shares = np.array([0.9, 0.09, 0.01])
        shift = -np.log(shares) - np.log(3)
        if loss == "sigmoid":
            shift = -np.log(2) - np.log(shares / (1 - shares))
        np.testing.assert_allclose(method.adjust(logits, counts)[0], shift, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_every_precision_are_adjusted(dtype):
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype, requires_grad=True)
    ours = methods.get("posthoc_logit_adjusted").adjust(logits, [90, 9, 1])
    np.testing.assert_allclose(ours[0], np.arange(1, 4) - np.log([0.9, 0.09, 0.01]) - np.log(3), atol=1e-6)


def test_a_schedule_that_never_acted_is_not_taken_away():
    method = methods.get("deferred_effective", start=0.95, beta=0.99)
    assert method.at(10, 10) == method.unbalanced
    np.testing.assert_allclose(method.prior([90, 10], epochs=10), [0.9, 0.1])
    assert method.prior([90, 10])[1] > 0.2


@pytest.mark.parametrize(
    ("text", "method"),
    [
        (
            "effective:adjustment=logit:tau=0.5",
            {"weight": Rule("effective"), "adjustment": Rule("logit", tau=0.5)},
        ),
        ("posthoc_logit_adjusted:adjustment=none", {}),
        ("effective:weight=none", {}),
        ("plain:weight=effective:beta=0.9", {"weight": Rule("effective", beta=0.9)}),
    ],
)
def test_rules_are_named_in_text(text, method):
    assert methods.get(text) == Method(**method)
    assert methods.get(text).name == text


def test_a_rule_that_is_none_is_told_by_the_setting():
    for make in (lambda: methods.get("plain:sampling=inv"), lambda: Method(sampling=Rule("inv"))):
        with pytest.raises(ValueError, match=r"^sampling must be one of .*got 'inv'; did you mean 'inverse'"):
            make()


def test_a_loss_is_told_to_be_a_setting():
    for name in ("focal", "sigmoid"):
        with pytest.raises(ValueError, match=f"got '{name}'; a loss is a setting .* plain:loss={name} or"):
            methods.get(name)


def test_a_tuned_adjustment_is_refused_before_a_training(tmp_path):
    with pytest.raises(ValueError, match=r"chooses by held-out .*; give posthoc_logit_adjusted, or compare"):
        train(short(method=methods.get("tuned_adjustment")), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_smoothing_is_looked_at_where_a_plain_run_is_adjusted_too():
    """The training knows of no adjustment, as rows that share it do not."""
    method = methods.get("posthoc_logit_adjusted", label_smoothing=0.2)
    method.training.criterion([900, 90, 10])
    with pytest.raises(ValueError, match="label_smoothing must be below"):
        method.adjust(np.zeros((1, 3)), [900, 90, 10])
    method.replace(smooth_to="prior").adjust(np.zeros((1, 3)), [900, 90, 10])


def test_two_names_of_one_method_are_told():
    from longtail.compare import prepare

    with pytest.raises(ValueError, match="logit_adjusted, balanced_softmax do the same"):
        prepare(recipes.digits(), ["plain", "logit_adjusted", "balanced_softmax"])
    assert prepare(recipes.digits(), ["vs:loss=focal"])[0][0].method.gamma == recipes.digits().gamma


def test_a_run_whose_rule_is_not_registered_is_not_called_damaged(tmp_path):
    WEIGHTS.register("of_elsewhere", lambda counts: np.ones(len(counts)))
    try:
        train(short(method=Method(weight=Rule("of_elsewhere"))), tmp_path, device="cpu", threads=1)
    finally:
        WEIGHTS.unregister("of_elsewhere")
    with pytest.raises(ValueError, match=r"must be one of .* got 'of_elsewhere'.* install or import it"):
        load_run(tmp_path)
