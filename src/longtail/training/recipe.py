"""What to train: one validated, frozen, serialisable description of a run; recipes are functions."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from longtail import _checks
from longtail.datasets.decoding import IMAGENET_MEAN, IMAGENET_STD
from longtail.losses.forms import FORMS, MANY_LABELS
from longtail.methods.method import Method, Rule
from longtail.training.registries import AUGMENTATIONS
from longtail.weights import SCHEMES

__all__ = ["ImageRecipe", "Recipe", "learning_rate_at"]


def _known_loss(name: str) -> str:
    if name not in FORMS and name not in MANY_LABELS:
        *names, last = map(repr, FORMS)
        raise PydanticCustomError("loss", f"Input should be {', '.join(names)} or {last}")
    return name


class Recipe(BaseModel):
    """Everything that decides the result of a run, and nothing else.

    Two runs of equal recipes on one machine end with the same bits; what cannot change the result (the
    folder, the device, the progress bar) is an argument of `longtail.training.train` instead.

    Fields that need a word:
        method: how the tail is balanced, see `longtail.methods`. In its place these may be given, in which
            recipes told it at first: loss, scheme, beta, gamma, normalizer, label_smoothing, prior_bias.
        imbalance_factor: largest over smallest class of the training set made from `dataset`; None trains
            on the data as they are.
        subset_seed: which samples the tail keeps; None means `seed`, so that a spread over seeds includes
            the luck of the draw.
        input_scale: integer inputs become ``x / input_scale - 1``; None leaves them alone.
        warmup_epochs: the learning rate rises linearly from 0 in these first epochs.
        milestones, decay_factor: for the "step" schedule, epochs (counted from 0) before which the
            learning rate is multiplied by the factor.
        final_learning_rate: where the "cosine" schedule ends.
        augmentation: "shift" moves images by up to one pixel, "crop_flip" by up to four and mirrors half of
            them; outside the image there are zeros. Applications add others, such as "temporal" and
            "skeleton" for clips.
        prior_bias: start the last bias at the class prior and leave it out of weight decay; "auto" does so
            for the sigmoid and focal losses, as the paper does.
        metric: what decides between methods: a column of a comparison.
        folds: 0 where a test set is given. Otherwise the data are cut into so many folds, and the seed
            counts them: fold ``seed % folds`` of repetition ``seed // folds`` is the test set.
        many_labels: whether a sample may have several labels, as in a comparison on tables or features.
        max_count: samples of the largest class of the tail that `imbalance_factor` cuts; None takes as many
            as the smallest class of the data has.
        eval_every: epochs between two measurements of the test error for the history; the last epoch is
            always measured, and no measurement ever influences training.

    Raises:
        ValueError: a field is unknown, of the wrong type or out of range; one line names the field, the
            value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    dataset: str
    imbalance_factor: float | None = Field(default=None, ge=1)
    profile: Literal["exponential", "step", "pareto"] = "exponential"
    subset_seed: int | None = Field(default=None, ge=0)
    input_scale: float | None = Field(default=128.0, gt=0)
    model: str
    loss: Annotated[str, AfterValidator(_known_loss)] = "softmax"
    scheme: Literal["none", "inverse", "inverse_sqrt", "effective"] = "effective"
    beta: float = Field(default=0.999, ge=0, le=1)
    gamma: float = Field(default=2.0, ge=0)
    normalizer: Literal["samples", "weights"] = "samples"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    warmup_epochs: int = Field(default=0, ge=0)
    milestones: tuple[int, ...] = ()
    decay_factor: float = Field(default=0.1, gt=0, le=1)
    final_learning_rate: float = Field(default=0.0, ge=0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=128, ge=1)
    augmentation: str = "none"
    prior_bias: Literal["auto"] | bool = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    eval_every: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    metric: str = Field(default="error", exclude=True)
    folds: int = Field(default=0, ge=0, exclude=True)
    max_count: int | None = Field(default=None, ge=1, exclude=True)
    many_labels: bool = Field(default=False, exclude=True)
    method: InstanceOf[Method] = Field(default=None, exclude=True)  # type: ignore[assignment]

    if not TYPE_CHECKING:  # type checkers keep the signature that pydantic derives from the fields

        def __init__(self, **fields: object) -> None:
            if fields.get("method") is not None:
                decided = self._decided(fields["method"])
                for name, value in decided.items():
                    if name != "method" and fields.get(name, value) != value:
                        raise ValueError(
                            f"recipe field {name!r}: method has {value!r}, but {fields[name]!r} is given "
                            "beside it; give one of the two"
                        )
                fields |= decided
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise ValueError(_one_line(error, type(self).model_fields)) from None

    @field_validator("milestones", "mean", "std", mode="before", check_fields=False)
    @classmethod
    def _list_to_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("augmentation")
    @classmethod
    def _augmentation_is_known(cls, value: str) -> str:
        if value not in AUGMENTATIONS:
            *others, last = map(repr, AUGMENTATIONS.names)
            raise ValueError(f"must be {', '.join(others)} or {last}")
        return value

    @classmethod
    def _decided(cls, method: Any) -> dict[str, Any]:
        """Return the method, and the fields of the first version that it decides: no idle ones."""
        if isinstance(method, Mapping):
            method = Method.from_dict(method)
        if not isinstance(method, Method):
            raise TypeError(
                f"method must be a Method, got {_checks.describe(method)}; longtail.methods.get(name) makes "
                "one"
            )
        decided: dict[str, Any] = {
            "loss": method.loss,
            "normalizer": method.normalizer,
            "label_smoothing": float(method.label_smoothing),
            "prior_bias": method.prior_bias,
        }
        if method.is_focal:
            decided["gamma"] = float(method.gamma)
        if method.weight.name in SCHEMES:
            decided["scheme"] = method.weight.name
            decided |= dict(method.weight.settings)
        else:  # a rule from elsewhere: the method says which, these fields cannot
            decided["scheme"] = "none"
        if "sampling" in cls.model_fields and (method.sampling is None or method.sampling.name in SCHEMES):
            decided["sampling"] = "none" if method.sampling is None else method.sampling.name
        return {**decided, "method": method}

    def _told(self) -> Method:
        """Return the method that the fields of the first version tell of."""
        sampling = getattr(self, "sampling", "none")
        return Method(
            loss=self.loss,
            gamma=self.gamma,
            weight=Rule(self.scheme, beta=self.beta) if self.scheme == "effective" else Rule(self.scheme),
            label_smoothing=self.label_smoothing,
            normalizer=self.normalizer,
            sampling=None if sampling == "none" else Rule(sampling),
            prior_bias=self.prior_bias,
        )

    @model_validator(mode="after")
    def _holds_a_method(self) -> Self:
        if self.method is None:
            self.__dict__["method"] = self._told()
        elif self.method != self._told():  # what is idle then must not tell two recipes apart
            decided = self._decided(self.method)
            for name in _FIRST_VERSION:
                if name in type(self).model_fields and name not in decided:
                    self.__dict__[name] = type(self).model_fields[name].default
        return self

    @model_validator(mode="after")
    def _takes_these_labels(self) -> Self:
        if self.method.many_labels and not self.many_labels:
            raise ValueError(
                f"method {self.method.label!r} is for many labels a sample, and these data have one class a "
                "sample; leave it out, or compare on data of many labels"
            )
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be less than epochs={self.epochs}, got {self.warmup_epochs}; "
                "shorten the warm-up or train longer"
            )
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"milestones belong to schedule='step' and only to it, got milestones={self.milestones} "
                f"with schedule={self.schedule!r}; change one of the two"
            )
        inside = all(0 < m < self.epochs for m in self.milestones)
        if not inside or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(
                f"milestones must increase and lie between 0 and epochs={self.epochs}, "
                f"got {self.milestones}; give them for this number of epochs"
            )
        if self.schedule == "cosine" and self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate must be at most learning_rate={self.learning_rate}, "
                f"got {self.final_learning_rate}; lower it"
            )
        return self

    def replace(self, **changes: object) -> Self:
        """Return this recipe with some fields changed, checked again from the start.

        Raises:
            ValueError: as the constructor.
        """
        start = {name: getattr(self, name) for name in type(self).model_fields}
        told = {name: changes[name] for name in _FIRST_VERSION if name in changes}
        if told and "method" not in changes:
            if self.method == self._told():
                del start["method"]
            else:
                changes = {**changes, "method": self.method.replace(**_as_parts(told, self.method))}
        if changes.get("method") is not None:
            start |= self._decided(changes["method"])
        return type(self)(**{**start, **changes})

    def with_epochs(self, epochs: int) -> Self:
        """Return this recipe with another number of epochs, its schedule moved in proportion.

        Milestones stay apart. A warm-up ends before them, never grows, and keeps an epoch if there is room.

        Raises:
            TypeError: `epochs` is no number.
            ValueError: no room for the milestones.
        """
        drops = len(self.milestones)
        remedy = f"the recipe's {drops} milestones need room" if drops else "give one at least"
        epochs = _checks.integer("epochs", epochs, low=drops + 1, remedy=remedy)
        if epochs == self.epochs:
            return self
        marks: list[int] = []
        for i, mark in enumerate(self.milestones):
            earliest, latest = marks[-1] + 1 if marks else 1, epochs - drops + i
            marks.append(min(max(mark * epochs // self.epochs, earliest), latest))
        room = (marks[0] if marks else epochs) - 1
        warmup = min(self.warmup_epochs, max(1, self.warmup_epochs * epochs // self.epochs), room)
        return self.replace(epochs=epochs, milestones=tuple(marks), warmup_epochs=warmup)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON knows it.

        A method that the first version of recipes knew is written in its fields. A field that it did not have
        is left out at its default, so that a new one changes neither files nor hashes of older recipes.
        """
        content: dict[str, object] = self.model_dump(mode="json")
        for name, about in type(self).model_fields.items():
            if name not in _FIRST_FIELDS and name != "method":
                value = content.pop(name, getattr(self, name))
                content |= {} if getattr(self, name) == about.default else {name: value}
        if self.method != self._told():
            content = {k: v for k, v in content.items() if k not in _FIRST_VERSION}
            content["method"] = self.method.to_dict()
        return content

    def to_json(self) -> str:
        """Return the recipe as indented JSON; `from_json` gives the same recipe back."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Read a recipe written by `to_json`, or by hand; one with a `size` is an `ImageRecipe`.

        Raises:
            ValueError: not JSON, not an object, or fields that the constructor refuses.
        """
        fields = _checks.parse_json(text, "a recipe")
        if not isinstance(fields, dict):
            raise ValueError(f"a recipe must be a JSON object of fields, got {type(fields).__name__}")
        return (ImageRecipe if "size" in fields else cls)(**fields)

    @property
    def hash(self) -> str:
        """The sha256 of the canonical JSON (sorted keys, no spaces), as 64 hexadecimal digits."""
        content = self.to_dict()
        if "method" in content:
            content["method"] = self.method.parts()
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def short_hash(self) -> str:
        """The first 12 digits of `hash`, for folder names and tables."""
        return self.hash[:12]

    @property
    def uses_prior_bias(self) -> bool:
        """Whether the last bias starts at the class prior and is not decayed."""
        return self.method.uses_prior_bias

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """How the loss reads logits as probabilities, for the evaluation."""
        return self.method.activation


class ImageRecipe(Recipe):
    """A run on image files, by `longtail.training.finetune`: a network of the transformers library.

    Fields that need a word, beside those of `Recipe`:
        model: "resnet50", "resnet101" or "resnet152" from scratch; or a folder or a name of the Hugging Face
            hub with an image classifier: its weights where it has some, else its configuration.
        batch_size: samples in an update, over all processes and accumulated batches; an epoch is as many
            whole batches as the training set fills, and leaves out the rest, another one each time.
        size: height and width of the images.
        mean, std: of each channel, in 0..1.
        sampling: how often classes are drawn: see `longtail.sampling.ClassAwareSampler`; "none" shuffles.
            Where the loss weighs classes, too, both act.
        augmentation: "crop_flip" is a random part of the image, resized, and mirrored in half of the cases;
            "none" is the middle of the image, as in evaluation.
        flip: whether "crop_flip" mirrors; False where left and right differ, as on traffic signs.
        lora, lora_rank: train adapters of this rank at each query and value of attention, and the head; all
            else is frozen. The adapters are merged into the weights at the end.
        freeze_backbone: train the head alone.
        head_start: "class_means" starts a method's cosine head at the mean direction of each class.
        input_scale: unused.

    Normalisation layers are never decayed.

    Raises:
        ValueError: as `Recipe`.
    """

    size: int = Field(default=224, ge=1)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    sampling: Literal["none", "inverse", "inverse_sqrt", "effective"] = "none"
    flip: bool = True
    lora: bool = False
    lora_rank: int = Field(default=4, ge=1)
    freeze_backbone: bool = False
    head_start: Literal["random", "class_means"] = "random"

    @property
    def frozen(self) -> bool:
        """Whether most of the network stays as it was given."""
        return self.lora or self.freeze_backbone

    @model_validator(mode="after")
    def _adapts_what_is_there(self) -> ImageRecipe:
        if self.lora:  # freezes the backbone, too; one run has one hash
            self.__dict__["freeze_backbone"] = False
        elif self.lora_rank != type(self).model_fields["lora_rank"].default:
            raise ValueError(f"lora_rank={self.lora_rank} belongs to lora=True; give both, or neither")
        if self.frozen and self.model in ("resnet50", "resnet101", "resnet152"):
            raise ValueError(
                f"model {self.model!r} starts from scratch, and frozen random weights are of no use; give a "
                "trained model's folder or hub name"
            )
        if self.head_start == "class_means" and not self.method.cosine:
            raise ValueError(
                "head_start='class_means' belongs to a cosine head; give a method that has one, such as "
                "longtail.methods.get('logit_adjusted').replace(cosine=25.0)"
            )
        return self

    @model_validator(mode="after")
    def _fits_images(self) -> ImageRecipe:
        if self.augmentation not in ("none", "crop_flip"):
            raise ValueError(
                f"augmentation must be 'none' or 'crop_flip' for image files, got {self.augmentation!r}; "
                "change it"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0 in every channel, got {self.std}; give it in 0..1")
        return self


# the fields in which the first version of recipes told its method
_FIRST_VERSION = (
    *("loss", "scheme", "beta", "gamma", "normalizer", "label_smoothing", "prior_bias", "sampling"),
)
# all fields that the first version had: they are written and hashed even at their default
_LATER = {"method", "metric", "folds", "max_count", "many_labels"}
_FIRST_FIELDS = frozenset({*Recipe.model_fields, "size", "mean", "std", "sampling", "flip"} - _LATER)


def _as_parts(told: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """Turn fields of the first version into parts of a method that has more than those."""
    parts = {name: value for name, value in told.items() if name not in ("scheme", "beta", "sampling")}
    if "scheme" in told or "beta" in told:
        scheme = told.get("scheme", method.weight.name)
        beta = {"beta": told["beta"]} if "beta" in told and scheme == "effective" else {}
        parts["weight"] = Rule(scheme, **beta)
    if "sampling" in told:
        parts["sampling"] = None if told["sampling"] == "none" else Rule(told["sampling"])
    return parts


def _one_line(error: ValidationError, known: Mapping[str, Any]) -> str:
    """Turn pydantic's report into one line: field, value, remedy; the first problem leads."""
    # an unknown name leads: where one was mistyped, the field it was meant for is missing, too
    problems = sorted(error.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden")
    first = problems[0]
    field, value = str(first["loc"][0]) if first["loc"] else "", first.get("input")
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"the fields are {_checks.shorten(known, 99)}"
        line = f"unknown recipe field {field!r} (value {value!r}); {remedy}"
    elif first["type"] == "missing":
        line = f"recipe field {field!r} is missing; give it, or start from a recipe such as recipes.digits()"
    elif not field:
        line = "recipe: " + first["msg"].removeprefix("Value error, ")
    else:
        wanted = first["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
        if field == "prior_bias":  # a union, of which pydantic reports each half alone
            wanted = "must be 'auto', true or false"
        line = f"recipe field {field!r}: {wanted}, got {value!r}"
        required = known[field].is_required()
        default = known[field].default
        line += "; recipes.digits() shows one that works" if required else f"; the default is {default!r}"
    others = sorted({str(p["loc"][0]) for p in problems[1:] if p["loc"]} - {field})
    return line + (f" (also wrong: {', '.join(others)})" if others else "")


def learning_rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one step.

    Args:
        recipe: gives the schedule.
        step: updates made so far, from 0.
        steps_per_epoch: updates in an epoch.

    Returns:
        During warm-up ``learning_rate * step / warmup_steps``; afterwards the schedule's value. The cosine
        starts where the warm-up ends and reaches `final_learning_rate` after the last step.
    """
    warmup = recipe.warmup_epochs * steps_per_epoch
    base = recipe.learning_rate
    if step < warmup:
        return base * step / warmup
    if recipe.schedule == "step":
        passed = sum(step >= m * steps_per_epoch for m in recipe.milestones)
        return base * math.prod([recipe.decay_factor] * passed)
    if recipe.schedule == "cosine":
        progress = (step - warmup) / (recipe.epochs * steps_per_epoch - warmup)
        end = recipe.final_learning_rate
        return end + (base - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return base
