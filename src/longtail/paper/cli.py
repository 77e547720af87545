"""longtail reproduce and figures: the papers' tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from longtail.cli.sources import read_counts
from longtail.cli.terminal import console, error_console, examples, may_write, tell_place, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from longtail.paper.settings import MeasuredSetting, Setting
    from longtail.training.recipes import Recipe


def reproduce(
    table: Annotated[
        str, typer.Argument(help="table2 | table3 | fig8 | fig9 | fig10 | rivals | ddnet | gtsrb | beta.")
    ],
    dataset: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    imbalance: Annotated[list[int] | None, typer.Option(help="Only these; repeatable.")] = None,
    loss: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help="Only these, of the paper's; 0 is no weights; repeatable.")
    ] = None,
    gamma: Annotated[list[float] | None, typer.Option(help="Only these, of focal; repeatable.")] = None,
    filters: Annotated[list[int] | None, typer.Option(help="Only these, of ddnet; repeatable.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only these, of rivals: see `longtail methods`; repeatable.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Of rivals: a recipe that a GPU trains in seconds.")
    ] = False,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Only these, of beta: digits features pixels signs skeletons tables; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each setting.")] = 1,
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
    """The papers' tables: runs what is missing, most telling first; resumable."""
    if table != "rivals":
        _refuse({"--method": method, "--fast": fast or None}, table)
    if table != "beta":
        _refuse({"--domain": domain}, table)
    own = {"--network": network, "--size": size, "--device-batch": device_batch, "--processes": processes}
    cifar_only = {"--beta": beta, "--gamma": gamma}
    others = {"--imbalance": imbalance, "--filters": filters, "--budget": budget}
    path = results or Path("results") / f"{table}.csv"
    if table == "table3":
        _refuse(others | cifar_only | {"--jobs": None if jobs == 1 else jobs}, table)
        if data is None and os.environ.get("LONGTAIL_DATA"):
            from longtail.datasets.fetch import data_root

            data, _ = data_root(None)
        chosen = _table3(dataset, network or "resnet50", size or 224, loss, show, data)
        chosen = [setting.with_epochs(epochs) for setting in chosen]
        if dry_run:
            _plan_table3(chosen, data, device, device_batch, processes or 1, precision)
        else:
            run = {"seeds": seeds, "device": device, "device_batch": device_batch, "precision": precision}
            _run_table3(chosen, None if show else data, path, run)
        return
    _refuse(own | {"--dry-run": dry_run or None}, table)
    if table == "beta":
        away = {"--dataset": dataset, "--filters": filters, "--budget": budget, "--epochs": epochs}
        _refuse({**away, **cifar_only, "--precision": None if precision == "fp32" else precision}, table)
        run = {"seeds": seeds, "jobs": jobs, "device": device}
        _run_beta(domain, imbalance, loss, None if show else data, path, show, run)
        return
    from longtail.paper import reproduce as reproducing
    from longtail.paper import results as files
    from longtail.paper import settings, tables

    if filters and table != "ddnet":
        raise ValueError(f"--filters belongs to ddnet, got it with {table!r}; leave it out")
    if table in ("ddnet", "gtsrb", "rivals"):
        _refuse(cifar_only, table)
    if table == "rivals":
        _refuse({"--loss": loss}, table)
        chosen = settings.rivals(datasets=dataset, imbalances=imbalance, methods=method, fast=fast)
    elif table == "ddnet":
        chosen = settings.skeletons(datasets=dataset, imbalances=imbalance, losses=loss, filters=filters)
    elif table == "gtsrb":
        if dataset or imbalance:
            raise ValueError(
                "--dataset and --imbalance do not belong to gtsrb, which is as it is; leave them out"
            )
        chosen = settings.signs(losses=loss)
    else:
        chosen = settings.cifar(
            table, datasets=dataset, imbalances=imbalance, losses=loss, betas=beta, gammas=gamma
        )
    chosen = [setting.with_epochs(epochs) for setting in chosen]
    todo = reproducing.jobs_for(chosen, seeds, Path("runs") / "reproduce", precision=precision)
    states = []
    if not show:

        def report(done: int, total: int, result: reproducing.Result) -> None:
            if result.state != "waiting" or budget is None:
                error_console.print(escape(f"[{done}/{total}] {result}"))

        ended = reproducing.reproduce(
            todo, path, data=data, parallel=jobs, budget_minutes=budget, device=device, progress=report
        )
        states = [result.state for result in ended]
        missing = len(states) - states.count("done")
        tell_place(f"{states.count('done')} runs done, {missing} missing; rows in {path}", error=True)
        if "done" not in states and "paused" in states:
            error_console.print(
                f"the budget of {budget:g} minutes ended before any run did; checkpoints are kept, and the "
                "same command goes on from them",
            )
    rows = files.read_rows(path, table)
    if table == "rivals":  # what Table 2 has run counts, behind the plain run that some of these began from
        rows = [*files.read_rows(path.with_name("table2.csv"), "table2"), *rows]
    measured = settings.measure(chosen, rows)
    console.print(tables.table(measured))
    _report_on_paper(table, measured, [job.recipe for job in todo], path, epochs)
    if "failed" in states:
        raise SystemExit(1)


