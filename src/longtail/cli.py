"""The command line: parse, call, print."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longtail._checks import choice, short

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


class ReportFormat(StrEnum):
    """What a report is written as."""

    html = "html"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"


class ReportTable(StrEnum):
    """Which table is exported."""

    methods = "methods"
    classes = "classes"


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
        _fail(str(error))
    except SystemExit as end:
        if end.code == 130:  # what typer makes of an interrupt
            text = "stopped; finished runs and checkpoints are kept, the same command goes on from them"
            _err.print(text, soft_wrap=True)
        raise


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
        str,
        typer.Argument(
            metavar="DATA_OR_COUNTS",
            help="Counts such as 5000,500,50; a .csv or .parquet file, a pattern for many or s3://...; a "
            "folder of image folders, one a class; a .json file of annotations.",
        ),
    ],
    label: Annotated[
        str | None, typer.Option(help="The label column; without it, a .csv file's column 'count' is read.")
    ] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help="Repeat for several; default 0.9 0.99 0.999 0.9999.")
    ] = None,
    normalize: Annotated[str, typer.Option(help="classes | samples | none.")] = "classes",
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    rows: Annotated[int, typer.Option(help="Classes shown in the table, head and tail.", min=2)] = 20,
    explore: Annotated[
        bool, typer.Option("--explore", help="Write and open the beta explorer instead.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="The explorer's file.")] = Path("explorer.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Counts, imbalance factor, effective numbers and class weights of your data."""
    import warnings

    import longtail

    counts = _read_counts(source, label)
    if explore:
        from longtail.report.page import explorer_page

        _may_write(out, force)
        name = Path(source).name if Path(source).exists() else f"{len(counts)} classes"
        _write(out, explorer_page(counts, title=f"Beta explorer: {name}"))
        _out.print(f"page {out}", highlight=False)
        _open(out)
        return
    # every digit of a beta, so that no two have one name
    betas = {repr(b).removesuffix(".0"): b for b in beta or (0.9, 0.99, 0.999, 0.9999)}
    scale = None if normalize == "none" else normalize
    notes = []
    columns: dict[str, list[float]] = {}
    for text, b in betas.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            weight = longtail.class_weights(counts.counts, beta=b, normalize=scale).tolist()
        notes += [str(w.message) for w in caught]
        columns[f"effective_{text}"] = longtail.effective_number(counts.counts, b).tolist()
        columns[f"weight_{text}"] = weight
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
        _print_weights(counts, names, numbers, columns, list(betas), order, rows)
    if beta is None and len(notes) > 1:  # nobody chose these: one word on them is enough
        notes = [f"{len(notes)} of these betas do nothing here. {notes[-1]}"]
    for note in notes:
        _err.print(f"[yellow]note[/]: {escape(note)}", highlight=False)


