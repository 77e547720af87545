"""longtail reproduce: the papers' tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from longtail.cli.terminal import console, error_console, write


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
    from longtail import reproduce as reproducing
    from longtail.paper.tables import cells, sign_cells, skeleton_cells
    from longtail.report.tables import accuracy_table, paper_table, sign_table

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
                error_console.print(escape(f"[{done}/{total}] {result}"))

        ended = reproducing.reproduce(
            todo, path, data=data, parallel=jobs, budget_minutes=budget, device=device, progress=report
        )
        states = [result.state for result in ended]
        missing = len(states) - states.count("done")
        error_console.print(f"{states.count('done')} runs done, {missing} missing; rows in {path}")
        if "done" not in states and "paused" in states:
            error_console.print(
                f"the budget of {budget:g} minutes ended before any run did; checkpoints are kept, and the "
                "same command goes on from them",
            )
    if table == "ddnet":
        rows = reproducing.read_rows(path, reproducing.SKELETON_COLUMNS)
        compared: Any = reproducing.compare_accuracies(chosen, rows, epochs=epochs)
        console.print(accuracy_table(compared))
    elif table == "gtsrb":
        rows = reproducing.read_rows(path, reproducing.SIGN_COLUMNS)
        console.print(sign_table(reproducing.compare_signs(chosen, rows, epochs=epochs)))
        compared = []  # no paper has such a table
    else:
        rows = reproducing.read_rows(path)
        compared = reproducing.compare_with_paper(chosen, rows, epochs=epochs or 200)
        console.print(paper_table(compared))
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
    from longtail.large_scale import large_cells

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
    from longtail.large_scale import load_official, plan, recipe_of
    from longtail.report.tables import plan_table

    images = load_official(chosen[0].dataset, data or "")
    for cell in chosen:
        recipe = recipe_of(cell, precision=precision, epochs=epochs)
        planned = plan(recipe, images, device=device, device_batch=device_batch, processes=processes)
        console.print(plan_table(planned))


def _run_table3(
    chosen: Any, data: Path | None, path: Path, epochs: int | None, options: dict[str, Any]
) -> None:
    from longtail.large_scale import COLUMNS, compare_large, reproduce_large
    from longtail.report.tables import large_table
    from longtail.reproduce import read_rows

    if data is not None:
        reproduce_large(chosen, data, path, epochs=epochs, progress=True, **options)
    if os.environ.get("RANK", "0") == "0":
        console.print(large_table(compare_large(chosen, read_rows(path, COLUMNS), epochs=epochs)))


def _report_on_paper(
    table: str, compared: Any, recipes: list[Any], results: Path, epochs: int | None
) -> None:
    """Write the page and the figures of a reproduced table beside its results file."""
    from longtail.report import figures as drawing
    from longtail.report.page import report_page
    from longtail.report.runs import comparisons, find_runs

    runs = Path("runs") / "reproduce"
    finished = find_runs([runs])[0] if any(runs.glob("*/evaluation.json")) else []
    wanted = {recipe.replace(seed=0, precision="fp32") for recipe in recipes}  # in any seed and precision
    found = [run for run in finished if run.recipe.replace(seed=0, precision="fp32") in wanted]
    if not found and not compared:
        return
    trial = "" if epochs is None else f", a trial of {epochs} epochs"
    text = report_page(comparisons(found), paper=compared, title=f"{table}: paper and measurement{trial}")
    page = write(results.with_suffix(".html"), text)
    stem = results.with_suffix("")
    drawn = drawing.draw_papers(compared, drawing.OF_TABLES[table]) if table in drawing.OF_TABLES else ()
    pictures = [
        path
        for name, picture in drawn
        for path in drawing.save(picture, stem.with_name(f"{stem.name}-{name}"), ["png"])
    ]
    console.print("\n".join([f"page    {page}", *(f"picture {path}" for path in pictures)]))


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(reproduce)
