"""longtail evaluate: what a run's scores are worth, and how well labels are found that are many a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from longtail import _checks
from longtail.cli.terminal import Format, console, harmless, print_csv, print_json
from longtail.compare.columns import GROUPS
from longtail.evaluation.intervals import THIN
from longtail.report.charts import cut

if TYPE_CHECKING:
    from longtail.evaluation import MultiLabelEvaluation
    from longtail.training.evaluate import HeldOut

_ROWS = 50  # classes that are printed
_LONG = 28  # letters of a name that are printed
_SHORTER = 24  # the same, beside more columns
_SHORT = ("many", "med.", "few")
_RECALLS = (0.5, 0.9)
_SPLIT = (
    "Measured on the run's test split; whatever you choose by it, confirm on data that chose nothing. "
    "With other class shares these numbers change."
)


def print_probabilities(run: Path, data: Path | None, format: Format) -> None:
    """Print what the probabilities are worth: as they are, with a temperature, for equal class shares."""
    from longtail.evaluation.probabilities import check_probabilities, reliability_gap

    held = _held(run, data)
    if held.activation != "softmax":
        raise ValueError(
            f"--probabilities needs a run whose loss is a softmax's, and {run} has independent outputs "
            f"({held.activation}); use --thresholds or --curves"
        )
    found = check_probabilities(
        held.logits, held.labels, held.class_counts, source=held.counts, groups=held.groups
    )
    if format is Format.json:
        print_json({name: e.to_dict() for name, e in found.items()})
        return
    head = ["probabilities", "log-loss", "Brier", "calibration %", *(f"{g}-shot %" for g in GROUPS)]
    head += ["error %", "balanced %"]
    rows: list[list[float | None]] = []
    for e in found.values():
        bins = e.group_reliability or ((), (), ())
        gaps = [reliability_gap(part) for part in bins]
        calibration = e.expected_calibration_error
        rows.append(
            [e.log_loss, e.brier_score, *(_times(x) for x in (calibration, *gaps, e.error, e.balanced_error))]
        )
    if format is Format.csv:
        print_csv([head, *([name, *map(_plain, row)] for name, row in zip(found, rows, strict=True))])
        return
    body = [
        [name, *(_number(x, 3 if i < 2 else 1) for i, x in enumerate(row))]
        for name, row in zip(found, rows, strict=True)
    ]
    short = ["probabilities", "log-loss", "Brier", "cal.", *_SHORT, "error", "bal."]
    console.print(_table(short, body))
    console.print(
        "cal.: how far confidence is from accuracy, on average, in %; many, med., few: over the samples "
        "taken for classes of that group; bal.: balanced error, %. The temperature is fitted out of fold. "
        "adjusted: for equal class shares; "
        f"right only where classes are as frequent as one another. {_SPLIT}",
        style="dim",
    )


def print_thresholds(run: Path, data: Path | None, rule: str, format: Format) -> None:
    """Print each class's best threshold against the rest, and its worth on samples that did not choose it."""
    from longtail.evaluation import tune_thresholds
    from longtail.evaluation.thresholds import class_shares

    chosen = _rule(rule)
    held = _held(run, data)
    shares = class_shares(held.logits, held.activation)
    truth = np.eye(shares.shape[1], dtype=np.int64)[held.labels]
    found = tune_thresholds(shares, truth, groups=held.groups, activation="identity", **chosen)
    names = _names(run, held)
    head = ["class", "training samples", "test samples", "threshold", "precision", "recall", "F1"]
    keys = ["class", "training_samples", "test_samples", "threshold", "precision", "recall", "f1"]
    worth = [found.precision, found.recall, found.f1]
    if found.cost:
        head, keys = [*head, "cost", "at 0.5"], [*keys, "cost", "plain_cost"]
        worth += [found.cost, found.plain_cost]
    tested = truth.sum(axis=0)
    about = [
        (names[c], held.class_counts[c], int(tested[c]), float(found.thresholds[c])) for c in _order(held)
    ]
    numbers = [[column[c] for column in worth] for c in _order(held)]
    rows: list[list[Any]] = [[*first, *rest] for first, rest in zip(about, numbers, strict=True)]
    if format is Format.json:
        print_json(
            {
                "rule": rule,
                "macro_f1": found.macro_f1,
                "plain_macro_f1": found.plain_macro_f1,
                "classes": [dict(zip(keys, row, strict=True)) for row in rows],
            }
        )
        return
    if format is Format.csv:
        print_csv([head, *(["" if x is None else x for x in row] for row in rows)])
        return
    body = [
        [name, f"{n:,}", f"{m:,}", _number(cut, 3), *(_number(x, 3) for x in rest)]
        for (name, n, m, cut), rest in zip(about, numbers, strict=True)
    ]
    console.print(_table(["class", "train", "test", *head[3:]], body))
    console.print(
        f"macro-F1 {_number(found.macro_f1, 3)}, at 0.5 everywhere {_number(found.plain_macro_f1, 3)}; each "
        "sample is decided by thresholds that others chose"
    )
    if found.cost:
        two = " Of two classes the rarer one's row is the decision." if len(names) == 2 else ""
        console.print(
            f"cost: of a sample on average, decided so, and at 0.5; each class against the rest.{two}",
            style="dim",
        )
    if found.thin:
        kept = "what the cost says" if "cost" in chosen else "0.5"
        thin = _checks.shorten([names[c] for c in found.thin])
        console.print(
            escape(f"too few test samples to choose by (fewer than 5), so they keep {kept}: {thin}")
        )
    console.print(_SPLIT, style="dim")


