"""longtail train, evaluate and predict: one run, and what its model does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from longtail import _checks
from longtail.cli.sources import are_images, look_at_images, recipe_for
from longtail.cli.terminal import (
    Format,
    console,
    error_console,
    examples,
    harmless,
    print_csv,
    print_json,
    tell_place,
    write,
)
from longtail.evaluation import Evaluation, Interval, MultiLabelEvaluation
from longtail.evaluation.intervals import in_groups_text
from longtail.losses.forms import FORMS

if TYPE_CHECKING:
    from longtail.evaluation import PriorEstimate, SetRule
    from longtail.predict import Prediction
    from longtail.training.recipe import Recipe

PRIOR = "prior.json"


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE_OR_DATA",
            help="A recipe's .json file, a data set, or your images: a folder, a list, a table, hf:NAME.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default: one under runs/ named by the recipe.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A network; for images resnet50 | resnet101 | resnet152, a folder, a hub name."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE]",
            help="A way of balancing: longtail methods lists them; default: --scheme.",
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(help=f"{' | '.join(FORMS)}; default: softmax.")] = None,
    scheme: Annotated[
        str | None, typer.Option(help="none | inverse | inverse_sqrt | effective (default).")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="From 0 (no weights) to 1 (1 / n); default: digits 0.99, images 0.999."),
    ] = None,
    gamma: Annotated[float | None, typer.Option(help="Of the focal losses; default: 2.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; default: digits 100, images 30.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples in an update, over all processes; default: 64, of CIFAR 128.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The largest of the schedule; default: digits 0.1, images 0.025.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of images; default: 224.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random; default: 0.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Change any field; repeatable.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="For images: train adapters and a cosine head, freeze the rest.")
    ] = False,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="For images: train the head alone, a cosine head.")
    ] = False,
    label: Annotated[str | None, typer.Option(help="Of a table of images: the label column.")] = None,
    image: Annotated[str | None, typer.Option(help="Of a table of images: the column of files.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Of a table or a list: the folder below which the images lie.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Of a table of images or hf:NAME: a column whose equal values stay together."),
    ] = None,
    groups_from: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Finds the group in an image's path: what its parentheses match, or all."
        ),
    ] = None,
    device_batch: Annotated[
        int | None, typer.Option(help="For images: samples on a device at a time; more are accumulated.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard events into the run folder.")] = False,
) -> None:
    """One run; started again, it goes on where it was stopped. With images, also under torchrun.

    What you leave out is as in the recipe of the data set, and recipe.json in the run folder names all of it.
    """
    columns = {"label": label, "image": image, "root": root, "groups": group, "groups_from": groups_from}
    columns = {name: value for name, value in columns.items() if value is not None}
    listed = None
    if are_images(recipe) or (columns and recipe.startswith("hf:")):
        listed = look_at_images(recipe, **columns)
    if columns and listed is None:
        first = next(iter(columns))
        option = {"groups": "group", "groups_from": "groups-from"}.get(first, first)
        raise ValueError(f"--{option} is for images of your own, not for {recipe!r}; leave it out")
    from longtail.training.recipe import ImageRecipe

    options: dict[str, Any] = {
        **{"model": model, "method": method, "loss": loss, "scheme": scheme, "beta": beta, "gamma": gamma},
        **{"batch_size": batch_size, "learning_rate": learning_rate, "size": size, "seed": seed},
    }
    changes = {name: value for name, value in options.items() if value is not None}
    changes |= {"lora": True} if lora else {"freeze_backbone": True} if freeze_backbone else {}
    if method is not None:
        from longtail import methods

        changes["method"] = methods.get(method)
    chosen, source = _what_to_train(recipe, epochs, changes | dict(map(_field, set or [])))
    told = chosen.method.slug if "method" in chosen.to_dict() else f"{chosen.loss}-{chosen.scheme}"
    folder = out or Path("runs") / f"{chosen.dataset}-{told}-{chosen.short_hash}"
    shared: dict[str, Any] = {"device": device, "progress": True, "tensorboard": tensorboard}
    if isinstance(chosen, ImageRecipe):
        from longtail.training.finetune import finetune

        on_error = "skip" if skip_unreadable else "raise"
        source = listed if columns and listed is not None else source
        result = finetune(chosen, source, folder, device_batch=device_batch, on_error=on_error, **shared)
    else:
        from longtail.training.loop import train as run

        if device_batch is not None or skip_unreadable:
            raise ValueError(
                f"--device-batch and --skip-unreadable are for images, not for {recipe!r}; leave them out"
            )
        result = run(chosen, folder, **shared)
    if os.environ.get("RANK", "0") == "0":  # one voice for all processes
        assert isinstance(result.evaluation, Evaluation)
        _print_evaluation(result.evaluation, None if listed is None else listed[0].class_names)
        if isinstance(chosen, ImageRecipe) and chosen.frozen:
            from longtail.training.folder import environment_of

            about = environment_of(folder)
            trained, whole = about["trained_parameters"], about["parameters"]
            console.print(f"trained {trained:,} of {whole:,} parameters ({trained / whole:.2%})")
        tell_place(f"run folder {folder}")


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="The folder of a finished run; of a comparison: its best method's first.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of its data; default: where they were.")] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Samples without labels (.npy, .npz with X, or a folder of images): estimates their class "
            "shares, which predict --prior estimated then takes.",
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="As they are, with a temperature, for equal class shares.")
    ] = False,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="f1|precision=FLOOR|cost=ALARM:MISS",
            help="Each class against the rest: the best threshold, and its worth out of fold.",
        ),
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves", help="Precision by recall and ROC per class; csv: every point.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """The errors of a finished run: per class and group, how sure they are, calibration."""
    from longtail.training.evaluate import evaluate_run

    asked = {
        "--unlabelled": unlabelled is not None,
        "--probabilities": probabilities,
        "--thresholds": thresholds is not None,
        "--curves": curves,
    }
    if sum(asked.values()) > 1:
        told = " and ".join(name for name, given in asked.items() if given)
        raise ValueError(f"{told} are asked for together; give one at a time")
    run = _one_run(run)
    for option in (name for name, given in asked.items() if given):
        _refuse_many_labels(
            run, option, f"longtail evaluate {run} without it shows what is known of each label"
        )
    if probabilities or curves or thresholds is not None:
        from longtail.cli.scores import print_curves, print_probabilities, print_thresholds

        if thresholds is not None:
            print_thresholds(run, data, thresholds, format)
        else:
            (print_curves if curves else print_probabilities)(run, data, format)
        return
    if unlabelled is not None:
        _print_prior(_estimated(run, unlabelled, data), run, format)
        return
    evaluation = evaluate_run(run, data)
    if isinstance(evaluation, MultiLabelEvaluation):
        from longtail.cli.scores import print_labels

        print_labels(run, evaluation, format)
    elif format is Format.json:
        print_json(evaluation.to_dict())
    elif format is Format.csv:
        rows = enumerate(
            zip(
                evaluation.class_counts,
                evaluation.per_class_error,
                evaluation.per_class_interval,
                evaluation.test_counts or [""] * len(evaluation.class_counts),
                strict=True,
            )
        )
        lines = [(i, n, "" if e is None else e, *(sides or ("", "")), m) for i, (n, e, sides, m) in rows]
        print_csv([("class", "count", "error", "error_low", "error_high", "test_samples"), *lines])
    else:
        from longtail.cli.scores import names_of, told_of_folds

        _print_evaluation(evaluation, names_of(run, len(evaluation.class_counts)))
        if folds := told_of_folds(run, evaluation.class_counts, "training samples"):
            console.print(folds, style="dim")


def predict(
    run: Annotated[
        Path, typer.Argument(help="The folder of a finished run; of a comparison: its best method's first.")
    ],
    sample: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLE",
            help="An image; a row of features as .npy; a skeleton clip as .npy, .npz, .mat or .txt.",
        ),
    ],
    top: Annotated[int, typer.Option(help="How many classes.", min=1)] = 5,
    sets: Annotated[
        float | None,
        typer.Option(metavar="COVERAGE", help="Mark the classes of a set that holds the right one so often."),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(help="estimated: decide for the class shares that evaluate --unlabelled found."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="For --sets: folder of the run's data; default: where they were.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """The classes, or the labels, of one image, row of features or clip, by a finished run's model."""
    from longtail.predict import Classifier

    run = _one_run(run)
    if sets is not None and prior is not None:
        raise ValueError(
            "--sets and --prior do not go together: sets hold for the shares of the test set"
            "; leave one of them out"
        )
    if prior is not None:
        _checks.choice("--prior", prior, ("estimated",))
    for option in ["--sets"] * (sets is not None) + ["--prior"] * (prior is not None):
        _refuse_many_labels(
            run, option, "without it predict gives each label from the threshold that the run chose"
        )
    _refuse_tables(run)
    classifier = Classifier(run)
    logits = classifier.logits(sample)
    if prior is not None:
        logits = _prior_of(run).adjust(logits[None])[0]
    answer = classifier.decide(logits)
    if answer.thresholds is not None:
        _print_given(answer, top, format)
        return
    if sets is None:
        chosen, marks = answer.top(top), None
    else:
        rule, tested = _set_rule(run, sets, data)
        held = rule(logits[None])[0].tolist()
        marks = {classifier.class_names[c] for c in held}
        chosen = [x for x in answer.top(len(answer.class_names)) if x[0] in marks]
        chosen += [x for x in answer.top(top) if x[0] not in marks]
    if format is Format.json:
        rows = [{"class": name, "probability": p} for name, p in chosen]
        print_json(rows if marks is None else [r | {"in_set": r["class"] in marks} for r in rows])
    elif format is Format.csv and marks is None:
        print_csv([("class", "probability"), *chosen])
    elif format is Format.csv:
        assert marks is not None
        lines = [(name, p, str(name in marks).lower()) for name, p in chosen]
        print_csv([("class", "probability", "in_set"), *lines])
    else:
        table = _columns("class", "probability")
        if marks is not None:
            table.add_column("in the set")
        for name, p in chosen:
            told = [] if marks is None else ["yes" if name in marks else ""]
            table.add_row(escape(name), f"{100 * p:.1f} %", *told)
        console.print(table)
        if marks is not None:
            what = (
                f"{len(marks)} of {len(answer.class_names)} classes" if marks else "no class is near enough"
            )
            line = f"{100 * sets:g} % set: {what}; limits from the run's {tested}"  # type: ignore[operator]
            console.print(f"{line}{f'; {rule.note}' if rule.note else ''}")