@app.command()
def compare(
    dataset: Annotated[
        str, typer.Argument(help="A data set that longtail knows, or a folder of small pictures.")
    ] = "digits",
    imbalance: Annotated[
        float | None,
        typer.Option(help="Largest over smallest class; default 50, a folder of yours stays as it is."),
    ] = None,
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
    from longtail.report.page import report_page
    from longtail.report.tables import comparison_markdown, comparison_table

    own, recipe = _own_or_known(dataset)
    if own is None:
        imbalance = 50.0 if imbalance is None else imbalance
    dataset, tail = recipe.dataset, "" if imbalance is None else f", imbalance {imbalance:g}"
    given: dict[str, Any] = {"imbalance_factor": imbalance, "beta": beta, "gamma": gamma}
    recipe = recipe.replace(**{k: v for k, v in given.items() if v is not None})
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    losses, schemes = loss or list(comparing.LOSSES), scheme or list(comparing.SCHEMES)
    methods, chosen = comparing.plan(losses, schemes, seeds, device)
    shared = recipe.replace(loss="softmax", scheme="none", seed=0)
    folder = out or Path("runs") / f"compare-{dataset}-{shared.short_hash[:6]}"
    total = len(methods) * len(chosen)
    _err.print(
        f"{dataset}{tail}, {recipe.model}, {recipe.epochs} epochs, beta {recipe.beta:g}: "
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
            dataset=own,
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
        f"\nerror: mean ± standard deviation over seeds, {'balanced ' * (own is None)}test set. "
        f"many / medium / few: classes with > {many}, {few} to {many}, < {few} training samples (here "
        f"{counts}). vs none: paired "
        "difference to the same loss without re-weighting, negative is better, with its 95 % interval; "
        "* significant after Bonferroni's correction."
    )
    _out.print(escape(text), style="dim", highlight=False)
    picture = draw_comparison(result, folder / "compare.png")
    page = _write(folder / "compare.html", report_page([result]))
    lines = [
        f"# {dataset}{tail}\n",
        comparison_markdown(result),
        f"{result.verdict()}\n{text}",
        "",
    ]
    _write(folder / "compare.md", "\n".join(lines))
    _out.print(
        f"\npage    {page}\npicture {picture}\ntables  {folder / 'compare.md'}, compare.csv, compare.json",
        highlight=False,
    )
    if result.failures:
        raise SystemExit(1)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE_OR_DATA",
            help="A recipe's .json file, a data set, or your images: a folder, a list file, hf:NAME.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default: one under runs/ named by the recipe.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A network; for images resnet50 | resnet101 | resnet152, a folder, a hub name."),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="softmax | sigmoid | focal | softmax_focal.")] = None,
    scheme: Annotated[str | None, typer.Option(help="none | inverse | inverse_sqrt | effective.")] = None,
    beta: Annotated[float | None, typer.Option(help="Of the effective number.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Of the focal losses.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples in an update, over all processes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The largest.")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Change any field; repeatable.")
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
    """One run; started again, it goes on where it was stopped. With images, also under torchrun."""
    from longtail.training.recipe import ImageRecipe

    options = {
        **{"model": model, "loss": loss, "scheme": scheme, "beta": beta, "gamma": gamma},
        **{"batch_size": batch_size, "learning_rate": learning_rate, "size": size, "seed": seed},
    }
    changes = {name: value for name, value in options.items() if value is not None}
    chosen, source = _what_to_train(recipe, epochs, changes | dict(map(_field, set or [])))
    folder = out or Path("runs") / f"{chosen.dataset}-{chosen.loss}-{chosen.scheme}-{chosen.short_hash}"
    shared: dict[str, Any] = {"device": device, "progress": True, "tensorboard": tensorboard}
    if isinstance(chosen, ImageRecipe):
        from longtail.training.finetune import finetune

        on_error = "skip" if skip_unreadable else "raise"
        result = finetune(chosen, source, folder, device_batch=device_batch, on_error=on_error, **shared)
    else:
        from longtail.training.loop import train as run

        if device_batch is not None or skip_unreadable:
            raise ValueError(f"--device-batch and --skip-unreadable are for images, not for {recipe!r}")
        result = run(chosen, folder, **shared)
    if os.environ.get("RANK", "0") == "0":  # one voice for all processes
        _print_evaluation(result.evaluation)
        _out.print(f"run folder {folder}", highlight=False)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="table2 | table3 | fig8 | fig9 | fig10 | ddnet | gtsrb.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    imbalance: Annotated[list[int] | None, typer.Option(help="Only these; repeatable.")] = None,
    loss: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help="Only these, of the paper's; 0 is no weights; repeatable.")
    ] = None,
    gamma: Annotated[list[float] | None, typer.Option(help="Only these, of focal; repeatable.")] = None,
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
    network: Annotated[
        str | None, typer.Option(help="Of table3: resnet50 (default) | resnet101 | resnet152.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Of table3: 224 (default) | 320.")] = None,
    device_batch: Annotated[
        int | None, typer.Option(help="Of table3: samples on a device at a time.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Of table3's --dry-run; default 1.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of table3: recipe, updates, memory and time; train nothing.")
    ] = False,
) -> None:
    """The papers' tables: runs the missing cells, most telling first; resumable."""
    own = {"--network": network, "--size": size, "--device-batch": device_batch, "--processes": processes}
    cells_only = {"--beta": beta, "--gamma": gamma}
    others = {"--imbalance": imbalance, "--filters": filters, "--budget": budget}
    if table == "table3":
        _refuse(others | cells_only | {"--jobs": None if jobs == 1 else jobs}, table)
        if data is None and os.environ.get("LONGTAIL_DATA"):
            from longtail.datasets.fetch import data_root

            data, _ = data_root(None)
        path = results or Path("results") / "table3.csv"
        chosen: Any = _table3(dataset, network or "resnet50", size or 224, loss, show, data)
        if dry_run:
            _plan_table3(chosen, data, device, device_batch, processes or 1, precision, epochs)
        else:
            run = {"seeds": seeds, "device": device, "device_batch": device_batch, "precision": precision}
            _run_table3(chosen, None if show else data, path, epochs, run)
        return
    _refuse(own | {"--dry-run": dry_run or None}, table)
    from longtail.paper import reproduce as reproducing
    from longtail.paper.show import accuracy_table, paper_table, sign_table
    from longtail.paper.tables import cells, sign_cells, skeleton_cells

    if filters and table != "ddnet":
        raise ValueError(f"--filters belongs to ddnet, got it with {table!r}; leave it out")
    if table in ("ddnet", "gtsrb"):
        _refuse(cells_only, table)
    if table == "ddnet":
        chosen = skeleton_cells(datasets=dataset, imbalances=imbalance, losses=loss, filters=filters)
    elif table == "gtsrb":
        if dataset or imbalance:
            raise ValueError(
                "--dataset and --imbalance do not belong to gtsrb, which is as it is; leave them out"
            )
        chosen = sign_cells(losses=loss)
    else:
        chosen = cells(table, datasets=dataset, imbalances=imbalance, losses=loss, betas=beta, gammas=gamma)
    path = results or Path("results") / f"{table}.csv"
    todo = reproducing.jobs_for(chosen, seeds, Path("runs") / "reproduce", epochs=epochs, precision=precision)
    if not show:

        def report(done: int, total: int, result: reproducing.Result) -> None:
            if result.state != "waiting" or budget is None:
                _err.print(escape(f"[{done}/{total}] {result}"), highlight=False)

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
        compared: Any = reproducing.compare_accuracies(chosen, rows, epochs=epochs)
        _out.print(accuracy_table(compared), highlight=False)
    elif table == "gtsrb":
        rows = reproducing.read_rows(path, reproducing.SIGN_COLUMNS)
        _out.print(sign_table(reproducing.compare_signs(chosen, rows, epochs=epochs)), highlight=False)
        compared = []  # no paper has such a table
    else:
        rows = reproducing.read_rows(path)
        compared = reproducing.compare_with_paper(chosen, rows, epochs=epochs or 200)
        _out.print(paper_table(compared), highlight=False)
    _report_on_paper(table, compared, [job.recipe for job in todo], path, epochs)
    if not show and "failed" in states:
        raise SystemExit(1)


