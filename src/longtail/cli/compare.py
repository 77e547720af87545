"""longtail compare: the main job, and its tables, picture and page."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from longtail.cli.sources import are_images, look_at_images, recipe_for
from longtail.cli.terminal import as_options, console, error_console, examples, tell_place, write

_EVERY = 30.0  # seconds between two lines
_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_FEATURES = (".npz", ".parquet", ".pq")


def compare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set that longtail knows; pictures: a folder, a list, hf:NAME, a table with --image; "
            "a table with --label; or features (.npz, .parquet)."
        ),
    ] = "digits",
    label: Annotated[
        str | None,
        typer.Option(help="Of a table or hf:NAME: the column of the class, or of labels with --separator."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Of a table with many labels a row: columns of 0 and 1, one a label; 'is_*' is a pattern.",
        ),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Of the same: what parts several labels in one field, such as '|'.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Of a table, of pictures too, or hf:NAME: a column whose equal values stay together."
        ),
    ] = None,
    groups_from: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Of pictures: finds the group in a path: what parentheses match, or all."
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Of a table of pictures or hf:NAME: the column of the pictures.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Of a table or list of pictures: the folder below which they lie.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Of a table: another one, the test set; default: folds.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Of a table: leave a column out; repeatable.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Of a table: take a column in, whatever it looks like; repeatable."),
    ] = None,
    learner: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a table: hist_gradient_boosting (default) | logistic_regression | lightgbm | xgboost | "
            "catboost; repeatable. Of features: linear | mlp."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What decides, such as macro_f1; default: balanced_error of your data, of many labels "
            "macro_average_precision, else error."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Of a table: parts tested in turn; default: min(5, smallest class)."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Of a table: how often the folds are drawn anew.")] = 5,
    imbalance: Annotated[
        float | None,
        typer.Option(help="Largest over smallest class; default 50, data of yours stay as they are."),
    ] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option(help="With every --scheme, in place of methods; repeatable; default: methods."),
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="none | inverse | inverse_sqrt | effective, with every --loss; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE]",
            help="See longtail methods; MODULE:NAME for one of yours; repeatable; default: the usual ones.",
        ),
    ] = None,
    beta: Annotated[
        list[float] | None,
        typer.Option(
            help="From 0 (no weights) to 1 (1 / n); repeatable; default: digits 0.99, else the recipe's."
        ),
    ] = None,
    volume: Annotated[
        list[float] | None, typer.Option(help="Beta as a number of samples N: beta = 1 - 1/N; repeatable.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of pictures: compare heads on this model's features.")
    ] = None,
    gamma: Annotated[float | None, typer.Option(help="Of the focal loss; default: the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every run; default: the recipe's.")] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each method, default 5; of folds it is --repeats.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Of a data set that longtail knows: the folder of its files.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; default: the number of cores.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default: one under runs/ named by the settings.")
    ] = None,
) -> None:
    """Train with and without class balancing, several times each; one honest table and the answer."""
    from longtail import compare as comparing

    given: dict[str, Any] = {"imbalance_factor": imbalance, "gamma": gamma}
    given = {k: v for k, v in given.items() if v is not None}
    if method and (loss or scheme):
        raise ValueError("--method is given beside --loss or --scheme; leave one of the two out")
    sys.path.insert(0, "")  # where --method module:name is looked up, as python -m does
    columns: dict[str, Any] = {"image": image, "label": label, "root": root}
    told = [n for n, v in columns.items() if v is not None and n != "label"]
    columns |= {"groups": group, "groups_from": groups_from}
    kind = _kind(dataset, label or labels, features, told)
    if groups_from is not None and kind != "pictures":
        raise ValueError(
            f"--groups-from is for pictures, whose paths it reads; leave it out for {dataset!r}, or give "
            "--group of a table"
        )
    own_data = kind in ("table", "features") or features is not None
    betas = _betas(beta or [], volume or [])
    if len(betas) == 1 and not own_data:
        given["beta"] = betas[0]
    elif betas:
        if loss or scheme:
            raise ValueError(f"{len(betas)} values of --beta or --volume go with --method; leave out --loss")
        if not own_data:
            method = comparing.with_betas(method or comparing.MAIN, betas)
    if own_data and epochs is not None:
        raise ValueError("--epochs is for pictures and the data sets that longtail knows; leave it out")
    if data is not None and kind != "known":
        raise ValueError(f"--data is for the data sets that longtail knows; leave it out for {dataset!r}")
    what: dict[str, Any] = {"methods": method} if method else {"losses": loss, "schemes": scheme}
    what |= {"seeds": seeds, "device": device, "metric": metric}
    of_tables: dict[str, Any] = {"--test": test, "--drop": drop, "--keep": keep}
    of_tables |= {"--labels": labels, "--separator": separator}
    if kind != "pictures":
        of_tables |= {"--label": label, "--group": group}
    told = [name for name, value in of_tables.items() if value]
    if kind == "table":
        if not Path(dataset).exists():
            from longtail.sources.frames import READ

            raise ValueError(f"source {dataset!r} is no file; give {READ}")
        if label is None and labels is None:
            raise ValueError(
                f"{dataset!r} is a table; name the column of the class by --label, columns of 0 and 1 by "
                "--labels A,B, and the column of pictures, if it has one, by --image"
            )
        problem = comparing.Problem.from_table(
            *(dataset, label),
            labels=labels or (),
            separator=separator,
            groups=group,
            test=test,
            drop=drop or (),
            keep=keep or (),
        )
    elif told:
        what_for = "a table or for pictures" if told == ["--group"] else "a table, with --label"
        raise ValueError(f"{', '.join(told)} is for {what_for}; leave it out for {dataset!r}")
    elif kind == "features":
        problem = comparing.Problem.from_features(dataset)
    elif features is not None:
        problem = comparing.Problem.from_images(
            dataset, features, on_error="skip" if skip_unreadable else "raise", **columns
        )
    if own_data:
        if betas:
            method = comparing.with_betas(method or comparing.usual_methods(problem), betas)
            what["methods"] = method
        _compare_own(comparing, problem, what, given, learner, folds, repeats, method, out, jobs)
        return
    if learner or folds is not None:
        raise ValueError(f"--learner and --folds are for tables and features; leave them out for {dataset!r}")
    own, recipe = _own_or_known(dataset, skip_unreadable, **columns)
    if data is not None:
        from longtail.datasets import load

        own = load(recipe.dataset, data)
    if kind == "known":
        imbalance = 50.0 if imbalance is None else imbalance
        given["imbalance_factor"] = imbalance
    dataset, tail = recipe.dataset, "" if imbalance is None else f", imbalance {imbalance:g}"
    recipe = recipe.replace(**given)
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    methods, chosen = comparing.prepare(recipe, **what)
    total = len(methods) * len(chosen)
    shared = recipe.replace(loss="softmax", scheme="none", seed=0)
    folder = out or Path("runs") / f"compare-{dataset}-{shared.short_hash[:6]}"
    error_console.print(
        f"{dataset}{tail}, {recipe.model}, {recipe.epochs} epochs, beta {recipe.beta:g}: "
        f"{len(methods)} methods x {len(chosen)} seeds = {total} runs",
    )
    if (hours := comparing.estimate(recipe, own, total, jobs, device)) is not None:
        error_console.print(f"about {_in_words(hours)} on this machine", style="dim")
    with _Bar(total) as report:
        result = comparing.compare(recipe, **what, dataset=own, out=folder, jobs=jobs, progress=report)
    _show(result, f"{dataset}{tail}")


def _betas(betas: list[float], volumes: list[float]) -> list[float]:
    """Every beta, and those that the volumes stand for."""
    from longtail._checks import number

    asked = [number("volume", v, low=1.0, open_high=True) for v in volumes]
    found = [*betas, *(1 - 1 / v for v in asked)]
    if len(set(found)) != len(found):
        raise ValueError(f"--beta and --volume name one value twice: {found}; leave one out")
    return found


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _compare_own(
    comparing: Any,
    problem: Any,
    what: dict[str, Any],
    given: dict[str, Any],
    learners: list[str] | None,
    folds: int | None,
    repeats: int,
    methods: list[str] | None,
    out: Path | None,
    jobs: int | None,
) -> None:
    """Compare on a table or on features of the user's."""
    if problem.kind == "features" and (factor := given.pop("imbalance_factor", None)) is not None:
        problem = problem.long_tailed(factor)
    if given:
        told = ", ".join(f"--{name.removesuffix('_factor')}" for name in given)
        raise ValueError(
            f"{told} is for data sets that longtail knows; give a method its setting: effective:beta=0.99"
        )
    what = what | {"learners": learners or None, "folds": folds, "repeats": repeats}
    for note in problem.notes:
        error_console.print(escape(as_options(note)), soft_wrap=True)
    if lacking := comparing.left_out(problem, methods):
        if methods is None:  # nobody asked for these: their names are enough
            lacking = [text.partition(" ")[0] for text in lacking]
        error_console.print(escape(f"left out, as no learner of tables has it: {', '.join(lacking)}"))
    shared, runs = comparing.prepare(problem, **what)
    for line in comparing.few_neighbours(problem, methods):
        error_console.print(escape(line), soft_wrap=True)
    names = dict.fromkeys(one.model for one in shared)
    classes, rows = f"{len(problem.class_names):,}", len(problem.targets)
    classes += " labels" if problem.many_labels else " classes"
    cut = f"{shared[0].folds} folds x {repeats}" if shared[0].folds else "the test set as it is"
    cut += f" x {len(runs)} seeds" * (problem.kind == "features" and not shared[0].folds)
    error_console.print(
        f"{escape(problem.name)}: {rows:,} rows, {problem.inputs.shape[1]} columns, {classes}; "
        f"{', '.join(names)}; {len(shared) // len(names)} methods, {cut}: {len(shared) * len(runs)} runs",
        soft_wrap=True,
    )
    key = comparing.key(problem, shared)
    folder = out or Path("runs") / f"compare-{problem.name}-{key}"
    with _Bar(len(shared) * len(runs)) as report:
        result = comparing.compare(problem, **what, out=folder, jobs=jobs, progress=report)
    _show(result, problem.name)


