import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtail.training import Recipe, digits, learning_rate_at, paper_cifar


@st.composite
def recipes(draw):
    epochs = draw(st.integers(2, 300))
    milestones = sorted(draw(st.sets(st.integers(1, epochs - 1), max_size=3)))
    return digits(
        epochs=epochs,
        warmup_epochs=draw(st.integers(0, epochs - 1)),
        schedule="step" if milestones else draw(st.sampled_from(["constant", "cosine"])),
        milestones=tuple(milestones),
        imbalance_factor=draw(st.none() | st.floats(1, 1e6)),
        beta=draw(st.floats(0, 1)),
        learning_rate=draw(st.floats(1e-6, 1e3)),
        loss=draw(st.sampled_from(["softmax", "sigmoid", "focal", "softmax_focal"])),
        prior_bias=draw(st.sampled_from(["auto", True, False])),
        seed=draw(st.integers(0, 2**63)),
    )


@given(recipes())
def test_json_round_trip_keeps_everything_and_the_hash(recipe):
    back = Recipe.from_json(recipe.to_json())
    assert back == recipe
    assert back.hash == recipe.hash
    assert type(back.milestones) is tuple


@given(recipes(), st.integers(1, 400))
def test_another_number_of_epochs_keeps_the_schedules_shape(recipe, epochs):
    drops = len(recipe.milestones)
    if epochs <= drops:
        with pytest.raises(ValueError, match=f"got {epochs}; the recipe's {drops} milestones need room"):
            recipe.with_epochs(epochs)
        return
    other = recipe.with_epochs(epochs)  # milestones that meet or leave the run would be refused
    moved = {"epochs": epochs, "milestones": other.milestones, "warmup_epochs": other.warmup_epochs}
    assert other == recipe.replace(**moved)
    assert len(other.milestones) == drops
    assert other.warmup_epochs <= recipe.warmup_epochs
    if epochs == recipe.epochs:
        assert other == recipe
    elif recipe.milestones:
        assert other.warmup_epochs < other.milestones[0]
    for before, after in zip(recipe.milestones, other.milestones, strict=True):
        assert abs(after / epochs - before / recipe.epochs) < (drops + 1) / epochs


def test_a_short_run_keeps_a_warm_up_where_there_is_room():
    short = paper_cifar().with_epochs(20)
    assert (short.epochs, short.milestones, short.warmup_epochs) == (20, (16, 18), 1)
    assert paper_cifar().with_epochs(4).milestones == (2, 3)
    assert [digits().with_epochs(n).warmup_epochs for n in (1, 2, 50, 1000)] == [0, 1, 2, 5]