def print_curves(run: Path, data: Path | None, format: Format) -> None:
    """Print average precision and ROC area of each class, of the groups and of all; as CSV every point."""
    from longtail.evaluation import class_curves, macro_curves

    held = _held(run, data)
    found = class_curves(held.logits, held.labels, activation=held.activation)
    names = _names(run, held)
    if format is Format.csv:
        lines = [
            (names[c], *(f"{x:.6g}" for x in point))
            for c in _order(held)
            for point in zip(
                found[c].thresholds,
                found[c].precision,
                found[c].recall,
                found[c].false_positive_rate,
                strict=True,
            )
        ]
        print_csv([("class", "threshold", "precision", "recall", "false_positive_rate"), *lines])
        return
    means = {"all": macro_curves(found)}
    for g, name in enumerate(GROUPS):
        mine = [curve for curve, shot in zip(found, _shots(held), strict=True) if shot == g]
        means[f"{name}-shot"] = macro_curves(mine)
    if format is Format.json:
        print_json(
            {
                "grid": means["all"].grid.tolist(),
                "macro": {
                    name: {
                        "classes": m.classes,
                        "average_precision": m.average_precision,
                        "roc_auc": m.roc_auc,
                        "precision_at_recall": _listed(m.precision),
                        "recall_at_false_positive_rate": _listed(m.recall),
                    }
                    for name, m in means.items()
                },
                "classes": [
                    {"class": names[c], "average_precision": k.average_precision, "roc_auc": k.roc_auc}
                    for c, k in enumerate(found)
                ],
            }
        )
        return
    head = ["class", "train", "test", "av. precision", "ROC area", *(f"at {r:g}" for r in _RECALLS)]
    body = []
    for name, m in means.items():
        if not m.classes:
            body.append([f"{name}: n/a", *[""] * 6])
            continue
        at = [float(np.interp(r, m.grid, m.precision)) for r in _RECALLS]
        numbers = (m.average_precision, m.roc_auc, *at)
        body.append(
            ["mean of all" if name == "all" else f"mean of {name}", "", "", *(_number(x, 3) for x in numbers)]
        )
    for c in _order(held):
        curve = found[c]
        numbers = (curve.average_precision, curve.roc_auc, *curve.precision_at(_RECALLS).tolist())
        body.append(
            [names[c], f"{held.class_counts[c]:,}", f"{curve.positives:,}", *(_number(x, 3) for x in numbers)]
        )
    console.print(_table(head, body, more=len(means)))
    recalls = " and ".join(f"{r:g}" for r in _RECALLS)
    console.print(
        "train, test: samples of the class. Each class against the rest: area under precision by recall, "
        f"under the ROC curve, and precision at recall {recalls}; the means count each class once. "
        f"--format csv has every point. {_SPLIT}",
        style="dim",
    )


