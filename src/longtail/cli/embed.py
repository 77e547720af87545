"""longtail embed: features of photographs or text, for `longtail compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from longtail.cli.terminal import console, examples


def embed(
    data: Annotated[
        str,
        typer.Argument(
            help="Images: a folder, a list, a table, hf:NAME; or a table of text.", metavar="DATA"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's folder, or its name on the Hugging Face hub; safetensors only. Text without a "
            "model becomes TF-IDF."
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Of a table: the column of the texts.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Of a table or data set: the column of the class.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Of the same: a column whose equal values stay together.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Of a table of text: another one, the test set.")] = None,
    image: Annotated[
        str | None, typer.Option(help="Of a table or data set of images: the column of the images.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Of a table or a list: the folder below which the images lie.")
    ] = None,
    groups_from: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Finds the group in an image's path: what its parentheses match, or all."
        ),
    ] = None,
    pooling: Annotated[str, typer.Option(help="auto | pooler | mean | first.")] = "auto",
    size: Annotated[
        int | None, typer.Option(help="Height and width; default: as the model's image processor has it.")
    ] = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Leave out broken images, rows without text."),
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images or texts computed at a time.")] = 32,
    workers: Annotated[int | None, typer.Option(help="Threads that decode; default: the cores.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps what is computed; default: in the user's cache.")
    ] = None,
) -> None:
    """Features of images or text by a pretrained model; killed and started again, it goes on."""
    from longtail.training.embedding import embed as make

    features = make(
        data,
        model,
        out=out,
        text=text,
        label=label,
        groups=group,
        test=test,
        image=image,
        root=root,
        groups_from=groups_from,
        pooling=pooling,
        size=size,
        batch_size=batch_size,
        device=device,
        workers=workers,
        on_error="skip" if skip_unreadable else "raise",
        cache=cache,
        progress=True,
    )
    rows, width = features.X.shape
    tested = "" if features.X_test is None else f" and {len(features.X_test):,} to test"
    groups = "" if features.groups is None else f", {len(set(features.groups.tolist())):,} groups"
    console.print(
        escape(
            f"{out}: {rows:,} rows to train on{tested}, {width:,} features each "
            f"({features.about['pooling']}), {features.num_classes:,} classes{groups}\n"
            f"next: longtail compare {out}"
        ),
        soft_wrap=True,
    )


def add(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=examples(
            "longtail embed photos/ --model google/vit-base-patch16-224 -o features.npz",
        )
    )(embed)
