"""The published methods, one row each; a package of your own adds one by ``CATALOGUE.register``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from longtail import _checks
from longtail._registry import Registry
from longtail.losses.forms import FORMS
from longtail.methods.method import Method, Rule
from longtail.weights import DEFAULT_BETA, SCHEMES

__all__ = ["ABOUT", "CATALOGUE", "About", "code", "get", "grid", "needs"]

CATALOGUE: Final = Registry[Method]("method")


@dataclass(frozen=True)
class About:
    """What a reader wants to know of a method beside its source.

    Attributes:
        formula: what it computes: n the count of a class, p its share, w its weight, z the logits.
        usual: the setting that its authors use most.
        pitfall: one thing that goes wrong with it.
    """

    formula: str
    usual: str
    pitfall: str


ABOUT: Final[dict[str, About]] = {}

_ONLY_WEIGHTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("offset", "scale", "margin", "schedule", "sampling")),
    "cosine": 0.0,
    "prior_bias": "auto",
}

_CUI = "Cui et al. (CVPR 2019)"


def _row(method: Method, formula: str, usual: str, pitfall: str) -> None:
    CATALOGUE.register(method.name, method)
    ABOUT[method.name] = About(formula, usual, pitfall)


_row(
    Method("plain", source="no balancing"),
    "loss(z, y)",
    "-",
    "the best choice where test data are as long-tailed as the training data",
)
_row(
    Method("inverse", weight=Rule("inverse"), source=f"a baseline of {_CUI}, section 5"),
    "w = 1 / n",
    "-",
    "a class of a few samples gets a weight that makes training unstable",
)
_row(
    Method("inverse_sqrt", weight=Rule("inverse_sqrt"), source="Mahajan et al. (ECCV 2018)"),
    "w = 1 / sqrt(n)",
    "-",
    "only half of the way: the prior is still in the decisions",
)
_row(
    Method("effective", weight=Rule("effective"), source=f"{_CUI}, equation 12: the class-balanced loss"),
    "w = (1 - beta) / (1 - beta^n)",
    "beta 0.99 to 0.9999",
    "with beta far above 1 - 1/n of the smallest class it is inverse frequency, far below it does nothing",
)
_row(
    Method(
        "deferred_effective",
        weight=Rule("effective"),
        schedule=Rule("deferred"),
        source="Cao et al. (NeurIPS 2019): deferred re-weighting, CB-DRW",
    ),
    "w = 1, from 80 % of the epochs on (1 - beta) / (1 - beta^n)",
    "start 0.8, with a learning rate that has dropped before; its authors divide by the weights, "
    "normalizer=weights",
    "without a drop of the learning rate the switch gains little; a mean over samples, the default, becomes "
    "smaller at the switch, as most samples then weigh less than 1",
)
_row(
    Method("logit_adjusted", offset=Rule("log_prior"), source="Menon et al. (ICLR 2021), equation 10"),
    "loss(z + tau log p, y); with a sigmoid loss z + tau (log p - log(1 - p))",
    "tau 1",
    "decide by z alone: adding the offset in evaluation, too, undoes it",
)
_row(
    Method(
        "balanced_softmax",
        offset=Rule("log_prior"),
        source="Ren et al. (NeurIPS 2020): the same as logit_adjusted with tau 1",
    ),
    "loss(z + log n, y)",
    "-",
    "another name of logit_adjusted: do not count it twice",
)
_row(
    Method("posthoc_logit_adjusted", adjustment=Rule("logit"), source="Menon et al. (ICLR 2021), equation 9"),
    "plain training, then z - tau log p",
    "tau 1",
    "needs probabilities that are about right: an overfitted network is adjusted too far or too little",
)
_row(
    Method(
        "tuned_adjustment",
        adjustment=Rule("tuned_logit"),
        source="of this house: tau of Menon et al. (ICLR 2021), equation 9, chosen out of fold",
    ),
    "plain training, then z - tau log p, tau by held-out predictions",
    "tau from 0 to 2, the smallest within one standard error of the best",
    "for tables and features, where held-out predictions are made; in thin classes they say little",
)
_row(
    Method(
        "complementary",
        weight=Rule("effective"),
        offset=Rule("log_weighted_prior"),
        source="of this house, not published",
    ),
    "w loss(z + log(w n), y)",
    "beta as for effective",
    "the weight no longer moves the decisions: a wrong beta costs variance, and so does a right one",
)
_row(
    Method(
        "ldam",
        margin=Rule("ldam"),
        cosine=30.0,
        source="Cao et al. (NeurIPS 2019): label-distribution-aware margins",
    ),
    "loss(30 (cos - m_y onehot_y), y), m = 0.5 (n_min / n)^(1/4)",
    "largest margin 0.5, scale 30",
    "without a cosine head the margins mean nothing, as the logits grow past them",
)
_row(
    Method(
        "ldam_drw",
        margin=Rule("ldam"),
        cosine=30.0,
        weight=Rule("effective"),
        schedule=Rule("deferred"),
        source="Cao et al. (NeurIPS 2019): the same with deferred weights",
    ),
    "as ldam, from 80 % of the epochs on with w = (1 - beta) / (1 - beta^n)",
    "as ldam, start 0.8, beta 0.9999",
    "as deferred_effective: it wants a learning rate that has dropped",
)
_row(
    Method(
        "vs",
        offset=Rule("log_prior"),
        scale=Rule("class_dependent_temperature"),
        source="Kini et al. (NeurIPS 2021): the vector-scaling loss",
    ),
    "loss(s z + tau log p, y), s = (n / n_max)^gamma",
    "gamma 0.2, tau 1",
    "two settings, of which the better pair differs from data set to data set",
)
_row(
    Method(
        "cdt",
        scale=Rule("class_dependent_temperature"),
        source="Ye et al. (2020): class-dependent temperatures",
    ),
    "loss(s z, y), s = (n / n_max)^gamma",
    "gamma 0.2",
    "the prior stays in the decisions as far as the features overlap",
)
_row(
    Method("class_aware", sampling=Rule("inverse"), source="Shen et al. (ECCV 2016)"),
    "each class drawn as often",
    "-",
    "a class of ten images is seen as often as one of a thousand, and is learned by heart",
)
_row(
    Method("sqrt_sampling", sampling=Rule("inverse_sqrt"), source="Mahajan et al. (ECCV 2018)"),
    "a class drawn in proportion to sqrt(n)",
    "-",
    "only half of the way: the prior is still in the decisions",
)
_row(
    Method(
        "progressive_sampling",
        sampling=Rule("progressive"),
        source="Kang et al. (ICLR 2020): progressively-balanced sampling",
    ),
    "from the data's shares to equal ones, epoch by epoch",
    "-",
    "depends on the number of epochs: a trial of fewer is another method",
)
_row(
    Method(
        "deferred_sampling",
        sampling=Rule("inverse"),
        schedule=Rule("deferred"),
        source="Cao et al. (NeurIPS 2019): deferred re-sampling, DRS",
    ),
    "a shuffle, from 80 % of the epochs on each class drawn as often",
    "start 0.8",
    "as for deferred_effective",
)
_row(
    Method(
        "oversampling",
        sampling=Rule("oversampling"),
        source="Buda et al. (Neural Networks 2018): random over-sampling",
    ),
    "copies of the small classes' samples until all are as large as the largest",
    "-",
    "with epochs of the same length it is class_aware under another name: do not count it twice",
)
_row(
    Method(
        "undersampling",
        sampling=Rule("undersampling"),
        source="Buda et al. (Neural Networks 2018): random under-sampling",
    ),
    "of each class as many samples as the smallest has, the same in every epoch",
    "-",
    "throws away most of the data: with a class of ten samples it trains on ten of each",
)
_row(
    Method(
        "smote",
        synthesis=Rule("smote"),
        source="Chawla et al. (JAIR 2002): synthetic minority over-sampling, by imbalanced-learn",
    ),
    "x + u (x' - x), x' one of the k nearest of the same class, until all are as large as the largest",
    "k_neighbors 5, fewer in a class that has no more",
    "for tables and features; invents nothing outside the samples it has, and moves probabilities to a "
    "uniform prior",
)
_row(
    Method("mixup", mixing=Rule("mixup"), source="Zhang et al. (ICLR 2018)"),
    "loss(z(b x + (1 - b) x'), b y + (1 - b) y'), b from Beta(alpha, alpha)",
    "alpha 1, with long trainings; 0.2 with short ones",
    "the prior stays in the decisions: it is a start for a second stage, not a balancing",
)
_row(
    Method(
        "learning_to_reweight",
        reweighting=Rule("learning_to_reweight"),
        source="Ren et al. (ICML 2018), equation 12",
    ),
    "w_i = max(0, <gradient of sample i, gradient of a balanced part of the training set>)",
    "10 samples a class in the balanced part, as many as the smallest class has at most",
    "a balanced part from outside the training set is more data than other methods see; costs three times "
    "as much a step",
)
_row(
    Method(
        "crt",
        refit=Rule("classifier_retraining"),
        source="Kang et al. (ICLR 2020): classifier re-training",
    ),
    "plain training, then a new last layer on the features by class-aware sampling",
    "10 to 30 epochs",
    "the features of the training samples look better than those of new ones",
)
_row(
    Method(
        "label_aware_smoothing",
        refit=Rule("label_aware_retraining"),
        source="Zhong et al. (CVPR 2021), equation 6: crt with label-aware smoothing",
    ),
    "as crt, with targets smoothed by 0.3 for the largest class down to 0 for the smallest",
    "0.2 to 0.4 for the largest class, 0 to 0.1 for the smallest",
    "as crt",
)
_row(
    Method(
        "mislas",
        mixing=Rule("mixup"),
        refit=Rule("label_aware_retraining"),
        source="Zhong et al. (CVPR 2021): MiSLAS without its shifted batch norm, and with a new last layer",
    ),
    "mixup, then as label_aware_smoothing",
    "as mixup and label_aware_smoothing",
    "two stages with three settings, each of which moves the result",
)
_row(
    Method(
        "tau_norm",
        refit=Rule("tau_normalisation"),
        source="Kang et al. (ICLR 2020): tau-normalized classifier",
    ),
    "plain training, then w_c / |w_c|^tau, no bias",
    "tau 0.7 to 1",
    "does nothing where the lengths of the weights do not follow the counts",
)
_row(
    Method("ncm", refit=Rule("nearest_class_mean"), source="Kang et al. (ICLR 2020): nearest class mean"),
    "plain training, then the class whose mean feature is nearest",
    "-",
    "its logits are no log-probabilities: do not adjust or calibrate them",
)
_row(
    Method("asymmetric", loss="asymmetric", source="Ridnik et al. (ICCV 2021): asymmetric loss"),
    "(1 - p)^1 -log p of a label that is there, q^4 -log(1 - q) of one that is not, q = max(p - 0.05, 0)",
    "gamma_neg 4, gamma_pos 1, clip 0.05",
    "for many labels a sample alone; its probabilities are too high by design: choose thresholds",
)
_row(
    Method(
        "distribution_balanced",
        loss="distribution_balanced",
        source="Wu et al. (ECCV 2020): distribution-balanced loss",
    ),
    "each label weighs by how rare it is beside the others of its sample; easy negatives are forgiven",
    "map alpha 0.1, beta 10, mu 0.2; neg_scale 2",
    "for many labels a sample alone; it does what class weights do, so give it none",
)


def get(name: str, **settings: object) -> Method:
    """Return a method of the catalogue, with some settings of your own.

    Args:
        name: one of ``longtail.methods.NAMES``, or with settings behind colons, as on the command line:
            ``"effective:beta=0.99"``.
        **settings: fields of `Method`, such as ``loss="focal"``, or settings of its rules, such as
            ``beta=0.99``.

    Returns:
        The method.

    Raises:
        ValueError: no such method or setting, or a value out of range.

    Example:
        >>> get("effective", beta=0.99, loss="focal").weight
        Rule('effective', beta=0.99)
        >>> get("effective:beta=0.99") == get("effective", beta=0.99)
        True
    """
    if not isinstance(name, str):
        raise TypeError(
            f"method must be a name, got {name!r}; longtail.methods.NAMES are those that there are"
        )
    name, *told = name.split(":")
    given: dict[str, object] = {}
    for text in told:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(
                f"method {name!r}: a setting is written name=value, got {text!r}; write beta=0.99"
            )
        if key in given:
            raise ValueError(f"method {name!r}: {key} is given twice; leave one out")
        given[key] = _read(value)
    if name in FORMS and name not in CATALOGUE:
        hint = f"; a loss is a setting of a method, plain:loss={name} or effective:loss={name}"
        _checks.choice("method", name, CATALOGUE.names, hint=hint)
    return CATALOGUE[name].with_settings(**{**given, **settings})


def code(method: Method) -> str:
    """Return the line of Python that makes a method; `labels` are the training labels of your program.

    Args:
        method: any method.

    Example:
        >>> code(get("posthoc_logit_adjusted"))
        'logits = longtail.adjust_logits(logits, longtail.class_counts(labels))'
    """
    counts = "longtail.class_counts(labels)"
    if (
        method == method.training
        and method == method.replace(**_ONLY_WEIGHTS)
        and method.weight.name in SCHEMES
    ):
        words = [f'loss="{method.loss}"', f'scheme="{method.weight.name}"']
        words += [f"{name}={value!r}" for name, value in method.weight.settings]
        words += [f'weighting="{method.weighting}"'] * (method.weighting != "sample" and method.weighs)
        words += [f"gamma={method.gamma!r}"] * method.is_focal
        words += [f'normalizer="{method.normalizer}"'] * (method.normalizer != "samples")
        words += [f"label_smoothing={method.label_smoothing!r}"] * bool(method.label_smoothing)
        smoothed = method.label_smoothing and method.smooth_to != "uniform"
        words += [f'smooth_to="{method.smooth_to}"'] * bool(smoothed)
        return f"criterion = longtail.ClassBalancedLoss({counts}, {', '.join(words)})"
    if method == Method(adjustment=Rule("logit")):
        return f"logits = longtail.adjust_logits(logits, {counts})"
    name = method.name.partition(":")[0]
    if name in CATALOGUE:
        usual = CATALOGUE[name].settings
        changed = {k.rpartition(".")[2]: v for k, v in method.settings.items() if usual.get(k) != v}
        try:
            same = get(name, **changed) == method
        except ValueError:
            same = False
        if same:
            words = [f'"{name}"', *(f"{key}={value!r}" for key, value in changed.items())]
            return f"method = longtail.methods.get({', '.join(words)})"
    return f"method = longtail.methods.Method.from_dict({method.parts()!r})"


def needs(method: Method) -> str:
    """Return what has to be there for a method, in a few words.

    Example:
        >>> needs(get("crt"))
        'a network whose last layer is linear'
    """
    if method.many_labels:
        return "many labels a sample"
    if method.synthesis is not None:
        return "a table or features, and imbalanced-learn"
    if method.is_tuned:
        return "a table or features, of which predictions are held out"
    if method.mixing is not None or method.reweighting is not None:
        last = ", whose last layer is linear" if method.refit is not None else ""
        return f"a network{last}, trained in memory"
    if method.refit is not None:
        return "a network whose last layer is linear"
    if method.cosine:
        return "a network, which gets a cosine head"
    if method.schedule is not None or method.sampling == Rule("progressive"):
        return "a training by epochs"
    if method.offset is not None or method.scale is not None or method.margin is not None:
        return "a network"
    if method.adjustment is not None:
        return "a model that is trained"
    if method.sampling is not None:
        return "a training that takes a sampler, or a table"
    return "a training that takes class weights" if method.weighs else "nothing"


def _read(text: str) -> bool | int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def grid(
    losses: Iterable[str],
    schemes: Iterable[str],
    *,
    beta: float = float(DEFAULT_BETA),
    gamma: float = 2.0,
) -> tuple[Method, ...]:
    """Return every loss with every weighting, losses outermost: the paper's two axes.

    Args:
        losses: names of loss forms, such as "softmax".
        schemes: names of weight rules, such as "effective".
        beta: of the schemes that take one.
        gamma: of the focal losses.

    Returns:
        One method a pair.

    Raises:
        ValueError: an unknown loss or scheme, or a number out of range.

    Example:
        >>> [method.label for method in grid(["softmax"], ["none", "inverse"])]
        ['softmax none', 'softmax inverse']
    """
    schemes = list(schemes)
    weights = [Rule(scheme, beta=beta) if scheme == "effective" else Rule(scheme) for scheme in schemes]
    return tuple(Method(loss=loss, weight=weight, gamma=gamma) for loss in losses for weight in weights)
