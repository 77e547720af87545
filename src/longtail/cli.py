"""The command line: parse, call, print."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longtail._checks import short

app = typer.Typer(
    help="Class-balanced training for long-tailed data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data = typer.Typer(no_args_is_help=True, help="Data sets in forms that load fast.")
app.add_typer(data, name="data")
_out = Console()
_err = Console(stderr=True)


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _err.print("stopped; finished runs and checkpoints are kept, the same command goes on from them")
        raise SystemExit(130) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        import longtail

        _out.print(f"longtail {longtail.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Class-balanced training for long-tailed data."""


@app.command()
def weights(
    source: Annotated[
        str, typer.Argument(metavar="FILE_OR_COUNTS", help="Counts such as 5000,500,50, or a .csv file.")
    ],
    label: Annotated[
        str | None, typer.Option(help="The file's label column; without it, a column 'count' is read.")
    ] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help="Repeat for several; default 0.9 0.99 0.999 0.9999.")
    ] = None,
    normalize: Annotated[str, typer.Option(help="classes | samples | none.")] = "classes",
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    rows: Annotated[int, typer.Option(help="Classes shown in the table, head and tail.", min=2)] = 20,
) -> None:
    """Counts, imbalance factor, effective numbers and class weights of your data."""
    import warnings

    import longtail

    counts = _read_counts(source, label)
    betas = beta or [0.9, 0.99, 0.999, 0.9999]
    scale = None if normalize == "none" else normalize
    notes = []
    columns: dict[str, list[float]] = {}
    for b in betas:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            weight = longtail.class_weights(counts.counts, beta=b, normalize=scale).tolist()
        notes += [str(w.message) for w in caught]
        columns[f"effective_{b:g}"] = longtail.effective_number(counts.counts, b).tolist()
        columns[f"weight_{b:g}"] = weight
    order = sorted(range(len(counts)), key=lambda i: -counts.counts[i])
    names = [str(name) for name in counts.names]
    numbers = counts.counts.tolist()
    if format is Format.json:
        classes = [
            {"class": names[i], "count": numbers[i], **{k: v[i] for k, v in columns.items()}}
            for i in range(len(counts))
        ]
        facts = {"classes": len(counts), "samples": counts.total, "imbalance_factor": counts.imbalance_factor}
        print(json.dumps({**facts, "normalize": scale, "warnings": notes, "weights": classes}, indent=2))  # noqa: T201
        return
    if format is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["class", "count", *columns])
        writer.writerows(
            [names[i], numbers[i], *(repr(v[i]) for v in columns.values())] for i in range(len(counts))
        )
    else:
        _print_weights(counts, names, numbers, columns, betas, order, rows)
    if beta is None and len(notes) > 1:  # nobody chose these: one word on them is enough
        notes = [f"{len(notes)} of these betas do nothing here. {notes[-1]}"]
    for note in notes:
        _err.print(f"[yellow]note[/]: {escape(note)}", highlight=False)