def _run_beta(
    domains: list[str] | None,
    imbalances: list[int] | None,
    losses: list[str] | None,
    data: Path | None,
    path: Path,
    show: bool,
    options: dict[str, Any],
) -> None:
    from longtail.extend import choice
    from longtail.paper import beta
    from longtail.paper.results import read_rows

    kinds = [choice("loss", one, ("softmax", "focal")) for one in losses or ("softmax", "focal")]
    wanted = [choice("domain", one, beta.DOMAINS) for one in domains or beta.DOMAINS]
    failed = 0
    if not show:
        if data is None and os.environ.get("LONGTAIL_DATA"):
            data = Path(os.environ["LONGTAIL_DATA"])

        def report(line: str) -> None:
            error_console.print(escape(line))

        chosen = beta.cells(wanted, data, imbalances)
        failed = beta.reproduce_beta(chosen, path, losses=kinds, progress=report, **options)
    measured = [
        one
        for one in beta.measure_beta(read_rows(path, "beta"))
        if one.key[0] in wanted
        and one.loss in kinds
        and (imbalances is None or one.key[3] in [f"{factor:g}" for factor in imbalances])
    ]
    if measured:
        print("\n\n".join(beta.beta_tables(measured)))  # noqa: T201
    else:
        error_console.print(f"no setting in {path} has every beta yet")
    if failed:
        raise SystemExit(1)


def _refuse(options: Mapping[str, object], table: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name} does not belong to {table}; leave it out")


def _table3(
    dataset: list[str] | None, network: str, size: int, loss: list[str] | None, show: bool, data: Path | None
) -> list[Setting]:
    from longtail.paper.settings import large

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
    return large(datasets=dataset, networks=[network], sizes=[size], losses=loss)


def _plan_table3(
    chosen: list[Setting],
    data: Path | None,
    device: str,
    device_batch: int | None,
    processes: int,
    precision: str,
) -> None:
    from longtail.paper.large_scale import load_official, plan
    from longtail.paper.tables import plan_table
    from longtail.training.recipes import ImageRecipe

    images = load_official(chosen[0].dataset, data or "")
    for setting in chosen:
        recipe = setting.recipe.replace(precision=precision)
        assert isinstance(recipe, ImageRecipe)
        planned = plan(recipe, images, device=device, device_batch=device_batch, processes=processes)
        console.print(plan_table(planned))


def _run_table3(chosen: list[Setting], data: Path | None, path: Path, options: dict[str, Any]) -> None:
    from longtail.paper.large_scale import reproduce_large
    from longtail.paper.results import read_rows
    from longtail.paper.settings import measure
    from longtail.paper.tables import table

    if data is not None:
        reproduce_large(chosen, data, path, progress=True, **options)
    if os.environ.get("RANK", "0") == "0":
        console.print(table(measure(chosen, read_rows(path, "table3"))))