def _print_given(answer: Prediction, top: int, format: Format) -> None:
    """Print the labels of a sample: those given, and behind them the likeliest others, up to `top`."""
    assert answer.thresholds is not None
    given, cuts = {*answer.given}, dict(zip(answer.class_names, answer.thresholds.tolist(), strict=True))
    chosen = [x for x in answer.top(len(answer.class_names)) if x[0] in given]
    chosen += [x for x in answer.top(top) if x[0] not in given][: max(0, top - len(chosen))]
    rows = [(name, p, cuts[name], name in given) for name, p in chosen]
    head = ("label", "probability", "threshold", "given")
    if format is Format.json:
        print_json([dict(zip(head, row, strict=True)) for row in rows])
    elif format is Format.csv:
        print_csv([head, *((*row[:3], str(row[3]).lower()) for row in rows)])
    else:
        table = _columns("label", "probability", "threshold")
        table.add_column("given")
        for name, p, cut, here in rows:
            table.add_row(
                escape(harmless(name)), f"{100 * p:.1f} %", f"{100 * cut:.1f} %", "yes" if here else ""
            )
        console.print(table)
        console.print(
            f"{len(given)} of {len(answer.class_names)} labels given: each whose probability reaches its "
            "threshold, which the run chose on training samples"
        )


