"""What a method is: rules for the vectors of its loss, for its sampling, its schedule and its decision."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail._random import draws
from longtail._registry import Registry
from longtail.adjust import ADJUSTMENTS, effective_prior, logit, logit_shift
from longtail.labels import encode
from longtail.losses.forms import FORMS, MANY_LABELS, WEIGHTINGS, form_of, smoothing_limit
from longtail.methods.batches import MIXINGS, REWEIGHTINGS
from longtail.methods.refits import EVEN, REFITS
from longtail.methods.schedules import SCHEDULES
from longtail.methods.synthesis import SYNTHESES
from longtail.sampling import CUTS, SAMPLING, ClassAwareSampler
from longtail.vectors import MARGINS, OFFSETS, SCALES, WEIGHTS
from longtail.weights import SCHEMES, positive_weights

if TYPE_CHECKING:
    from longtail.losses.module import ClassBalancedLoss

__all__ = ["Method", "Rule"]

_PLACES: Final[dict[str, Registry[Any]]] = {
    "weight": WEIGHTS,
    "offset": OFFSETS,
    "scale": SCALES,
    "margin": MARGINS,
    "schedule": SCHEDULES,
    "sampling": SAMPLING,
    "synthesis": SYNTHESES,
    "mixing": MIXINGS,
    "reweighting": REWEIGHTINGS,
    "refit": REFITS,
    "adjustment": ADJUSTMENTS,
}


_VECTORS: Final = ("weight", "offset", "scale", "margin")
_TRIAL: Final = np.array([3.0, 2.0, 1.0])  # counts on which a rule is tried before anything is trained
_MANY: Final = 10**9  # epochs of a training whose number is not known


@dataclass(frozen=True, init=False)
class Rule:
    """A registered function by its name, with its settings: ``Rule("effective", beta=0.99)``.

    Attributes:
        name: under which the function is registered.
        settings: what it is called with: pairs of a name and a number, text or bool, sorted.

    Example:
        >>> Rule("deferred", start=0.5)
        Rule('deferred', start=0.5)
    """

    name: str
    settings: tuple[tuple[str, Any], ...]

    def __init__(self, name: str, /, **settings: object) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"a rule is named by a text, got {_checks.describe(name)}; such as Rule('effective')"
            )
        for key, value in settings.items():
            if not isinstance(value, (bool, int, float, str)):
                raise TypeError(
                    f"{key} of rule {name!r} must be a number, text or bool, got {_checks.describe(value)}"
                )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "settings", tuple(sorted(settings.items())))

    def __repr__(self) -> str:
        return f"Rule({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in self.settings)])})"

    def of(self, functions: Registry[Any]) -> Any:
        """Return the function that this rule names, its settings filled in.

        Raises:
            ValueError: no such function, or it has no such setting.
        """
        function = functions[self.name]
        known = _settings_of(function)
        for key, _ in self.settings:
            if key not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise ValueError(f"{functions.argument} {self.name!r} has no setting {key!r}; {takes}")
        return partial(function, **dict(self.settings))

    def filled(self, functions: Registry[Any]) -> Rule:
        """Return the rule with every setting of its function said, those at their default, too.

        Raises:
            ValueError: as `of`.
        """
        function = self.of(functions)
        defaults = {name: p.default for name, p in inspect.signature(function.func).parameters.items()}
        settings = {name: defaults[name] for name in _settings_of(function.func)} | dict(self.settings)
        for name, value in settings.items():
            if type(defaults[name]) is float and type(value) is int:
                settings[name] = float(value)
        return Rule(self.name, **settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON knows it; `from_dict` gives it back."""
        return {"rule": self.name, **dict(self.settings)}

    @classmethod
    def from_dict(cls, content: object) -> Rule:
        """Read what `to_dict` wrote; a text alone is a rule without settings.

        Raises:
            ValueError: no object with the key "rule".
        """
        if isinstance(content, str):
            return cls(content)
        if not isinstance(content, Mapping) or not isinstance(content.get("rule"), str):
            raise ValueError(
                f"a rule must be a name or an object with the key 'rule', got {_checks.describe(content)}"
            )
        return cls(content["rule"], **{k: v for k, v in content.items() if k != "rule"})


