"""longtail compare: the main job, and its tables, picture and page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from longtail.cli.sources import recipe_for
from longtail.cli.terminal import console, error_console, write


def compare(
    dataset: Annotated[
        str, typer.Argument(help="A data set that longtail knows, or a folder of small pictures.")
    ] = "digits",
    imbalance: Annotated[
        float | None,
        typer.Option(help="Largest over smallest class; default 50, a folder of yours stays as it is."),
    ] = None,
    loss: Annotated[
        list[str] | None, typer.Option(help="With every --scheme, in place of methods; repeatable.")
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(help="none | inverse | inverse_sqrt | effective, with every --loss; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:SETTING=VALUE]", help="See longtail methods; repeatable."),
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
    from longtail.report.tables import method_sheet, terminal_table

    own, recipe = _own_or_known(dataset)
    if own is None:
        imbalance = 50.0 if imbalance is None else imbalance
    dataset, tail = recipe.dataset, "" if imbalance is None else f", imbalance {imbalance:g}"
    given: dict[str, Any] = {"imbalance_factor": imbalance, "beta": beta, "gamma": gamma}
    recipe = recipe.replace(**{k: v for k, v in given.items() if v is not None})
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    if method and (loss or scheme):
        raise ValueError("--method is given beside --loss or --scheme; leave one of the two out")
    what: dict[str, Any] = {"methods": method} if method else {"losses": loss, "schemes": scheme}
    methods, chosen = comparing.prepare(recipe, **what, seeds=seeds, device=device)
    total = len(methods) * len(chosen)
    shared = recipe.replace(loss="softmax", scheme="none", seed=0)
    folder = out or Path("runs") / f"compare-{dataset}-{shared.short_hash[:6]}"
    error_console.print(
        f"{dataset}{tail}, {recipe.model}, {recipe.epochs} epochs, beta {recipe.beta:g}: "
        f"{len(methods)} methods x {seeds} seeds = {total} runs",
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=error_console,
    )
    with bar:
        task = bar.add_task("starting", total=total)

        def report(done: int, total: int, outcome: comparing.Outcome) -> None:
            error = "failed" if outcome.evaluation is None else f"{100 * outcome.evaluation.error:4.1f} %"
            name = f"{outcome.recipe.method.label} seed {outcome.recipe.seed}"
            bar.update(task, completed=done, description=f"{name:<28} {error:>6}")

        result = comparing.compare(
            recipe,
            **what,
            seeds=seeds,
            dataset=own,
            out=folder,
            jobs=jobs,
            device=device,
            progress=report,
        )
    for failed in result.failures:
        error_console.print(f"[red]failed[/]: {escape(f'{failed.folder}: {failed.failure}')}")
    console.print(terminal_table(result))
    console.print(escape(result.verdict))
    if not result.outcomes:
        raise SystemExit(1)
    many, few = result.evaluation.thresholds
    counts = ", ".join(map(str, result.class_counts))
    text = (
        f"\nerror: mean ± standard deviation over seeds, {'balanced ' * _is_balanced(result)}test set. "
        f"many / medium / few: classes with > {many}, {few} to {many}, < {few} training samples (here "
        f"{counts}). vs none: paired "
        "difference to the same loss without re-weighting, negative is better, with its 95 % interval; "
        "* significant after Bonferroni's correction."
    )
    console.print(escape(text), style="dim")
    picture = draw_comparison(result, folder / "compare.png")
    page = write(folder / "compare.html", report_page([result]))
    lines = [
        f"# {dataset}{tail}\n",
        method_sheet(result, "table").markdown(),
        f"{result.verdict}\n{text}",
        "",
    ]
    write(folder / "compare.md", "\n".join(lines))
    console.print(
        f"\npage    {page}\npicture {picture}\ntables  {folder / 'compare.md'}, compare.csv, compare.json",
    )
    if result.failures:
        raise SystemExit(1)


def _is_balanced(table: Any) -> bool:
    """Whether every class has as many test samples as the others."""
    confusion = table.evaluation.confusion
    return confusion is not None and len({sum(row) for row in confusion}) == 1


def _own_or_known(name: str) -> tuple[Any, Any]:
    """A folder's pictures and their recipe; None and the recipe of a data set that is known."""
    from longtail.datasets import DATASETS
    from longtail.datasets.images import in_memory, load_images
    from longtail.training import recipes

    path = Path(name)
    if name in DATASETS or not path.is_dir():
        return None, recipe_for(name, also=", a folder of images or a recipe's .json file")
    title = path.resolve().name
    if title in DATASETS:
        title += "-folder"  # not to be taken for the data set of that name
    return in_memory(*load_images(path), 32, name=title), recipes.small_images(title)


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(compare)
