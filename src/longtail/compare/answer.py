"""What a comparison says to do: the method, how sure, what it costs, the code, where more data would help."""

from __future__ import annotations

from typing import Final

import numpy as np

from longtail.compare.row import Row
from longtail.compare.table import ComparisonTable
from longtail.evaluation import interval_text, wilson_interval
from longtail.evaluation.intervals import in_independent_text
from longtail.evaluation.statistics import signed
from longtail.methods import SYNTHESES, Method, Rule, code

__all__ = ["answer", "code_for", "more_runs", "plain_words", "thin_classes"]

ESTIMATORS: Final = {
    "logistic_regression": "LogisticRegression(max_iter=1000)",
    "hist_gradient_boosting": "HistGradientBoostingClassifier(l2_regularization=1.0, early_stopping=False)",
    "lightgbm": "LGBMClassifier(reg_lambda=1.0)",
    "xgboost": "XGBClassifier()",
    "catboost": "CatBoostClassifier(iterations=200)",
}
_SAMPLERS: Final = {
    "oversampling": "RandomOverSampler",
    "inverse": "RandomOverSampler",
    "undersampling": "RandomUnderSampler",
}


def answer(table: ComparisonTable) -> list[str]:
    """Return the answer, a line each: which method, how sure, the cost, the code, where data would help.

    Only a method that beats its own baseline after the correction is recommended, the best of them; else the
    plain one.
    """
    metric = table.metric
    best = table.surest(metric)
    plain = table.plainest(metric)
    use = best or plain or table.best
    if use is None:
        return []
    scale, digits, title = table.decides.scale, table.decides.digits, table.decides.in_words
    lines = [f"Use: {plain_words(use) if use.is_plain else use.in_words}."]
    if best is not None and table.best is not None and best is not table.best:
        lines[0] += f" {table.best.short_name} has the better mean, and is less sure to help."
    lines += _beware(table)
    if best is not None and (d := best[metric].total) is not None:
        text = f"{title} {interval_text(d, scale, digits)} against plain, {d.n} {table.unit}s"
        if (on_test := best[metric].on_test) is not None:
            text += f" and {table.tested(on_test.samples)}"
        lines.append(f"How sure: {text}; more than chance{table.corrected()}.")
    elif use.is_plain and table.tests and not any(row[metric].sure for row in table.shown):
        lines.append(f"How sure: not at all, with one run only{_on_test_alone(table)}; {more_runs(table)}.")
    elif use.is_plain and table.tests:
        lines.append(f"How sure: no method differs from plain in {title} by more than chance.")
    else:
        plains = [row for row in table.rows if row.is_plain]
        why = "with one run only" if plains else "without a plain run to compare with; add the method plain"
        if plains and not any(row.outcomes for row in plains):
            why = "as the plain runs failed, with which the others are compared"
        elif plains and all(row.is_plain for row in table.rows):
            why = "as plain is compared with no method that balances; add one, such as effective"
        lines.append(f"How sure: not at all, {why}.")
    if best is not None and not table.many_labels and (base := table.baseline(best)) is not None:
        cost = table.paired(best, base, "natural_error")
        ours, theirs = best["natural_error"].summary, base["natural_error"].summary
        if cost is not None and ours is not None and theirs is not None:
            lines.append(
                f"Cost: where classes are as frequent as in training, the error goes from "
                f"{100 * theirs.mean:.1f} % to {100 * ours.mean:.1f} % ({interval_text(cost)})."
            )
    lines.append(f"Code: {code_for(use)}")
    if table.many_labels:
        lines += [f"Decide: {_THRESHOLDS}", _least_known(table)]
    elif thin := thin_classes(table, use):
        lines.append(f"More data would help most for: {'; '.join(thin)}.")
    return lines


def plain_words(row: Row) -> str:
    """How a sentence names a row that does not balance: a table's learner, or a loss."""
    return f"plain {row.recipe.model}" if row.recipe.model in ESTIMATORS else row.plain_words