def _report_on_paper(
    table: str, measured: list[MeasuredSetting], recipes: list[Recipe], results: Path, epochs: int | None
) -> None:
    """Write the page and the figures of a reproduced table beside its results file."""
    from longtail.compare.runs import comparisons, find_runs
    from longtail.paper import figures as drawing
    from longtail.paper.page import page_section
    from longtail.report.figures import save
    from longtail.report.page import report_page

    runs = Path("runs") / "reproduce"
    finished = find_runs([runs])[0] if any(runs.glob("*/evaluation.json")) else []
    wanted = {recipe.replace(seed=0, precision="fp32") for recipe in recipes}  # in any seed and precision
    found = [run for run in finished if run.recipe.replace(seed=0, precision="fp32") in wanted]
    section = page_section(measured)
    if not found and section is None:
        return
    trial = "" if epochs is None else f", a trial of {epochs} epochs"
    text = report_page(comparisons(found), first=section, title=f"{table}: paper and measurement{trial}")
    page = write(results.with_suffix(".html"), text)
    stem = results.with_suffix("")
    drawn = drawing.draw_papers(measured, drawing.OF_TABLES[table]) if table in drawing.OF_TABLES else ()
    pictures = [
        path
        for name, picture in drawn
        for path in save(picture, stem.with_name(f"{stem.name}-{name}"), ["png"])
    ]
    tell_place("\n".join([f"page    {page}", *(f"picture {path}" for path in pictures)]))


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
    from longtail.extend import choice
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
        drawn = _figures_of(source, label, numbers, figure is None)
    else:
        drawn = drawing.draw_papers(_papers(results or []), numbers)
    written = []
    for name, picture in drawn:
        for ending in formats:
            may_write(out / f"{name}.{ending}", force)
        written += save(picture, out / name, formats)
    if not written:
        what = "these counts" if source else "the paper's data sets"
        raise ValueError(f"figure {', '.join(map(str, numbers))} cannot be drawn of {what}; give run folders")
    tell_place("\n".join(f"figure {path}" for path in written))


def _figures_of(
    source: list[str], label: str | None, numbers: list[int], some: bool
) -> Iterable[tuple[str, Figure]]:
    from longtail.compare.runs import comparisons, find_runs
    from longtail.paper import figures as drawing

    if not all(Path(place).is_dir() for place in source):
        if len(source) > 1:
            raise ValueError(
                f"{source[0]!r} is not the only source; give run folders, or one list or file of counts"
            )
        name = Path(source[0]).stem if Path(source[0]).is_file() else "training set"
        return drawing.draw_counts(read_counts(source[0], label).counts, numbers, name)
    compared = comparisons(find_runs(source)[0])
    if len(compared) != 1:
        raise ValueError(f"runs were trained on {len(compared)} different sets; give the folders of one")
    return drawing.draw_runs(compared[0], numbers, some=some)


def _papers(results: list[Path]) -> list[MeasuredSetting]:
    from longtail.paper.results import read_rows
    from longtail.paper.settings import cifar, measure

    for path in results:
        if not path.is_file():
            raise ValueError(f"results file {str(path)!r} is not there; longtail reproduce writes one")
    rows = [row for path in results for row in read_rows(path, "table2")]
    return measure([*cifar("fig8"), *cifar("fig9"), *cifar("fig10")], rows)


def add(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "longtail reproduce table2 --show",
            "longtail reproduce gtsrb --data data/ --seeds 3",
            "longtail reproduce beta --domain digits --seeds 10",
        )
    )(reproduce)
    app.command(
        epilog=examples(
            "longtail figures 5000,500,50",
            "longtail figures runs/compare-digits --figure 7 --format pdf",
        )
    )(figures)