def _refuse(options: dict[str, Any], table: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} does not belong to {table}; leave it out")


def _table3(
    dataset: list[str] | None, network: str, size: int, loss: list[str] | None, show: bool, data: Path | None
) -> Any:
    from longtail.paper.large_scale import large_cells

    if not show:
        if data is None:
            raise ValueError("table3 needs the data set's folder; give --data")
        if dataset is None:
            years = [year for year in ("2017", "2018") if (data / f"train{year}.json").is_file()]
            if len(years) > 1:
                raise ValueError(f"{data} has iNaturalist 2017 and 2018; name one by --dataset")
            dataset = [f"inaturalist{years[0]}" if years else "ilsvrc2012"]
        elif len(dataset) != 1:
            raise ValueError(
                f"--data is the folder of one data set, got {len(dataset)} names; give one --dataset"
            )
    return large_cells(datasets=dataset, networks=[network], sizes=[size], losses=loss)


def _plan_table3(
    chosen: Any,
    data: Path | None,
    device: str,
    device_batch: int | None,
    processes: int,
    precision: str,
    epochs: int | None,
) -> None:
    from longtail.paper.large_scale import load_official, plan, recipe_of
    from longtail.paper.show import plan_table

    images = load_official(chosen[0].dataset, data or "")
    for cell in chosen:
        recipe = recipe_of(cell, precision=precision, epochs=epochs)
        planned = plan(recipe, images, device=device, device_batch=device_batch, processes=processes)
        _out.print(plan_table(planned), highlight=False)