def more_runs(table: ComparisonTable) -> str:
    """What says more where there is one run a method: folds of a table, which is learned once, or seeds."""
    if table.recipe.model in ESTIMATORS:
        return "folds, which are cut where no test set is given, say more"
    return "more seeds say more"


def _on_test_alone(table: ComparisonTable) -> str:
    """What the test samples alone say of the best row that balances, where there is one run of each."""
    rows = [row for row in table.shown if not row.is_plain and row[table.metric].on_test is not None]
    best = table.lowest(rows=rows)
    if best is None or (on_test := best[table.metric].on_test) is None:
        return ""
    low, high = (signed(100 * x, 1) for x in on_test.interval)
    difference = signed(100 * on_test.difference, 1)
    return (
        f". Over {table.tested(on_test.samples)} alone {best.short_name} differs from plain by {difference} "
        f"[{low}, {high}] points"
    )


def _beware(table: ComparisonTable) -> list[str]:
    """Say so where a plain training undid itself: what is gained on it is no gain of balancing."""
    lines = []
    for row in table.shown:
        if row.is_plain and (bad := sum(o.environment.get("undone") is True for o in row.outcomes)):
            lines.append(
                f"Beware: plain {row.recipe.model} does not fit its own training rows in {bad} of "
                f"{len(row.outcomes)} {table.unit}s: it is sure of wrong classes there. Gains on it say "
                "little about balancing; first mend its settings, of boosted trees an L2 of 1."
            )
    return lines


def code_for(row: Row) -> str:
    """Return the code that does what a row did, for the stack that it was done in."""
    method, estimator = row.method, ESTIMATORS.get(row.recipe.model)
    if row.recipe.many_labels:
        return _code_of_labels(row, estimator)
    if estimator is None:
        return _code_of_loop(method)
    if not method.balances:
        return f"{estimator}.fit(X, y)"
    if method == Method(weight=method.weight):
        return f"ClassBalancedClassifier({estimator}, {_weighing(method)}).fit(X, y)"
    if method == Method(adjustment=Rule("logit")):
        return f"PriorAdjustedClassifier({estimator}).fit(X, y)"
    if method == Method(adjustment=Rule("tuned_logit")):
        return f'PriorAdjustedClassifier({estimator}, tau="tune").fit(X, y)'
    if method == Method(synthesis=method.synthesis) and method.synthesis == Rule("smote").filled(SYNTHESES):
        steps = f"StandardScaler(), {_smote_for(row)}, {estimator}"
        return f"imblearn.pipeline.make_pipeline({steps}).fit(X, y)"
    if method.sampling is not None and method.sampling.name in _SAMPLERS:
        sampler = f"imblearn.over_sampling.{_SAMPLERS[method.sampling.name]}()"
        if "Under" in sampler:
            sampler = sampler.replace("over_sampling", "under_sampling")
        return f"imblearn.pipeline.make_pipeline({sampler}, {estimator}).fit(X, y)"
    return code(method)


def _code_of_loop(method: Method) -> str:
    """The code of a loop of your own; labels are those of all training samples."""
    to_prior = method.label_smoothing and method.smooth_to == "prior"
    if method == method.plain and method.loss == "softmax" and not to_prior:
        smoothing = f"label_smoothing={method.label_smoothing!r}" if method.label_smoothing else ""
        return f"criterion = torch.nn.CrossEntropyLoss({smoothing})"
    text, counts = code(method), "longtail.class_counts(labels)"
    made = text.removeprefix("method = ")
    if made == text or method != method.training:
        return text
    if method.schedule is not None:
        step = "method.at(epoch, epochs)"
        drawn = (
            f"sampler = {step}.sampler(labels)"
            if method.sampling
            else f"criterion = {step}.criterion({counts})"
        )
        return f"{text}; in each epoch {drawn}"
    if method.sampling is not None:
        return f"sampler = {made}.sampler(labels)"
    if any((method.synthesis, method.mixing, method.reweighting)):
        return text
    return f"criterion = {made}.criterion({counts})"


_THRESHOLDS: Final = (
    "longtail.evaluation.tune_thresholds(scores, Y).thresholds, of scores and labels that no training saw"
)