class _Bar:
    """Progress of the runs."""

    def __init__(self, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=error_console,
        )
        self.task = self.bar.add_task("starting", total=total)

    def __enter__(self) -> Any:
        self.seen = error_console.is_terminal
        self.started = self.told = time.monotonic()
        if self.seen:
            self.bar.start()
        return self.report

    def __exit__(self, *_: object) -> None:
        if self.seen:
            self.bar.stop()

    def report(self, done: int, total: int, outcome: Any) -> None:
        """Move the bar."""
        from longtail.compare.columns import named

        recipe = outcome.recipe
        value = None if outcome.evaluation is None else outcome.value(recipe.metric)
        column = named(recipe.metric, recipe.many_labels)
        error = "failed" if value is None else column.text(value)
        unit = "fold" if recipe.folds else "seed"
        name = f"{recipe.method.label} {unit} {recipe.seed}"
        self.bar.update(self.task, completed=done, description=f"{name:<28} {error:>6}")
        now = time.monotonic()
        if not self.seen and (done == total or now - self.told >= _EVERY):  # a line where nobody looks
            self.told = now
            left = (now - self.started) / done * (total - done)
            text = f"{done}/{total} runs, {_in_words(now - self.started)}, about {_in_words(left)} to go"
            error_console.print(f"{text}; {escape(name)} {error.strip()}", soft_wrap=True)