def _run_table3(
    chosen: Any, data: Path | None, path: Path, epochs: int | None, options: dict[str, Any]
) -> None:
    from longtail.paper.large_scale import COLUMNS, compare_large, reproduce_large
    from longtail.paper.reproduce import read_rows
    from longtail.paper.show import large_table

    if data is not None:
        reproduce_large(chosen, data, path, epochs=epochs, progress=True, **options)
    if os.environ.get("RANK", "0") == "0":
        _out.print(
            large_table(compare_large(chosen, read_rows(path, COLUMNS), epochs=epochs)), highlight=False
        )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some at any depth.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File; default: report.html, other formats are printed."),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option(help="The page, or a table for a paper.")
    ] = ReportFormat.html,
    table: Annotated[ReportTable, typer.Option(help="Which table is exported.")] = ReportTable.methods,
    group: Annotated[bool, typer.Option("--group", help="Several training sets: a section each.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """One page on finished runs: how long the tail is, whether it helped, how sure, what to use."""
    from longtail.report.page import report_page
    from longtail.report.runs import comparisons, find_runs, title_of

    found, left_out = find_runs(runs)
    compared = comparisons(found)
    for left in left_out:
        _err.print(f"[yellow]left out[/]: {escape(f'{left.folder}: {left.why}')}", highlight=False)
    if not compared:
        raise ValueError(
            f"no finished run in {', '.join(map(str, runs))}; finish one of those left out first"
        )
    if len(compared) > 1 and not group:
        sets = "; ".join(f"{title_of(c)} ({sum(len(r.outcomes) for r in c.rows)} runs)" for c in compared)
        raise ValueError(
            f"runs were trained on {len(compared)} different sets: {sets}; their errors cannot be compared. "
            "Give the folders of one, or --group for a section each"
        )
    target = out or (Path("report.html") if format is ReportFormat.html else None)
    if target is not None:
        _may_write(target, force)
    text = (
        report_page(compared, left_out=left_out)
        if format is ReportFormat.html
        else _export(compared, format, table)
    )
    if target is None:
        print(text, end="")  # noqa: T201
        return
    _write(target, text)
    if format is ReportFormat.html:
        for one in compared:
            _out.print(escape(f"{title_of(one)}: {one.verdict()}"), highlight=False)
    _out.print(f"{'page' if format is ReportFormat.html else 'table'} {target}", highlight=False)


@app.command()
def figures(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUNS_OR_COUNTS]...", help="Run folders, or counts; without: the paper's data sets."
        ),
    ] = None,
    figure: Annotated[
        list[int] | None,
        typer.Option(help="Of the paper: 1 3 4 5 6 7 8 9 10; repeatable; default: all that apply."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label column of a counts file.")] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Results files of longtail reproduce, drawn beside the paper; repeatable."),
    ] = None,
    format: Annotated[list[str] | None, typer.Option(help="png | svg | pdf; default png and svg.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder.")] = Path("figures"),
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """The paper's figures, of any runs or counts, or of its own data sets beside what was measured."""
    from longtail._checks import choice
    from longtail.paper import figures as drawing
    from longtail.report.figures import save

    numbers = figure or list(drawing.NUMBERS)
    formats = [choice("format", name, ("png", "svg", "pdf")) for name in format or ("png", "svg")]
    for number in numbers:
        if number not in drawing.NUMBERS:
            raise ValueError(f"figure must be one of {', '.join(map(str, drawing.NUMBERS))}, got {number}")
    if results and source:
        raise ValueError("--results belongs to the paper's data sets; leave the run folders or counts out")
    if source:
        drawn = _figures_of(source, label, numbers)
    else:
        drawn = drawing.draw_papers(_paper_cells(results or []), numbers)
    written = []
    for name, picture in drawn:
        for ending in formats:
            _may_write(out / f"{name}.{ending}", force)
        written += save(picture, out / name, formats)
    if not written:
        what = "these counts" if source else "the paper's data sets"
        raise ValueError(f"figure {', '.join(map(str, numbers))} cannot be drawn of {what}; give run folders")
    _out.print("\n".join(f"figure {path}" for path in written), highlight=False)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    data: Annotated[Path | None, typer.Option(help="Folder of its data; default: where they were.")] = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """What a finished run's model gets wrong: per class, per group, calibration."""
    from longtail.training.loop import evaluate_run

    evaluation = evaluate_run(run, data)
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
        typer.Argument(metavar="CLIP", help="A skeleton clip as .npy, .npz, .mat or .txt; an image."),
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


def _figures_of(source: list[str], label: str | None, numbers: list[int]) -> Any:
    from longtail.paper import figures as drawing
    from longtail.report.runs import comparisons, find_runs

    if not all(Path(place).is_dir() for place in source):
        if len(source) > 1:
            raise ValueError(
                f"{source[0]!r} is not the only source; give run folders, or one list or file of counts"
            )
        name = Path(source[0]).stem if Path(source[0]).is_file() else "training set"
        return drawing.draw_counts(_read_counts(source[0], label).counts, numbers, name)
    compared = comparisons(find_runs(source)[0])
    if len(compared) != 1:
        raise ValueError(f"runs were trained on {len(compared)} different sets; give the folders of one")
    return drawing.draw_runs(compared[0], numbers)


def _paper_cells(results: list[Path]) -> Any:
    from longtail.paper.reproduce import compare_with_paper, read_rows
    from longtail.paper.tables import cells

    for path in results:
        if not path.is_file():
            raise ValueError(f"results file {str(path)!r} is not there; longtail reproduce writes one")
    rows = [row for path in results for row in read_rows(path)]
    return compare_with_paper([*cells("fig8"), *cells("fig9"), *cells("fig10")], rows)


def _report_on_paper(
    table: str, compared: Any, recipes: list[Any], results: Path, epochs: int | None
) -> None:
    """Write the page and the figures of a reproduced table beside its results file."""
    from longtail.paper import figures as drawing
    from longtail.paper.show import page_section
    from longtail.report.figures import save
    from longtail.report.page import report_page
    from longtail.report.runs import comparisons, find_runs

    runs = Path("runs") / "reproduce"
    finished = find_runs([runs])[0] if any(runs.glob("*/evaluation.json")) else []
    wanted = {recipe.replace(seed=0, precision="fp32") for recipe in recipes}  # in any seed and precision
    found = [run for run in finished if run.recipe.replace(seed=0, precision="fp32") in wanted]
    if not found and not compared:
        return
    trial = "" if epochs is None else f", a trial of {epochs} epochs"
    text = report_page(
        comparisons(found), paper=page_section(compared), title=f"{table}: paper and measurement{trial}"
    )
    page = _write(results.with_suffix(".html"), text)
    stem = results.with_suffix("")
    drawn = drawing.draw_papers(compared, drawing.OF_TABLES[table]) if table in drawing.OF_TABLES else ()
    pictures = [
        path
        for name, picture in drawn
        for path in save(picture, stem.with_name(f"{stem.name}-{name}"), ["png"])
    ]
    _out.print("\n".join([f"page    {page}", *(f"picture {path}" for path in pictures)]), highlight=False)


def _export(compared: list[Any], format: ReportFormat, table: ReportTable) -> str:
    from longtail.report import tables
    from longtail.report.runs import class_names, title_of

    parts: list[str] = []
    for one in compared:
        outcomes = [outcome for row in one.rows for outcome in row.outcomes]
        size = len(outcomes[0].evaluation.class_counts)
        if table is ReportTable.methods and format is ReportFormat.csv:
            text = tables.methods_csv(one)
            parts.append(text if not parts else text.partition("\n")[2])  # one head for all
            continue
        sheet = (
            tables.method_table(one)
            if table is ReportTable.methods
            else tables.class_table(one, class_names(outcomes, size))
        )
        heading = f"{title_of(one)}: test error in %"
        if format is ReportFormat.latex:
            parts.append(sheet.latex(heading))
        elif format is ReportFormat.csv:
            parts.append(sheet.csv())
        else:
            notes = f"\n{one.verdict()}\n\n{tables.legend(outcomes[0].evaluation.thresholds)}\n"
            parts.append(f"# {heading}\n\n{sheet.markdown()}{notes if table is ReportTable.methods else ''}")
    return "\n".join(parts) if format is not ReportFormat.csv else "".join(parts)


def _may_write(path: Path, force: bool) -> None:
    """Ask before a file is replaced, and refuse where nobody can be asked."""
    if force or not path.exists():
        return
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give a file's name")
    if not (sys.stdin.isatty() and typer.confirm(f"{path} exists; replace it?")):
        raise ValueError(f"{str(path)!r} exists; give another name, or --force to replace it")


def _write(path: Path, text: str) -> Path:
    from longtail.training.files import write_atomic

    write_atomic(path, text.encode())
    return path


def _open(path: Path) -> None:
    """Show a page in the browser, where there is a screen."""
    import webbrowser

    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(path.resolve().as_uri())


def _recipe_for(name: str, *, also: str) -> Any:
    from longtail.datasets import NAMES
    from longtail.training import recipe as recipes

    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"recipe {name!r} is not a file; check the path")
        return recipes.Recipe.from_json(path.read_bytes())
    return recipes.default(choice("dataset", name, NAMES, also=also))


def _what_to_train(name: str, epochs: int | None, changes: dict[str, Any]) -> tuple[Any, Any]:
    """The recipe, and for images where they are."""
    if epochs is not None and "epochs" in changes:
        raise ValueError("epochs is given twice, by --epochs and by --set; leave one of them out")
    from longtail.datasets import NAMES
    from longtail.training import recipe as recipes

    path = Path(name)
    annotations = path.name.startswith("train20") and path.suffix == ".json"
    images = path.is_dir() or path.suffix == ".txt" or annotations or name.startswith("hf:")
    images = images or ("/" in name and path.suffix != ".json")  # a folder that is not there
    if images and name not in NAMES:
        title = name.partition("hf:")[2] or (path.resolve().name if path.is_dir() else path.stem)
        given = {} if epochs is None else {"epochs": epochs}
        return recipes.images(title.replace("/", "-"), **given | changes), name
    chosen = _recipe_for(name, also=", a folder or a list of images, hf:NAME or a recipe's .json file")
    if epochs is not None:
        if {"schedule", "milestones"} & changes.keys():  # they are meant for these epochs as they are
            changes = {"schedule": chosen.schedule} | changes
            chosen = chosen.replace(schedule="constant", milestones=())
        chosen = chosen.with_epochs(epochs)
    chosen = chosen.replace(**changes)
    if not isinstance(chosen, recipes.ImageRecipe):
        return chosen, None
    try:
        return chosen, json.loads((path.parent / "environment.json").read_bytes())["source"]
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"recipe {name!r} is for images, but no environment.json beside it says where they are; give the "
            "images, and the recipe's fields by --set"
        ) from None