def print_labels(run: Path, found: MultiLabelEvaluation, format: Format) -> None:
    """Print the evaluation of many labels a sample: the means, how sure they are, and every label."""
    if format is Format.json:
        print_json(found.to_dict())
        return
    names = names_of(run, len(found.class_counts)) or [*map(str, range(len(found.class_counts)))]
    order = np.argsort(-np.asarray(found.class_counts), kind="stable").tolist()
    columns = (
        *(found.class_counts, found.positives, found.per_class_average_precision, found.per_class_f1),
        *(found.per_class_precision, found.per_class_recall, found.threshold),
    )
    rows = [(names[c], *(column[c] for column in columns)) for c in order]
    if format is Format.csv:
        head = ("label", "positives", "test_positives", "average_precision", "f1", "precision", "recall")
        print_csv([(*head, "threshold"), *(["" if x is None else x for x in row] for row in rows)])
        return
    console.print(str(found))
    sure = {
        "macro average precision": found.macro_average_precision_interval,
        "macro-F1": found.macro_f1_interval,
    }
    ends = [(name, sides) for name, sides in sure.items() if sides is not None]
    if ends:
        told = ", ".join(f"{name} {sides.low:.3f} to {sides.high:.3f}" for name, sides in ends)
        console.print(f"{100 * ends[0][1].confidence:g} % intervals from {found.units_text}: {told}")
    measures = _measures(run)
    if told := ", ".join(
        f"{word} {measures[name]:.3f}" for name, word in _MEASURES.items() if name in measures
    ):
        console.print(told)
    if thin := sum(n < THIN for n in found.positives):
        which = (
            f"{thin:,} of {len(names):,} labels {'has' if thin == 1 else 'have'} fewer than {THIN} positives"
        )
        console.print(f"{which} in the test samples: their numbers are little more than chance")
    body = [[name, f"{n:,}", f"{m:,}", *(_number(x, 3) for x in numbers)] for name, n, m, *numbers in rows]
    shown = ["label", "train", "test", "AP", "F1", "prec.", "recall", "threshold"]
    console.print(_table(shown, body, long=_SHORTER))
    console.print(
        "train, test: samples with the label; AP: average precision, the area under precision by recall; F1, "
        "precision and recall: where a label is given from its threshold on, which no test sample chose"
        f"{'; ' * bool(folds := told_of_folds(run, found.class_counts, 'train'))}{folds}",
        style="dim",
    )


def told_of_folds(run: Path, counts: Sequence[int], column: str) -> str:
    """Say that training samples are those of all folds, where a run counts them so; else nothing."""
    from longtail.training.files import read_json
    from longtail.training.folder import environment_of

    every = environment_of(run).get("class_counts")
    folds = read_json(run / "recipe.json").get("folds")
    if not folds or every != [*counts]:
        return ""
    return f"{column}: those of all {folds} folds together, which decide the shot groups"


_MEASURES = {"log_loss": "log-loss of a label", "macro_f1_at_half": "macro-F1 at 0.5"}


def _measures(run: Path) -> dict[str, float]:
    """What a comparison measured of a run beyond its evaluation."""
    from longtail.training.folder import environment_of

    found = environment_of(run).get("measures")
    return found if isinstance(found, dict) else {}


def names_of(run: Path, classes: int) -> list[str] | None:
    """Return the names of a run's classes; None where it does not say them."""
    from longtail.training.folder import environment_of

    names = environment_of(run).get("class_names")
    return [str(n) for n in names] if isinstance(names, list) and len(names) == classes else None


def _held(run: Path, data: Path | None) -> HeldOut:
    from longtail.training.evaluate import held_out

    return held_out(run, data, device="cpu")


def _names(run: Path, held: HeldOut) -> list[str]:
    size = len(held.class_counts)
    return names_of(run, size) or [*map(str, range(size))]


def _order(held: HeldOut) -> list[int]:
    """The classes from head to tail."""
    found: list[int] = np.argsort(-np.asarray(held.class_counts), kind="stable").tolist()
    return found


def _shots(held: HeldOut) -> list[int]:
    from longtail.evaluation.reading import Classes

    classes = Classes(np.asarray(held.class_counts))
    return [int(group) for group in classes.groups(classes.shots(None, None))]


def _rule(text: str) -> dict[str, Any]:
    """Read f1, precision=0.9 or cost=1:10 as arguments of `tune_thresholds`."""
    by, _, value = text.partition("=")
    remedy = (
        "--thresholds must be f1, precision=FLOOR such as precision=0.9, or cost=ALARM:MISS such as cost=1:10"
    )
    try:
        if by == "f1" and not value:
            return {"by": by}
        if by == "precision":
            floor = _checks.number("--thresholds precision", float(value), low=0, high=1, open_low=True)
            return {"by": by, "floor": floor}
        if by == "cost":
            parts = [
                _checks.number("--thresholds cost", float(part), low=0, open_low=True, open_high=True)
                for part in value.split(":")
            ]
            if len(parts) != 2:
                raise ValueError(f"cost must be two numbers, got {len(parts)}")
            return {"by": by, "cost": tuple(parts)}
    except ValueError as error:
        raise ValueError(f"{remedy}; got {text!r} ({error})") from None
    raise ValueError(f"{remedy}; got {text!r}")


def _table(head: Sequence[str], body: Sequence[Sequence[str]], more: int = 0, long: int = _LONG) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, title in enumerate(head):
        table.add_column(title, justify="right" if i else "left", no_wrap=True)
    for i, row in enumerate(body[: _ROWS + more]):
        table.add_row(escape(cut(harmless(row[0]), long)), *row[1:], end_section=i + 1 == more)
    if len(body) > _ROWS + more:
        table.add_row(f"... {len(body) - _ROWS - more} more")
    return table


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _times(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _listed(values: Iterable[float]) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.6g}") for v in values]