def _columns(first: str, *numbers: str) -> Table:
    """A table with a column of text and some of numbers."""
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _recipe_of(run: Path) -> Recipe | None:
    """The recipe of a run; None where it cannot be read: who reads the run says why."""
    from longtail.training.recipe import Recipe

    try:
        return Recipe.from_json((run / "recipe.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return None


def _refuse_many_labels(run: Path, option: str, remedy: str) -> None:
    recipe = _recipe_of(run)
    if recipe is not None and recipe.many_labels:
        raise ValueError(
            f"{option} is for one class a sample, and in the run {run} a sample may have several labels or "
            f"none; leave it out: {remedy}"
        )


def _refuse_tables(run: Path) -> None:
    """Say how a table's model is made where the run of one is asked for a prediction: none is kept."""
    from longtail.compare.answer import code_for
    from longtail.compare.runs import find_runs
    from longtail.compare.table import rows_of
    from longtail.training.folder import environment_of, is_of_table

    try:
        if not is_of_table(environment_of(run)):
            return
    except (OSError, ValueError):
        return  # who loads the run says what is damaged
    found, left_out = find_runs([run])
    if left_out:
        raise ValueError(f"the run {run} is {left_out[0].why}; put back a copy of what is damaged")
    (row,) = rows_of(found)
    labels = "; evaluate shows the thresholds from which the run gave each label" * row.recipe.many_labels
    raise ValueError(
        f"the run {run} is of a table, and keeps no model; fit it anew on your rows by {code_for(row)}, then "
        f"its predict_proba says the probabilities{labels}"
    )


def _one_run(folder: Path) -> Path:
    """A run's folder, or the best one of a comparison's, which is said."""
    from longtail.compare.runs import one_run

    found = one_run(folder)
    if found != folder:
        error_console.print(escape(f"{folder} is of a comparison; its run {found} is taken"))
    return found


def _set_rule(run: Path, coverage: float, data: Path | None) -> tuple[SetRule, str]:
    """The rule, and the samples that it is from."""
    from longtail.evaluation import fit_sets
    from longtail.training.evaluate import held_out

    remedy = "0.9 is customary"
    coverage = _checks.number("--sets", coverage, low=0, high=1, open_low=True, open_high=True, remedy=remedy)
    held = held_out(run, data, device="cpu")
    shared: dict[str, Any] = {"alpha": 1 - coverage, "counts": held.counts, "activation": held.activation}
    groups = None if held.groups is None else len(np.unique(held.groups))
    tested = f"{len(held.labels)} test samples{in_groups_text(groups)}"
    return fit_sets(held.logits, held.labels, groups=held.groups, **shared), tested


def _estimated(run: Path, unlabelled: Path, data: Path | None) -> PriorEstimate:
    from longtail.evaluation import estimate_prior
    from longtail.predict import Classifier
    from longtail.training.evaluate import held_out

    held = held_out(run, data, device="cpu")
    logits = Classifier(run).many_logits(unlabelled)
    return estimate_prior(
        logits,
        held.counts,
        held_out_logits=held.logits,
        held_out_labels=held.labels,
        held_out_groups=held.groups,
    )


def _print_prior(found: PriorEstimate, run: Path, format: Format) -> None:
    from longtail.training.folder import environment_of

    place = write(run / PRIOR, json.dumps(found.to_dict(), indent=2) + "\n")
    names = environment_of(run).get("class_names") or range(len(found.prior))
    sides = found.interval or (None,) * len(found.prior)
    if format is Format.json:
        print_json(found.to_dict())
        return
    rows = zip(names, found.source_prior, found.prior, sides, strict=True)
    if format is Format.csv:
        lines = [(name, a, b, *(ends or ("", ""))) for name, a, b, ends in rows]
        print_csv([("class", "test_share", "share", "share_low", "share_high"), *lines])
        return
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(("class", "of the test set %", "of these samples %", "95 % interval")):
        table.add_column(name, justify="right" if i else "left")
    for name, a, b, ends in rows:
        table.add_row(escape(str(name)), f"{100 * a:.1f}", f"{100 * b:.1f}", _ends(ends))
    console.print(escape(found.verdict))
    console.print(table)
    tell_place(f"kept in {place}, for longtail predict --prior estimated")


def _prior_of(run: Path) -> PriorEstimate:
    from longtail.evaluation import PriorEstimate

    try:
        return PriorEstimate.from_dict(_checks.parse_json((run / PRIOR).read_bytes(), PRIOR))
    except FileNotFoundError:
        raise ValueError(
            f"{run} has no estimated prior; longtail evaluate {run} --unlabelled FILE makes one"
        ) from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{run / PRIOR} is damaged ({error}); estimate it again") from None


def _what_to_train(name: str, epochs: int | None, changes: dict[str, Any]) -> tuple[Recipe, Any]:
    """The recipe, and for images where they are."""
    if epochs is not None and "epochs" in changes:
        raise ValueError("epochs is given twice, by --epochs and by --set; leave one of them out")
    from longtail.training import recipes
    from longtail.training.files import read_json

    path = Path(name)
    if name.startswith("hf:") or are_images(name):
        title = name.partition("hf:")[2] or (path.resolve().name if path.is_dir() else path.stem)
        given = {} if epochs is None else {"epochs": epochs}
        return recipes.images(title.replace("/", "-"), **given | changes), name
    chosen = recipe_for(name, also=", a folder or a list of images, hf:NAME or a recipe's .json file")
    if epochs is not None:
        if {"schedule", "milestones"} & changes.keys():  # they are meant for these epochs as they are
            changes = {"schedule": chosen.schedule} | changes
            chosen = chosen.replace(schedule="constant", milestones=())
        chosen = chosen.with_epochs(epochs)
    chosen = chosen.replace(**changes)
    if not isinstance(chosen, recipes.ImageRecipe):
        return chosen, None
    try:
        about = read_json(path.parent / "environment.json")
        source, arguments = os.fspath(about["source"]), dict(about.get("arguments", {}))
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"recipe {name!r} is for images, but no environment.json beside it says where they are; give the "
            "images, and the recipe's fields by --set"
        ) from None
    from longtail.datasets.images import load_again

    return chosen, load_again(arguments | {"source": source})


def _field(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set needs FIELD=VALUE, got {text!r}; such as --set warmup_epochs=2")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _print_evaluation(evaluation: Evaluation, names: Sequence[str] | None = None) -> None:
    from rich import box

    told = "\n".join([str(evaluation), *_surely(evaluation)])
    for kind, c in (("worst", evaluation.worst_class), ("rare", evaluation.rare_class)):
        if names is not None and c is not None:  # the table below has the names
            told = told.replace(f"{kind} class {c}", f"{kind} class {harmless(names[c])}")
    console.print(escape(told))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    sure = f"{100 * evaluation.confidence:g} % interval"
    for i, name in enumerate(("class", "training samples", "test samples", "error %", sure)):
        table.add_column(name, justify="right" if i or names is None else "left")
    tested = evaluation.test_counts or [None] * len(evaluation.class_counts)
    intervals = evaluation.per_class_interval
    rows = zip(evaluation.class_counts, tested, evaluation.per_class_error, intervals, strict=True)
    ordered = sorted(enumerate(rows), key=lambda item: -item[1][0])
    for i, (n, m, e, sides) in ordered[:50]:
        told = "n/a" if e is None else f"{100 * e:.1f}"
        name = str(i) if names is None else escape(harmless(names[i]))
        table.add_row(name, f"{n:,}", "" if m is None else f"{m:,}", told, _ends(sides))
    if len(ordered) > 50:
        table.add_row("...", f"{len(ordered) - 50} more")
    console.print(table)


def _surely(evaluation: Evaluation) -> Iterator[str]:
    """How sure the test set is of its means, and where it says little."""
    try:
        balanced, natural = evaluation.balanced_error_interval, evaluation.natural_error_interval
    except ModuleNotFoundError as error:
        yield str(error)
    else:
        if balanced is not None:
            sure = f"{100 * evaluation.confidence:g} % intervals from {evaluation.units_text}"
            parts = [f"balanced error {_ends(balanced)} %", f"natural error {_ends(natural)} %"]
            if (f1 := evaluation.macro_f1_interval) is not None:
                parts.append(f"macro-F1 {f1.low:.3f} to {f1.high:.3f}")
            yield f"{sure}: {', '.join(parts)}"
    if evaluation.log_loss is not None and evaluation.brier_score is not None:
        yield f"log-loss {evaluation.log_loss:.3f}, Brier score {evaluation.brier_score:.3f}"
    if evaluation.rare_class is not None:
        shares = {
            "recall": evaluation.rare_recall,
            "precision": evaluation.rare_precision,
            "average precision": evaluation.rare_average_precision,
            "ROC area": evaluation.rare_roc_auc,
        }
        told = ", ".join(f"{k} {'n/a' if v is None else f'{v:.3f}'}" for k, v in shares.items())
        yield f"rare class {evaluation.rare_class}: {told}"
    if evaluation.thin_text:
        yield f"{evaluation.thin_text}: their errors are little more than chance"


def _ends(sides: Interval | None) -> str:
    return "n/a" if sides is None else f"{100 * sides.low:.1f} to {100 * sides.high:.1f}"


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "longtail train digits --method logit_adjusted --out runs/digits",
            "longtail train photos/ --model resnet50 --epochs 30",
        )
    )(train)
    app.command(
        epilog=examples(
            "longtail evaluate runs/digits",
            "longtail evaluate runs/digits --thresholds precision=0.9",
            "longtail evaluate runs/digits --format csv",
        )
    )(evaluate)
    app.command(
        epilog=examples(
            "longtail predict runs/photos image.jpg --top 3",
            "longtail predict runs/photos image.jpg --sets 0.9",
        )
    )(predict)