def _smote_for(row: Row) -> str:
    """The sampler, with fewer neighbours where a class has no more: imbalanced-learn would refuse it."""
    smallest = min(n for o in row.outcomes for n in o.result.class_counts if n > 0)
    if smallest == 1:  # of which there are copies alone
        return "imblearn.FunctionSampler(func=longtail.methods.synthesis.smote)"
    few = f"k_neighbors={smallest - 1}" if smallest <= 5 else ""
    return f"imblearn.over_sampling.SMOTE({few})"


def _weighing(method: Method) -> str:
    words = [f'scheme="{method.weight.name}"', *(f"{k}={v!r}" for k, v in method.weight.settings)]
    return ", ".join(words)


def _code_of_labels(row: Row, estimator: str | None) -> str:
    """The code of many labels; Y and labels are the training rows of 0 and 1."""
    method, counts = row.method, "longtail.class_counts(labels)"
    if estimator is not None:
        if method.weighs and method.weighting == "sample":
            return (
                f"weight = longtail.class_weights(longtail.class_counts(Y), {_weighing(method)}).weights; "
                f"MultiOutputClassifier({estimator}).fit(X, Y, sample_weight=numpy.where(Y.any(axis=1), "
                "Y @ weight / Y.sum(axis=1).clip(1), 1))"
            )
        if method.weighs:
            estimator = f"ClassBalancedClassifier({estimator}, {_weighing(method)})"
        elif method.adjustment is not None:
            estimator = f"PriorAdjustedClassifier({estimator}{_tau(method)})"
        return f"MultiOutputClassifier({estimator}).fit(X, Y)"
    if method == method.plain and method.loss == "sigmoid":
        text = "criterion = torch.nn.BCEWithLogitsLoss()"
        return f"{text}; in a Trainer {_TRAINER} takes it by itself"
    if method.adjustment is not None:
        return (
            f"counts = {counts}; logits = longtail.adjust_logits(logits, counts{_tau(method)}, "
            'activation="sigmoid", num_samples=counts.num_samples)'
        )
    text = code(method)
    if text.startswith("method = "):
        text = f"criterion = {text.removeprefix('method = ')}.criterion({counts})"
    return f"{text}; in a Trainer {_TRAINER}, and compute_loss_func=trainer_loss(criterion)"


_TRAINER: Final = 'problem_type="multi_label_classification" of the model\'s configuration'


def _tau(method: Method) -> str:
    assert method.adjustment is not None
    tau = dict(method.adjustment.settings).get("tau", 1.0)
    return "" if tau == 1.0 else f", tau={tau!r}"


def _least_known(table: ComparisonTable, most: int = 3) -> str:
    counts, names = table.class_counts, table.class_names
    rarest = [f"{names[c]} ({counts[c]:,} positives)" for c in table.order[::-1][:most]]
    return f"Least is known of: {', '.join(rarest)}; more data would help there most."


def thin_classes(table: ComparisonTable, row: Row, most: int = 3) -> list[str]:
    """Return the classes whose error is least known, each with its interval over the test samples."""
    once = table.recipe.folds or 1  # one repetition: later ones test the same samples again
    confusion = [o.result.confusion for o in row.outcomes[:once]]
    if not confusion or any(c is None for c in confusion):
        return []
    counts = np.sum(np.asarray(confusion), axis=0)
    groups = table.single.units if table.single.num_groups is not None else None
    found = []
    for c, tested in enumerate(counts.sum(1).tolist()):
        if tested:
            wrong = int(tested - counts[c, c])
            units, many = (tested, "") if groups is None else (groups[c], in_independent_text(groups[c]))
            interval = wilson_interval(wrong / tested * units, units)
            assert interval is not None
            low, high = interval.low, interval.high
            digits = int(high - low < 0.05)
            sure = f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"
            found.append((high - low, f"{table.class_names[c]} ({wrong} of {tested} wrong{many}, {sure})"))
    found.sort(key=lambda pair: -pair[0])
    return [text for width, text in found[:most] if width > found[0][0] / 4]  # others are known well