@app.command()
def compare(
    dataset: Annotated[str, typer.Argument(help="A data set that longtail knows.")] = "digits",
    imbalance: Annotated[float, typer.Option(help="Largest over smallest class of the training set.")] = 50.0,
    loss: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; default softmax sigmoid focal.")
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for several; default none inverse inverse_sqrt effective."),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Of the effective number.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Of the focal loss.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every run.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 5,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; default: the number of cores.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default: one under runs/ named by the settings.")
    ] = None,
) -> None:
    """The main job: train with and without class balancing over several seeds; one honest table."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from longtail import compare as comparing
    from longtail.report.figures import draw_comparison
    from longtail.report.tables import comparison_markdown, comparison_table
    from longtail.training.files import write_atomic

    given: dict[str, Any] = {"imbalance_factor": imbalance, "beta": beta, "gamma": gamma, "epochs": epochs}
    recipe = _recipe_for(dataset)
    if epochs is not None and recipe.warmup_epochs >= epochs > 0:
        given["warmup_epochs"] = epochs // 4  # a warm-up as long as the run is no run
    recipe = recipe.replace(**{k: v for k, v in given.items() if v is not None})
    losses, schemes = loss or list(comparing.LOSSES), scheme or list(comparing.SCHEMES)
    methods, chosen = comparing.plan(losses, schemes, seeds, device)
    shared = recipe.replace(loss="softmax", scheme="none", seed=0)
    folder = out or Path("runs") / f"compare-{dataset}-{shared.short_hash[:6]}"
    total = len(methods) * len(chosen)
    _err.print(
        f"{dataset}, imbalance {imbalance:g}, {recipe.model}, {recipe.epochs} epochs, beta {recipe.beta:g}: "
        f"{len(losses)} losses x {len(schemes)} weightings x {seeds} seeds = {total} runs",
        highlight=False,
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_err,
    )
    with bar:
        task = bar.add_task("starting", total=total)

        def report(done: int, total: int, outcome: comparing.Outcome) -> None:
            error = "failed" if outcome.evaluation is None else f"{100 * outcome.evaluation.error:4.1f} %"
            name = f"{outcome.recipe.loss} {outcome.recipe.scheme} seed {outcome.recipe.seed}"
            bar.update(task, completed=done, description=f"{name:<28} {error:>6}")

        result = comparing.compare(
            recipe,
            losses=losses,
            schemes=schemes,
            seeds=seeds,
            out=folder,
            jobs=jobs,
            device=device,
            progress=report,
        )
    for failed in result.failures:
        _err.print(f"[red]failed[/]: {escape(f'{failed.folder}: {failed.failure}')}", highlight=False)
    _out.print(comparison_table(result), highlight=False)
    _out.print(escape(result.verdict()), highlight=False)
    measured = next((o.evaluation for r in result.rows for o in r.outcomes if o.evaluation), None)
    if measured is None:
        raise SystemExit(1)
    many, few = measured.thresholds
    counts = ", ".join(map(str, measured.class_counts))
    text = (
        "\nerror: mean ± standard deviation over seeds, balanced test set. many / medium / few: classes with "
        f"> {many}, {few} to {many}, < {few} training samples (here {counts}). vs none: paired "
        "difference to the same loss without re-weighting, negative is better, with its 95 % interval; "
        "* significant after Bonferroni's correction."
    )
    _out.print(escape(text), style="dim", highlight=False)
    picture = draw_comparison(result, folder / "compare.png")
    lines = [
        f"# {dataset}, imbalance {imbalance:g}\n",
        comparison_markdown(result),
        f"{result.verdict()}\n{text}",
        "",
    ]
    write_atomic(folder / "compare.md", "\n".join(lines).encode())
    _out.print(
        f"\npicture {picture}\ntables  {folder / 'compare.md'}, compare.csv, compare.json", highlight=False
    )
    if result.failures:
        raise SystemExit(1)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE_OR_DATASET", help="A recipe's .json file, or a data set.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default: one under runs/ named by the recipe.")
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Change a field; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard events into the run folder.")] = False,
) -> None:
    """One run; started again, it goes on where it was stopped."""
    from longtail.training.loop import train as run

    chosen = _recipe_for(recipe).replace(**dict(map(_field, set or [])))
    folder = out or Path("runs") / f"{chosen.dataset}-{chosen.loss}-{chosen.scheme}-{chosen.short_hash}"
    result = run(chosen, folder, device=device, progress=True, tensorboard=tensorboard)
    _print_evaluation(result.evaluation)
    _out.print(f"run folder {folder}", highlight=False)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="table2 | fig8 | fig9 | fig10 | ddnet.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    imbalance: Annotated[list[int] | None, typer.Option(help="Only these; repeatable.")] = None,
    loss: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    filters: Annotated[list[int] | None, typer.Option(help="Only these, of ddnet; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each cell.")] = 1,
    jobs: Annotated[int, typer.Option(help="Runs at a time.")] = 1,
    budget: Annotated[
        float | None, typer.Option(help="Minutes; what is unfinished keeps a checkpoint.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the data; default: $LONGTAIL_DATA.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 | bf16.")] = "fp32",
    epochs: Annotated[int | None, typer.Option(help="For a trial: fewer than the recipe's.")] = None,
    results: Annotated[Path | None, typer.Option(help="CSV file; default results/TABLE.csv.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Run nothing; print paper and measurement.")] = False,
) -> None:
    """The papers' tables: runs the missing cells, most telling first; resumable."""
    from longtail import reproduce as reproducing
    from longtail.paper.tables import cells, skeleton_cells
    from longtail.report.tables import accuracy_table, paper_table

    if filters and table != "ddnet":
        raise ValueError(f"--filters belongs to ddnet, got it with {table!r}; leave it out")
    if table == "ddnet":
        chosen: Any = skeleton_cells(datasets=dataset, imbalances=imbalance, losses=loss, filters=filters)
    else:
        chosen = cells(table, datasets=dataset, imbalances=imbalance, losses=loss)
    path = results or Path("results") / f"{table}.csv"
    if not show:
        todo = reproducing.jobs_for(
            chosen, seeds, Path("runs") / "reproduce", epochs=epochs, precision=precision
        )

        def report(done: int, total: int, result: reproducing.Result) -> None:
            if result.state == "waiting":
                return
            error = result.why if result.error_percent is None else f"error {result.error_percent:.2f} %"
            line = f"[{done}/{total}] {result.job.cell} seed {result.job.recipe.seed}: {result.state} {error}"
            _err.print(escape(line), highlight=False)

        ended = reproducing.reproduce(
            todo, path, data=data, parallel=jobs, budget_minutes=budget, device=device, progress=report
        )
        states = [result.state for result in ended]
        missing = len(states) - states.count("done")
        _err.print(f"{states.count('done')} runs done, {missing} missing; rows in {path}", highlight=False)
        if "done" not in states and "paused" in states:
            _err.print(
                f"the budget of {budget:g} minutes ended before any run did; checkpoints are kept, and the "
                "same command goes on from them",
                highlight=False,
            )
    if table == "ddnet":
        rows = reproducing.read_rows(path, reproducing.SKELETON_COLUMNS)
        shown = accuracy_table(reproducing.compare_accuracies(chosen, rows, epochs=epochs))
    else:
        rows = reproducing.read_rows(path)
        shown = paper_table(reproducing.compare_with_paper(chosen, rows, epochs=epochs or 200))
    _out.print(shown, highlight=False)
    if not show and "failed" in states:
        raise SystemExit(1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """What a finished run's model gets wrong: per class, per group, calibration."""
    from longtail.training.loop import evaluate_run

    evaluation = evaluate_run(run)
    if format is Format.json:
        print(json.dumps(evaluation.to_dict(), indent=2))  # noqa: T201
    elif format is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["class", "count", "error"])
        rows = zip(evaluation.class_counts, evaluation.per_class_error, strict=True)
        writer.writerows([i, n, "" if e is None else e] for i, (n, e) in enumerate(rows))
    else:
        _print_evaluation(evaluation)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    sample: Annotated[
        Path,
        typer.Argument(metavar="CLIP", help="A skeleton clip as .npy, .npz, .mat or .txt; an image as .npy."),
    ],
    top: Annotated[int, typer.Option(help="How many classes.", min=1)] = 5,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """What a finished run's model says of one clip or image."""
    from rich import box

    from longtail.predict import Classifier

    classes = Classifier(run)(sample).top(top)
    if format is Format.json:
        print(json.dumps([{"class": name, "probability": p} for name, p in classes], indent=2))  # noqa: T201
    elif format is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["class", "probability"])
        writer.writerows(classes)
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("class")
        table.add_column("probability", justify="right")
        for name, p in classes:
            table.add_row(escape(name), f"{100 * p:.1f} %")
        _out.print(table)