def _show(result: Any, title: str) -> None:
    """Print the table, write the files, and end with 1 if a run failed."""
    from longtail.compare.answer import answer
    from longtail.report.figures import draw_comparison
    from longtail.report.page import report_page
    from longtail.report.tables import method_sheet, reading, terminal_table

    folder = result.folder
    for failed in result.failures:
        error_console.print(f"[red]failed[/]: {escape(f'{failed.folder}: {failed.failure}')}")
    console.print(terminal_table(result))
    console.print(escape(result.verdict))
    if not result.outcomes:
        raise SystemExit(1)
    for line in answer(result):
        console.print(escape(line))
    text = reading(result)
    console.print(escape(text), style="dim")
    picture = draw_comparison(result, folder / "compare.png")
    page = write(folder / "compare.html", report_page([result]))
    lines = [
        f"# {title}\n",
        method_sheet(result, "table").markdown(),
        f"{result.verdict}\n",
        *answer(result),
        f"{text}",
        "",
    ]
    write(folder / "compare.md", "\n".join(lines))
    tell_place(
        f"\npage    {page}\npicture {picture}\ntables  {folder / 'compare.md'}, compare.csv, compare.json"
    )
    if result.failures:
        raise SystemExit(1)


def _kind(dataset: str, label: str | None, features: str | None, told: list[str]) -> str:
    """Return "pictures", "table", "features" or "known"."""
    name = dataset.lower()
    file = name.endswith((*_TABLES, *_FEATURES))
    if told or features is not None or (not file and (name.startswith("hf:") or are_images(dataset))):
        return "pictures"
    if label is not None or name.endswith(_TABLES):
        return "table"
    return "features" if file else "known"


def _own_or_known(name: str, skip_unreadable: bool = False, **columns: Any) -> tuple[Any, Any]:
    """Pictures and their recipe, or None and the recipe of a data set that longtail knows."""
    from longtail.compare import Problem

    if not any(columns.values()) and not name.startswith("hf:") and not are_images(name):
        return None, recipe_for(name, also=", a folder of images, a table, features or a recipe's .json file")
    look_at_images(name, **columns)
    problem = Problem.from_images(name, on_error="skip" if skip_unreadable else "raise", **columns)
    return problem.dataset, problem.preset


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "longtail compare",
            "longtail compare train.csv --label churn --group customer",
            "longtail compare parts.csv --label tags --separator '|'",
            "longtail compare photos/ --seeds 3",
        )
    )(compare)