def _own_or_known(name: str) -> tuple[Any, Any]:
    """A folder's pictures and their recipe; None and the recipe of a data set that is known."""
    from longtail.datasets import NAMES
    from longtail.datasets.images import in_memory, load_images
    from longtail.training import recipe as recipes

    path = Path(name)
    if name in NAMES or not path.is_dir():
        return None, _recipe_for(name, also=", a folder of images or a recipe's .json file")
    title = path.resolve().name
    if title in NAMES:
        title += "-folder"  # not to be taken for the data set of that name
    return in_memory(*load_images(path), 32, name=title), recipes.small_images(title)


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
    # a comma ends a number, so that two of them hold an empty one between them
    for i, part in enumerate(re.split(r"\s*,\s*|\s+", source.strip().removesuffix(",").rstrip())):
        try:
            numbers[i] = float(part)
        except ValueError:
            if "," in source and "/" not in source and not Path(source).exists():
                remedy = "separate them by commas" if part else "two commas have no number between them"
                raise ValueError(f"counts must be numbers, got {part!r} in {source!r}; {remedy}") from None
            return class_counts(source, label=label)
    return class_counts(numbers)


def _print_weights(
    counts: Any,
    names: list[str],
    numbers: list[float],
    columns: dict[str, list[float]],
    betas: list[str],
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
    for text in betas:
        table.add_column(f"E\n{text}", justify="right", no_wrap=True)
        table.add_column(f"w\n{text}", justify="right", no_wrap=True, style="bold")
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