@data.command()
def skeletons(
    source: Annotated[Path, typer.Argument(help="Folder in an official layout, folder of splits, or .npz.")],
    out: Annotated[Path, typer.Argument(help="jhmdb14.npz, jhmdb21.npz or shrec17.npz in your data folder.")],
) -> None:
    """JHMDB's or SHREC'17's skeleton clips as one .npz file."""
    from longtail.datasets.skeletons import convert

    clips = convert(source, out)
    frames, joints, dimensions = clips.poses.shape
    _out.print(
        f"{out}: {len(clips)} clips, {len(clips.label_names)} classes, {frames:,} frames of {joints} joints "
        f"in {dimensions}-D; test clips by split: {', '.join(map(str, clips.is_test.sum(0)))}",
        highlight=False,
        soft_wrap=True,
    )


def _recipe_for(name: str) -> Any:
    from longtail.training import recipe as recipes

    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"recipe {name!r} is not a file; check the path")
        return recipes.Recipe.from_json(path.read_bytes())
    return recipes.default(name)


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set needs FIELD=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _read_counts(source: str, label: str | None) -> Any:
    from longtail.counts import class_counts

    numbers: dict[int, float] = {}
    for i, part in enumerate(source.replace(",", " ").split()):
        try:
            numbers[i] = float(part)
        except ValueError:
            if "," in source and not Path(source).exists():
                raise ValueError(
                    f"counts must be numbers, got {part!r} in {source!r}; separate them by commas"
                ) from None
            return class_counts(source, label=label)
    return class_counts(numbers)


def _print_weights(
    counts: Any,
    names: list[str],
    numbers: list[float],
    columns: dict[str, list[float]],
    betas: list[float],
    order: list[int],
    rows: int,
) -> None:
    from rich import box

    _out.print(
        f"{len(counts)} classes, {counts.total:,} samples, imbalance factor {short(counts.imbalance_factor)}",
        highlight=False,
    )
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption="E: effective number of samples; w: class weight",
    )
    table.add_column("class")  # what gives way where the terminal is narrow; digits must not
    table.add_column("count", justify="right", no_wrap=True)
    for b in betas:
        table.add_column(f"E\n{b:g}", justify="right", no_wrap=True)
        table.add_column(f"w\n{b:g}", justify="right", no_wrap=True, style="bold")
    hidden = len(order) - rows
    shown = order if hidden <= 0 else [*order[: rows - rows // 2], *order[-(rows // 2) :]]
    for place, i in enumerate(shown):
        if hidden > 0 and place == rows - rows // 2:
            table.add_row(f"... {hidden} more", end_section=False)
        table.add_row(escape(names[i]), f"{numbers[i]:,g}", *(short(v[i]) for v in columns.values()))
    _out.print(table)


def _print_evaluation(evaluation: Any) -> None:
    from rich import box

    _out.print(str(evaluation), highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("class", "training samples", "error %"):
        table.add_column(name, justify="right")
    rows = list(zip(evaluation.class_counts, evaluation.per_class_error, strict=True))
    for i, (n, e) in sorted(enumerate(rows), key=lambda item: -item[1][0])[:50]:
        table.add_row(str(i), f"{n:,}", "n/a" if e is None else f"{100 * e:.1f}")
    if len(rows) > 50:
        table.add_row("...", f"{len(rows) - 50} more", "")
    _out.print(table)


def _fail(message: str) -> NoReturn:
    _err.print(f"[red]error[/]: {escape(message)}", highlight=False, soft_wrap=True)
    raise SystemExit(2)
