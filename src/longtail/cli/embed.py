"""longtail embed: features of photographs, for `longtail compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from longtail.cli.terminal import console, examples


def embed(
    data: Annotated[
        str, typer.Argument(help="Your images: a folder, a list file, hf:NAME.", metavar="IMAGES")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npz file to write.")],
    model: Annotated[
        str, typer.Option(help="A model's folder, or its name on the Hugging Face hub; safetensors only.")
    ],
    groups_from: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Finds the group in an image's path: what its parentheses match."),
    ] = None,
    pooling: Annotated[str, typer.Option(help="auto | pooler | mean | first.")] = "auto",
    size: Annotated[
        int | None, typer.Option(help="Height and width; default: as the model's image processor has it.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images computed at a time.")] = 32,
    workers: Annotated[int | None, typer.Option(help="Threads that decode; default: the cores.")] = None,
    device: Annotated[str, typer.Option(help="auto | cpu | cuda.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps what is computed; default: in the user's cache.")
    ] = None,
) -> None:
    """Features of images by a pretrained model; killed and started again, it goes on."""
    from longtail.training.embedding import embed as make

    features = make(
        data,
        model,
        out=out,
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
    test = "" if features.X_test is None else f" and {len(features.X_test):,} to test"
    groups = "" if features.groups is None else f", {len(set(features.groups.tolist())):,} groups"
    console.print(
        escape(
            f"{out}: {rows:,} rows to train on{test}, {width:,} features each ({features.about['pooling']}), "
            f"{features.num_classes:,} classes{groups}\nnext: longtail compare {out}"
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