def test_the_hash_is_the_same_on_every_machine_and_follows_every_field():
    # changes only with the fields of Recipe: then finished runs elsewhere no longer match, so say so in
    # the changelog
    assert digits().short_hash == "2d84e116c3b0"
    assert len(digits().hash) == 64
    assert len({digits().hash, digits(seed=1).hash, digits(beta=0.9).hash}) == 3
    assert digits(imbalance_factor=50).hash == digits(imbalance_factor=50.0).hash


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        digits().seed = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lerning_rate": 0.1},
            r"unknown recipe field 'lerning_rate' \(value 0.1\); did you mean 'learning_rate'",
        ),
        ({"zzz": 1}, "unknown recipe field 'zzz'.*the fields are 'dataset', 'imbalance_factor'"),
        ({"epochs": "ten"}, "recipe field 'epochs': must be a valid integer, got 'ten'"),
        ({"epochs": 1.5}, "recipe field 'epochs': must be a valid integer, got 1.5"),
        ({"epochs": True}, "recipe field 'epochs': must be a valid integer, got True"),
        ({"epochs": 0}, "recipe field 'epochs': must be greater than or equal to 1, got 0"),
        ({"beta": 1.5}, "'beta': must be less than or equal to 1, got 1.5; the default is 0.999"),
        ({"beta": math.nan}, "'beta': must be a finite number, got nan"),
        ({"gamma": -1.0}, "'gamma': must be greater than or equal to 0, got -1"),
        ({"imbalance_factor": 0.5}, "'imbalance_factor': must be greater than or equal to 1, got 0.5"),
        ({"label_smoothing": 1.0}, "'label_smoothing': must be less than 1"),
        ({"loss": "hinge"}, "'loss': must be 'softmax', 'sigmoid', 'focal' or 'softmax_focal', got 'hinge'"),
        ({"prior_bias": "yes"}, "'prior_bias': must be"),
        ({"dataset": 3}, "'dataset': must be a valid string, got 3"),
        ({"warmup_epochs": 100}, "warmup_epochs must be less than epochs=100, got 100"),
        ({"milestones": (3,)}, "milestones belong to schedule='step'"),
        ({"schedule": "step"}, "milestones belong to schedule='step'"),
        ({"schedule": "step", "milestones": (20, 10)}, "milestones must increase"),
        (
            {"schedule": "step", "milestones": (100,)},
            "milestones must increase and lie between 0 and epochs=100",
        ),
        ({"final_learning_rate": 1.0}, "final_learning_rate must be at most learning_rate=0.1, got 1.0"),
        ({"epochs": 0, "beta": 2.0}, r"'beta'.*\(also wrong: epochs\)"),
    ],
)
def test_a_wrong_field_gives_one_line_with_field_value_and_remedy(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        digits(**changes)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match=r"recipe field 'dataset' is missing; .* recipes\.digits\(\)"):
        Recipe(model="small_cnn", epochs=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[1]", "JSON object of fields, got list"), ('{"a": 1}', "unknown")],
)
def test_bad_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_json(text)


def test_the_papers_recipe_is_the_papers():
    recipe = paper_cifar("cifar100", 50, "focal", gamma=0.5)
    assert recipe.model_dump() == {
        "dataset": "cifar100",
        "imbalance_factor": 50,
        "profile": "exponential",
        "subset_seed": None,
        "input_scale": 128,
        "model": "resnet32",
        "loss": "focal",
        "scheme": "effective",
        "beta": 0.9999,
        "gamma": 0.5,
        "normalizer": "samples",
        "label_smoothing": 0,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 2e-4,
        "schedule": "step",
        "warmup_epochs": 5,
        "milestones": (160, 180),
        "decay_factor": 0.01,
        "final_learning_rate": 0,
        "epochs": 200,
        "batch_size": 128,
        "augmentation": "crop_flip",
        "prior_bias": "auto",
        "precision": "fp32",
        "eval_every": 10,
        "seed": 0,
    }
    assert recipe.uses_prior_bias
    assert not paper_cifar().uses_prior_bias
    assert paper_cifar(prior_bias=True).uses_prior_bias


def test_the_papers_learning_rate_by_hand():
    recipe, steps = paper_cifar(), 100
    by_hand = {0: 0.0, 250: 0.05, 499: 0.0998, 500: 0.1, 15999: 0.1, 16000: 1e-3, 17999: 1e-3, 18000: 1e-5}
    for step, rate in by_hand.items():
        assert learning_rate_at(recipe, step, steps) == pytest.approx(rate, rel=1e-12)


def test_the_cosine_starts_behind_the_warmup_and_ends_where_it_should():
    recipe = digits(learning_rate=1e-3, final_learning_rate=1e-5, epochs=12, warmup_epochs=2)
    by_hand = {0: 0.0, 10: 5e-4, 20: 1e-3, 70: 5.05e-4, 120: 1e-5}
    for step, rate in by_hand.items():
        assert learning_rate_at(recipe, step, 10) == pytest.approx(rate, rel=1e-12)
    assert learning_rate_at(digits(schedule="constant", warmup_epochs=0), 0, 10) == 0.1
