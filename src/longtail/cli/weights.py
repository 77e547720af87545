"""longtail weights: counts, effective numbers and class weights of your data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from longtail._checks import short
from longtail.cli.sources import read_counts
from longtail.cli.terminal import (
    Format,
    as_options,
    console,
    examples,
    harmless,
    may_write,
    note,
    open_page,
    print_csv,
    print_json,
    tell_place,
    write,
)

if TYPE_CHECKING:
    from longtail.counts import ClassCounts


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
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Columns of 0 and 1, one a class; 'is_*' is a pattern."),
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="What parts several labels in one field, such as '|'.")
    ] = None,
    header: Annotated[
        bool,
        typer.Option("--header/--no-header", help="Without one, --label 3 is the third column, -1 the last."),
    ] = True,
    missing_as_class: Annotated[
        bool, typer.Option("--missing-as-class", help="Count samples without a label as the class 'missing'.")
    ] = False,
    order: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="The classes in the order of the model's outputs.")
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

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        counts = read_counts(
            source,
            label,
            labels=labels,
            separator=separator,
            header=header,
            missing_as_class=missing_as_class,
            order=order,
        )
    notes = [as_options(str(w.message)) for w in found]
    read = len(notes)
    if explore:
        from longtail.report.page import explorer_page

        may_write(out, force)
        name = Path(source).name if Path(source).exists() else f"{len(counts)} classes"
        write(out, explorer_page(counts, title=f"Beta explorer: {name}"))
        tell_place(f"page {out}")
        open_page(out)
        return
    # every digit of a beta, so that no two have one name
    betas = {repr(b).removesuffix(".0"): b for b in beta or (0.9, 0.99, 0.999, 0.9999)}
    scale = None if normalize == "none" else normalize
    columns: dict[str, list[float]] = {}
    for text, b in betas.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            weight = longtail.class_weights(counts.counts, beta=b, normalize=scale).tolist()
        notes += [str(w.message) for w in caught]
        columns[f"effective_{text}"] = longtail.effective_number(counts.counts, b).tolist()
        columns[f"weight_{text}"] = weight
    names = [str(name) for name in counts.names]
    numbers = counts.counts.tolist()
    if format is Format.json:
        classes = [
            {"class": names[i], "count": numbers[i], **{k: v[i] for k, v in columns.items()}}
            for i in range(len(counts))
        ]
        facts = {"classes": len(counts), "samples": counts.total, "imbalance_factor": counts.imbalance_factor}
        if counts.num_samples is not None:
            facts["samples"] = counts.num_samples
            facts["labels"] = counts.total
        print_json({**facts, "normalize": scale, "warnings": notes, "weights": classes})
        return
    if format is Format.csv:
        lines = [[names[i], numbers[i], *(repr(v[i]) for v in columns.values())] for i in range(len(counts))]
        print_csv([["class", "count", *columns], *lines])
    else:
        _print_weights(counts, columns, betas, rows)
    if beta is None and len(notes) - read > 1:  # nobody chose these: one word on them is enough
        notes[read:] = [f"{len(notes) - read} of these betas do nothing here. {notes[-1]}"]
    for text in notes:
        note(text)


def _print_weights(
    counts: ClassCounts, columns: Mapping[str, Sequence[float]], betas: Iterable[str], rows: int
) -> None:
    from rich import box

    order = sorted(range(len(counts)), key=lambda i: -counts.counts[i])

    samples = f"{counts.total:,} samples"
    if counts.num_samples is not None:
        samples = f"{counts.num_samples:,} samples with {counts.total:,} labels"
    factor = short(counts.imbalance_factor)
    console.print(f"{len(counts)} classes, {samples}, imbalance factor {factor}")
    caption = "E: effective number of samples; w: class weight"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=caption)
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
        name, number = escape(harmless(str(counts.names[i]))), f"{counts.counts[i]:,g}"
        table.add_row(name, number, *(short(v[i]) for v in columns.values()))
    console.print(table)


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "longtail weights 5000,500,50",
            "longtail weights train.csv --label species --beta 0.99",
            "longtail weights photos/train --format csv",
        )
    )(weights)