@dataclass(frozen=True, eq=False)
class Method:
    """A way to train on a long tail, and to decide afterwards.

    The loss of a sample of class y with logits z is ``w_y * form(s * z + a - m_y * onehot_y)``: a weight w,
    an offset a, a scale s and a margin m for each class, made from the training counts by rules.

    Attributes:
        name: what tables call it; "" for a method that has no name of its own.
        loss: "softmax" | "sigmoid" | "focal" | "softmax_focal", or a form that a package of yours registered;
            for many labels a sample also "asymmetric" | "distribution_balanced".
        gamma: the focal losses' exponent, >= 0.
        weight: rule of `longtail.vectors.WEIGHTS`.
        weighting: "sample" | "class" | "positive": what weighs, of many labels a sample; see
            `longtail.ClassBalancedLoss`.
        offset: rule of `longtail.vectors.OFFSETS`, or None.
        scale: rule of `longtail.vectors.SCALES`, or None.
        margin: rule of `longtail.vectors.MARGINS`, or None.
        cosine: scale of a cosine head, > 0, in place of the last linear layer; 0 for none. Margins are then
            of the cosines.
        label_smoothing: epsilon, in [0, 1).
        smooth_to: what label smoothing moves labels to, "uniform" | "prior".
        normalizer: what a mean loss divides by: "samples" | "weights".
        schedule: rule of `longtail.methods.SCHEDULES` for from when weight and sampling act; None: always.
        sampling: rule of `longtail.sampling.SAMPLING` for how often classes are drawn; None shuffles.
        synthesis: rule of `longtail.methods.SYNTHESES` that makes new samples of the rare classes before
            training, of a table or of features, or None.
        mixing: rule of `longtail.methods.MIXINGS` that mixes the samples of a batch, or None.
        reweighting: rule of `longtail.methods.REWEIGHTINGS` that weighs each sample of a batch anew, or None.
        refit: rule of `longtail.methods.REFITS` that makes the last layer anew after training, or None.
        adjustment: rule of `longtail.adjust.ADJUSTMENTS` for the logits after training, or None.
        prior_bias: whether the last bias starts at the class prior and is not decayed; "auto": with the
            sigmoid losses, as the paper does.
        source: where it was published, in one line.

    Methods are equal if they do the same: name and source do not count.

    Raises:
        ValueError: an unknown name or rule, or a number out of range.
        TypeError: a part of the wrong type.

    Example:
        >>> Method("mine", loss="focal", weight=Rule("effective", beta=0.99)).label
        'mine'
    """

    name: str = ""
    _: KW_ONLY
    loss: str = "softmax"
    gamma: float = 2.0
    weight: Rule = Rule("none")
    weighting: str = "sample"
    offset: Rule | None = None
    scale: Rule | None = None
    margin: Rule | None = None
    cosine: float = 0.0
    label_smoothing: float = 0.0
    smooth_to: str = "uniform"
    normalizer: str = "samples"
    schedule: Rule | None = None
    sampling: Rule | None = None
    synthesis: Rule | None = None
    mixing: Rule | None = None
    reweighting: Rule | None = None
    refit: Rule | None = None
    adjustment: Rule | None = None
    prior_bias: Literal["auto"] | bool = "auto"
    source: str = ""

    def __post_init__(self) -> None:
        for text in ("name", "source"):
            if not isinstance(value := getattr(self, text), str) or "\n" in value:
                raise TypeError(f"{text} must be one line of text, got {_checks.describe(value)}")
        # whoever asks for all names loads the applications, which need this module whole
        if not isinstance(self.loss, str) or (self.loss not in MANY_LABELS and self.loss not in FORMS):
            _checks.choice("loss", self.loss, (*FORMS.names, *MANY_LABELS))
        _checks.choice("weighting", self.weighting, WEIGHTINGS)
        _checks.choice("normalizer", self.normalizer, ("samples", "weights"))
        _checks.choice("smooth_to", self.smooth_to, ("uniform", "prior"))
        gamma = _checks.number("gamma", self.gamma, low=0.0, open_high=True, remedy="2 is usual")
        remedy = "0 switches it off, 0.1 is usual"
        smoothing = _checks.number(
            "label_smoothing", self.label_smoothing, low=0.0, high=1.0, open_high=True, remedy=remedy
        )
        object.__setattr__(self, "gamma", gamma)  # 3 and 3.0 are one method, with one hash
        object.__setattr__(self, "label_smoothing", smoothing)
        remedy = "30 is usual, 0 is none"
        cosine = _checks.number("cosine", self.cosine, low=0.0, open_high=True, remedy=remedy)
        object.__setattr__(self, "cosine", cosine)
        if self.prior_bias != "auto" and not isinstance(self.prior_bias, bool):
            raise ValueError(f"prior_bias must be 'auto', True or False, got {self.prior_bias!r}")
        if cosine and (self.uses_prior_bias or self.refit is not None):
            other = "refit" if self.refit is not None else f"loss={self.loss!r} with a prior bias"
            raise ValueError(f"cosine={cosine:g} is given beside {other}, which needs a bias; leave one out")
        for place in _PLACES:
            self._check_rule(place)
        if self.sampling is not None and self.sampling.name in CUTS and self.schedule is not None:
            raise ValueError(
                f"sampling {self.sampling.name!r} leaves samples out of the whole training and cannot begin "
                "later; set schedule=None, or sampling=Rule('inverse')"
            )
        if self.synthesis is not None:
            for place in (*_VECTORS, "schedule", "sampling", "mixing", "reweighting"):
                rule = getattr(self, place)
                if rule is not None and rule != Rule("none"):
                    raise ValueError(
                        f"synthesis {self.synthesis.name!r} makes all classes equally large, and is given "
                        f"beside {place} {rule.name!r}; leave one out"
                    )
        if self.reweighting is not None and (self.mixing is not None or self.adjustment is not None):
            other = "mixing" if self.mixing is not None else "adjustment"
            why = "takes no mixed targets" if self.mixing is not None else "leaves no prior that is known"
            raise ValueError(
                f"reweighting {self.reweighting.name!r} is given beside {other}, but {why}; leave one out"
            )

        for place in ("scale", "margin", "refit"):
            rule = getattr(self, place)
            if self.adjustment is not None and rule is not None and rule.name not in EVEN:
                raise ValueError(
                    f"adjustment {self.adjustment.name!r} is given beside {place} {rule.name!r}, which "
                    "leaves no prior that is known; leave one out"
                )

    def __eq__(self, other: object) -> bool:
        return self.parts() == other.parts() if isinstance(other, Method) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.short_hash)

    def _check_rule(self, place: str) -> None:
        rule = getattr(self, place)
        if rule is None and place != "weight":
            return
        if not isinstance(rule, Rule):
            raise TypeError(
                f"{place} must be a Rule, got {_checks.describe(rule)}; write Rule({str(rule)!r})"
            )
        _check_name(place, rule.name)
        rule = rule.filled(_PLACES[place])
        object.__setattr__(self, place, rule)
        function = rule.of(_PLACES[place])
        with warnings.catch_warnings():  # settings out of range are found here, not after an hour
            warnings.simplefilter("ignore")
            if place in _VECTORS:
                _vector_of(rule, _PLACES[place], _TRIAL, *([np.ones(3)] if place == "offset" else []))
            elif place == "schedule":
                function(0.0)
            elif place == "sampling":
                function(_TRIAL, 0.0)
            elif place == "adjustment":
                held_out = {"held_out": (np.zeros((3, 3)), np.arange(3))} if self.is_tuned else {}
                function(np.zeros((1, 3)), _TRIAL, _TRIAL / 6, **held_out)
            elif place == "mixing":
                function(draws(0), 1)
            elif place == "synthesis":
                _checks.integer(
                    "k_neighbors", dict(rule.settings).get("k_neighbors", 1), low=1, remedy="5 is usual"
                )
            elif place == "reweighting":
                _checks.integer("per_class", dict(rule.settings)["per_class"], low=1, remedy="10 is usual")
            elif place == "refit" and rule != Rule(rule.name).filled(REFITS):
                _try_refit(rule)

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """How the loss reads logits as probabilities."""
        return form_of(self.loss).activation

    @property
    def uses_prior_bias(self) -> bool:
        """Whether the last bias starts at the class prior and is not decayed."""
        return self.activation == "sigmoid" if self.prior_bias == "auto" else bool(self.prior_bias)

    @property
    def is_focal(self) -> bool:
        """Whether gamma acts."""
        return form_of(self.loss).takes_gamma

    @property
    def label(self) -> str:
        """A few words for tables: the name, or what the method does."""
        return self.name or " ".join([self.loss, self.balancing])

    @property
    def is_tuned(self) -> bool:
        """Whether its adjustment chooses by held-out predictions, which a training has to keep for it."""
        if self.adjustment is None:
            return False
        return "held_out" in inspect.signature(ADJUSTMENTS[self.adjustment.name]).parameters

    @property
    def weighs(self) -> bool:
        """Whether its weights are others than 1."""
        return self.weight != Rule("none")

    @property
    def balancing(self) -> str:
        """The rules that balance, in words; "none" where there are none."""
        rules = [rule for place in _PLACES if (rule := getattr(self, place)) is not None]
        words = [rule.name for rule in rules if rule != Rule("none")]
        words += [self.weighting] * (self.weighting != "sample" and self.weighs)
        return " ".join(words) or "none"

    @property
    def balances(self) -> bool:
        """Whether anything but the loss form is in it that a plain training has not."""
        return self != self.plain

    @property
    def plain(self) -> Method:
        """The same loss without any balancing: what a method is compared with.

        Of a form for many labels, which balances by itself, it is the sigmoid loss.
        """
        parts: dict[str, Any] = dict.fromkeys(_PLACES)
        loss = "sigmoid" if self.loss in MANY_LABELS else self.loss
        return replace(self, name="", source="", loss=loss, cosine=0.0, **(parts | {"weight": Rule("none")}))

    @property
    def many_labels(self) -> bool:
        """Whether it is for many labels a sample alone."""
        return self.loss in MANY_LABELS or (self.weighting != "sample" and self.weighs)

    @property
    def training(self) -> Method:
        """What is trained: this method without what it does afterwards. Methods that share it share a run."""
        return replace(self, name="", source="", refit=None, adjustment=None)

    @property
    def slug(self) -> str:
        """A name for folders; methods that do different things have different ones but for numbers."""
        words = self.name.split(":") if self.name else [self.loss, *self.balancing.split()]
        return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in word) for word in words)

    @property
    def settings(self) -> dict[str, object]:
        """What the method does, as flat pairs in a fixed order; numbers that do not act are left out."""
        found: dict[str, object] = {"loss": self.loss}
        if self.is_focal:
            found["gamma"] = self.gamma
        for name in ("cosine", "label_smoothing", "smooth_to", "normalizer", "prior_bias", "weighting"):
            if getattr(self, name) != _DEFAULTS[name] and not self._idle(name):
                found[name] = getattr(self, name)
        for place in _PLACES:
            if (rule := getattr(self, place)) is not None:
                found[place] = rule.name
                found |= {f"{place}.{key}": value for key, value in rule.settings}
        return found

    def replace(self, **changes: Any) -> Method:
        """Return this method with some fields changed, checked again.

        Raises:
            ValueError: as the constructor.
            TypeError: no such field.
        """
        return replace(self, **changes)

    def with_settings(self, **settings: Any) -> Method:
        """Return this method with some fields, or settings of its rules, changed; its name tells of them.

        Args:
            **settings: fields of `Method`, rules by their names ("none" for no rule), or settings that a rule
                of this method takes, such as ``beta``.

        Raises:
            ValueError: a setting that nothing here takes; the message lists those that there are.
        """
        if not settings:
            return self
        changes: dict[str, Any] = {
            place: None if rule == "none" and place != "weight" else Rule(rule)
            for place, rule in settings.items()
            if place in _PLACES and isinstance(rule, str)
        }
        known: dict[str, list[str]] = {}
        for place, functions in _PLACES.items():
            if (rule := changes.get(place, getattr(self, place))) is not None:
                _check_name(place, rule.name)
                for key in _settings_of(functions[rule.name]):
                    known.setdefault(key, []).append(place)
        focal = form_of(settings.get("loss", self.loss)).takes_gamma
        for key, value in settings.items():
            acts = key in _DEFAULTS and (key != "gamma" or focal)
            if acts and key in known:
                raise ValueError(
                    f"{key}={value} of method {self.label!r} may be the loss's or that of its rule of "
                    f"{known[key][0]!r}; give one by longtail.methods.Method or Rule"
                )
            if acts or (key in _DEFAULTS and key not in known):
                changes.setdefault(key, value)
                continue
            if key not in known:
                options = (*known, *(name for name in _DEFAULTS if name not in ("name", "source", *known)))
                _checks.choice(f"a setting of method {self.name or self.label!r}", key, options)
            for place in known[key]:
                rule = changes.get(place) or getattr(self, place)
                changes[place] = Rule(rule.name, **{**dict(rule.settings), key: value})
        if self.name and "name" not in changes:
            changes["name"] = ":".join([self.name, *(f"{k}={_short(v)}" for k, v in settings.items())])
        return replace(self, **changes)

    # ---- what it does

    def at(self, epoch: int, epochs: int) -> Method:
        """Return what is in force in one epoch: this method, or what its schedule leaves of it.

        Args:
            epoch: from 1.
            epochs: of the whole training.

        Raises:
            ValueError: an epoch that is not between 1 and `epochs`.
        """
        epochs = _checks.integer("epochs", epochs, low=1)
        epoch = _checks.integer("epoch", epoch, low=1, high=epochs)
        if self.schedule is None or self.schedule.of(SCHEDULES)((epoch - 1) / epochs):
            return self
        return self.unbalanced

    @property
    def unbalanced(self) -> Method:
        """This method before its schedule lets weights and sampling act."""
        return replace(self, weight=Rule("none"), sampling=None)

    def criterion(self, class_counts: Any, **options: Any) -> ClassBalancedLoss:
        """Return the loss as a torch module; of a schedule, ask `at` first.

        Args:
            class_counts: as for `longtail.ClassBalancedLoss`; of many labels a sample with the number of
                samples, as ``class_counts(labels)`` of rows of 0 and 1 has it.
            **options: further arguments of `longtail.ClassBalancedLoss`, such as ``ignore_index``.
        """
        import torch

        from longtail.losses.module import ClassBalancedLoss

        scheme, settings, own = self.weight.name, dict(self.weight.settings), None
        if scheme not in SCHEMES:  # a rule from elsewhere
            scheme, settings, own = "none", {}, self.weight.of(WEIGHTS)
        loss = partial(
            ClassBalancedLoss,
            class_counts,
            loss=self.loss,
            scheme=scheme,
            gamma=self.gamma,
            normalizer=self.normalizer,
            label_smoothing=self.label_smoothing,
            smooth_to=(smooth_to := options.pop("smooth_to", self.smooth_to)),
            weighting=self.weighting if self.weighs else "sample",
            **settings,
            **options,
        )
        base = loss()
        assert base.class_counts is not None
        counts = base.class_counts.cpu().numpy()
        if own is not None:
            base.weight.copy_(torch.from_numpy(np.asarray(own(counts), dtype=np.float64)))
        if smooth_to == "uniform" and base.num_samples is None:
            self._check_smoothing(counts)
        vectors: dict[str, Any] = {}
        if self.offset is not None:
            vectors["offset"] = self._offset(counts, base.weight.double().cpu().numpy(), base.num_samples)
        if self.scale is not None:
            vectors["scale"] = self.scale.of(SCALES)(counts)
        if self.margin is not None:
            vectors["margin"] = (self.cosine or 1.0) * self.margin.of(MARGINS)(counts)
        if not vectors:
            return base
        shifted = loss(**vectors)
        shifted.weight = base.weight
        return shifted

    def _check_smoothing(self, counts: npt.NDArray[np.float64]) -> None:
        """Refuse label smoothing that outweighs what the adjustment takes from the largest class."""
        if not self.label_smoothing or self.adjustment is None or self.adjustment.name != "logit":
            return
        if self.schedule is not None and self == self.unbalanced:  # not what will have been seen at the end
            return
        tau, bare = dict(self.adjustment.settings)["tau"], np.zeros((1, len(counts)))
        taken = -logit(bare, counts, self._seen(counts), tau=tau, activation=self.activation)[0]
        if self.offset is not None:
            taken = taken + self._offset(counts, self._weights(counts))
        limit = smoothing_limit(self.activation, float(taken.max() - taken.min()), len(taken))
        if self.label_smoothing >= limit:
            raise ValueError(
                f"label_smoothing must be below {limit:.3g} beside adjustment 'logit' with tau={tau:g} and "
                f"these counts, got {self.label_smoothing:g}: the class that is lowered most could never be "
                "predicted; smooth less, or not, or smooth_to='prior'"
            )

    def _weights(self, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weights of the classes, 1 for those without samples."""
        return np.where(counts > 0, _vector_of(self.weight, WEIGHTS, counts), 1.0)

    def refuse_synthesis(self, what: str) -> None:
        """Refuse a method that makes new samples, where a training cannot take them.

        Args:
            what: the training, in words.

        Raises:
            ValueError: it makes some.
        """
        if self.synthesis is not None:
            raise ValueError(
                f"method {self.label!r} makes new samples between old ones, of a table or of features, not "
                f"for {what}; compare it on those (longtail embed makes features), or give class_aware"
            )

    def sampler(
        self, labels: Any, *, epochs: int = 1, num_samples: int | None = None, seed: int = 0
    ) -> ClassAwareSampler:
        """Return the order of the samples, for a torch ``DataLoader``; its ``set_epoch`` counts from 0.

        Args:
            labels: one a sample, as for `longtail.sampling.ClassAwareSampler`.
            epochs: of the whole training, for rules and schedules that depend on it.
            num_samples: indices in an epoch; default: the number of labels.
            seed: of the order.
        """
        rule = Rule("none") if self.sampling is None else self.sampling
        shares = rule.of(SAMPLING)
        if self.schedule is None:
            acting = shares
        else:
            on, plain = self.schedule.of(SCHEDULES), SAMPLING["none"]

            def acting(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
                return cast("npt.NDArray[np.float64]", (shares if on(progress) else plain)(counts, progress))

        cut = CUTS[rule.name](np.bincount(encode(labels)[1])) if rule.name in CUTS else None
        return ClassAwareSampler(labels, acting, epochs=epochs, num_samples=num_samples, cut=cut, seed=seed)

    def prior(self, class_counts: object, *, epochs: int | None = None) -> npt.NDArray[np.float64]:
        """Return the class shares that the optimiser saw at the end of training, see `longtail.adjust`.

        Args:
            class_counts: training samples per class, as for `longtail.class_weights`.
            epochs: of the whole training, for schedules and sampling that depend on it; None for very many.
        """
        given = _arrays.unwrap("class_counts", _arrays.in_output_order("class_counts", class_counts))[0]
        counts = np.asarray(given, dtype=np.float64)
        seen = self._seen(counts, epochs)
        return np.asarray(seen / seen.sum())

    def _seen(self, counts: npt.NDArray[np.float64], epochs: int | None = None) -> npt.NDArray[np.float64]:
        """Return the shares that the optimiser saw; outputs that are a yes or no each need not sum to 1."""
        epochs = _MANY if epochs is None else epochs
        last = self.at(epochs, epochs)
        seen = counts > 0
        drawn = np.ones_like(counts)
        if self.refit is not None and self.refit.name in EVEN:
            drawn[seen] = 1 / counts[seen]
            return effective_prior(counts, sampling=drawn)
        if last.sampling is not None:
            shares = np.asarray(last.sampling.of(SAMPLING)(counts, (epochs - 1) / epochs), dtype=np.float64)
            drawn[seen] = shares[seen] / counts[seen]
        if last.synthesis is not None:
            drawn[seen] = 1 / counts[seen]
        weight = last._weights(counts)
        offset = None if self.offset is None else self._offset(counts, weight)
        if offset is None or self.activation == "softmax" or len(counts) < 3:
            return effective_prior(counts, weight=weight, sampling=drawn, offset=offset)
        shares = effective_prior(counts, weight=weight, sampling=drawn)
        return np.asarray(1 / (1 + (1 - shares) / shares * np.exp(offset)))

    def _label_prior(
        self, counts: npt.NDArray[np.float64], num_samples: int, epochs: int | None
    ) -> npt.NDArray[np.float64]:
        """Return the share of its positives that the optimiser saw of each label of many."""
        epochs = _MANY if epochs is None else epochs
        last = self.at(epochs, epochs)
        weight = None
        if last.weighs and last.weighting == "sample":
            raise ValueError(
                f"method {self.label!r} weighs samples by their labels, which leaves no prior that is known; "
                "set weighting='positive' or 'class', or leave adjustment out"
            )
        if last.weighs and last.weighting == "positive":
            if last.weight.name in SCHEMES:
                weight = positive_weights(
                    counts, num_samples, scheme=last.weight.name, **dict(last.weight.settings)
                )
            else:
                weight = _vector_of(last.weight, WEIGHTS, counts)
            weight = np.where((counts > 0) & (counts < num_samples), weight, 1.0)
        offset = None
        if self.offset is not None:
            offset = self._offset(counts, np.ones_like(counts) if weight is None else weight, num_samples)
        shift = logit_shift(
            counts, weight=weight, offset=offset, activation="sigmoid", num_samples=num_samples
        )
        shares: npt.NDArray[np.float64] = 1 / (1 + np.exp(shift))
        return shares

    def answered(self, class_counts: object, *, epochs: int | None = None) -> npt.NDArray[np.float64] | None:
        """Return the class shares that the logits of `adjust` answer for; None where they are not known.

        Args:
            class_counts: as for `prior`.
            epochs: as for `prior`.
        """
        unknown = self.scale or self.margin or self.reweighting or self.is_tuned
        if unknown or self.loss in MANY_LABELS or not (self.refit is None or self.refit.name in EVEN):
            return None
        prior = self.prior(class_counts, epochs=epochs)
        if self.adjustment is None:
            return prior
        if self.adjustment.name != "logit":
            return None
        rest = prior ** (1 - dict(self.adjustment.settings)["tau"])
        return np.asarray(rest / rest.sum())

    def adjust(
        self,
        logits: npt.NDArray[Any],
        class_counts: object,
        *,
        epochs: int | None = None,
        held_out: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
    ) -> npt.NDArray[Any]:
        """Return the logits that decide, after training.

        Args:
            logits: of the trained network, shape (N, C).
            class_counts: training samples per class, as for `longtail.class_weights`; of many labels with the
                number of samples, see `criterion`.
            epochs: of the whole training, as for `prior`.
            held_out: for a tuned adjustment, logits of samples that were held out of the training and their
                labels: never those of the test set.
        """
        if self.adjustment is None:
            return logits
        logits = _arrays.as_numpy("logits", logits)
        counts = _arrays.unwrap("class_counts", _arrays.in_output_order("class_counts", class_counts))[0]
        counts = np.asarray(counts)
        function = self.adjustment.of(ADJUSTMENTS)
        if "activation" in inspect.signature(function).parameters:
            function = partial(function, activation=self.activation)
        if self.is_tuned:
            function = partial(function, held_out=held_out)
        labels = getattr(class_counts, "num_samples", None)
        function = self._for_labels(function, labels, "adjustment")
        if labels is None:
            if self.smooth_to == "uniform":
                self._check_smoothing(counts.astype(np.float64))
            prior = self._seen(counts.astype(np.float64), epochs)
        else:
            prior = self._label_prior(counts.astype(np.float64), labels, epochs)
        adjusted = np.asarray(function(logits, counts, prior))
        if adjusted.shape != logits.shape:
            raise ValueError(
                f"adjustment {self.adjustment.name!r} made shape {adjusted.shape} of logits of shape "
                f"{logits.shape}; it must keep the shape"
            )
        return adjusted

    def _offset(
        self,
        counts: npt.NDArray[np.float64],
        weight: npt.NDArray[np.float64],
        num_samples: int | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return what the offset's rule adds to the logits, by how the loss reads them."""
        assert self.offset is not None
        function = self.offset.of(OFFSETS)
        if "activation" in inspect.signature(function).parameters:
            function = partial(function, activation=self.activation)
        return _checked_vector(
            self.offset, OFFSETS, self._for_labels(function, num_samples, "offset"), counts, weight
        )

    def _for_labels(self, function: Any, num_samples: int | None, place: str) -> Any:
        """Fill in the number of samples where a rule is asked of many labels a sample."""
        if num_samples is None:
            return function
        if "num_samples" not in inspect.signature(function).parameters:
            raise ValueError(
                f"{place} {getattr(self, place).name!r} of method {self.label!r} is for one class a sample, "
                f"and the counts are of many labels; leave {place} out"
            )
        return partial(function, num_samples=num_samples)

    # ---- as text

    def parts(self) -> dict[str, object]:
        """Return what decides the result, as JSON knows it: no name, no source, nothing at its default."""
        found: dict[str, object] = {}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default and not self._idle(name):
                found[name] = value.to_dict() if isinstance(value, Rule) else value
        return found

    def _idle(self, name: str) -> bool:
        """Whether a field does not act on the result."""
        return (
            name in ("name", "source")
            or (name == "gamma" and not self.is_focal)
            or (name == "weighting" and not self.weighs)
            or (name == "smooth_to" and not self.label_smoothing)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the method as JSON knows it; `from_dict` gives it back."""
        about = {name: value for name in ("name", "source") if (value := getattr(self, name))}
        return {**about, **self.parts()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Method:
        """Read what `to_dict` wrote, or a hand.

        Raises:
            ValueError: no object, an unknown key, or a value that the constructor refuses.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"a method must be an object of fields, got {_checks.describe(content)}")
        for key in content:
            _checks.choice("a method's field", key, tuple(_DEFAULTS))
        given: dict[str, Any] = dict(content)
        for place in _PLACES:
            if given.get(place) is not None:
                given[place] = Rule.from_dict(given[place])
        return cls(**given)

    @property
    def short_hash(self) -> str:
        """The first 6 hexadecimal digits of the sha256 of what decides the result."""
        canonical = json.dumps(self.parts(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:6]


_DEFAULTS: Final[dict[str, object]] = {f.name: f.default for f in fields(Method)}


@cache
def _try_refit(rule: Rule) -> None:
    try:
        import torch
    except ModuleNotFoundError:  # then nothing is trained, either
        return
    features, targets = torch.eye(3)[[0, 0, 0, 1, 1, 2]], torch.tensor([0, 0, 0, 1, 1, 2])
    rule.of(REFITS)(features, targets, torch.eye(3), torch.zeros(3))


def _check_name(place: str, name: str) -> None:
    if name not in _PLACES[place]:
        _checks.choice(place, name, _PLACES[place].names)


def _settings_of(function: Any) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    named = (p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        name for name in named if name not in ("seed", "activation", "held_out", "num_samples")
    )  # of a run


def _short(value: object) -> str:
    return (
        value.name if isinstance(value, Rule) else _number(value) if isinstance(value, float) else str(value)
    )


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))  # two settings never read alike


def _vector_of(
    rule: Rule, functions: Registry[Any], counts: npt.NDArray[Any], *others: object
) -> npt.NDArray[np.float64]:
    return _checked_vector(rule, functions, rule.of(functions), counts, *others)


def _checked_vector(
    rule: Rule, functions: Registry[Any], function: Any, counts: npt.NDArray[Any], *others: object
) -> npt.NDArray[np.float64]:
    values = np.asarray(function(counts, *others), dtype=np.float64)
    if values.shape != counts.shape or not np.isfinite(values).all():
        raise ValueError(
            f"{functions.argument} {rule.name!r} must give one finite number a class, got "
            f"{_checks.describe(values)}"
        )
    return values
