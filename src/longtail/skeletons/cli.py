"""longtail data skeletons: clips in a form that loads fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longtail.cli.data import group
from longtail.cli.terminal import console, examples


def skeletons(
    source: Annotated[Path, typer.Argument(help="Folder in an official layout, folder of splits, or .npz.")],
    out: Annotated[Path, typer.Argument(help="jhmdb14.npz, jhmdb21.npz or shrec17.npz in your data folder.")],
) -> None:
    """JHMDB's or SHREC'17's skeleton clips as one .npz file."""
    from longtail.skeletons.clips import convert

    clips = convert(source, out)
    frames, joints, dimensions = clips.poses.shape
    console.print(
        f"{out}: {len(clips)} clips, {len(clips.label_names)} classes, {frames:,} frames of {joints} joints "
        f"in {dimensions}-D; test clips by split: {', '.join(map(str, clips.is_test.sum(0)))}",
        soft_wrap=True,
    )


def add(app: typer.Typer) -> None:
    """Add the command of this file to ``longtail data``."""
    group.command(epilog=examples("longtail data skeletons JHMDB/ jhmdb14.npz"))(skeletons)
