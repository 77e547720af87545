"""Comparisons and weights as terminal tables and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from longtail.evaluation import Summary

if TYPE_CHECKING:
    from longtail.compare import Comparison
    from longtail.reproduce import Accuracy, PaperCell

_HEAD = ("loss", "weights", "error %", "many", "medium", "few", "vs none [95 %]")


def comparison_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the table's body as text: one row a method, * where it significantly beats its baseline."""
    cells = []
    for row in comparison.rows:
        mark = " (best)" if row is comparison.winner else ""
        d = comparison.difference(row)
        change = "" if d is None else f"{100 * d.mean:+.1f}"
        if d is not None and d.low is not None and d.high is not None:
            change += (
                f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]{'*' if comparison.beats_none(row) else ' '}"
            )
        groups = [_mean(row.summary(f"{group}_error")) for group in ("many", "medium", "few")]
        cells.append((row.loss, row.scheme + mark, _mean_sd(row.summary()), *groups, change))
    return cells


def comparison_table(comparison: Comparison) -> Table:
    """Return the comparison for the terminal, within 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in _HEAD:
        table.add_column(name, justify="left" if name in ("loss", "weights") else "right", no_wrap=True)
    last = None
    for cells, row in zip(comparison_cells(comparison), comparison.rows, strict=True):
        if last is not None and row.loss != last:
            table.add_section()
        last = row.loss
        table.add_row(*cells, style="bold green" if row is comparison.winner else "")
    return table


def comparison_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table."""
    return markdown(_HEAD, comparison_cells(comparison))


def paper_table(compared: Sequence[PaperCell]) -> Table:
    """Return published and measured errors side by side, for the terminal, within 80 columns."""
    title = "test error in %, paper and measured (mean ± standard deviation); IF: imbalance factor"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=title)
    for name in ("data", "IF", "loss", "gamma", "beta", "paper", "measured", "seeds", "diff"):
        table.add_column(name, justify="left" if name in ("data", "loss") else "right", no_wrap=True)
    for row in compared:
        cell, measured = row.cell, row.measured
        sd = "" if measured is None or measured.sd is None else f" ± {measured.sd:.2f}"
        table.add_row(
            cell.dataset,
            str(cell.imbalance_factor),
            cell.loss,
            "" if cell.gamma is None else f"{cell.gamma:g}",
            f"{cell.beta:g}",
            "-" if row.paper is None else f"{row.paper:.2f}",
            "not run" if measured is None else f"{measured.mean:.2f}{sd}",
            "0" if measured is None else str(measured.n),
            "" if row.difference is None else f"{row.difference:+.2f}",
        )
    return table


_ACCURACY_HEAD = ("data", "f", "loss", "weights", "paper", "measured", "seeds", "difference")


def accuracy_cells(compared: Sequence[Accuracy]) -> list[tuple[str, ...]]:
    """Return published and measured accuracies on skeletons as text, one row a setting."""
    cells: list[tuple[str, ...]] = []
    for row in compared:
        cell, measured, gain = row.cell, row.measured, row.gain
        sd = "" if measured is None or measured.sd is None else f" ± {measured.sd:.1f}"
        change = "" if row.difference is None else f"{row.difference:+.1f}"
        if gain is not None:
            change = f"{gain.mean:+.1f}"
            if gain.low is not None and gain.high is not None:
                change += f" [{gain.low:+.1f}, {gain.high:+.1f}]"
        cells.append(
            (
                f"jhmdb{cell.classes}"
                + ("" if cell.imbalance_factor == 1 else f"-lt{cell.imbalance_factor}"),
                str(cell.filters),
                cell.loss,
                {0.0: "none", 1.0: "inverse"}.get(cell.beta, f"beta {cell.beta:g}"),
                "-" if row.published is None else f"{row.published:.1f}",
                "not run" if measured is None else f"{measured.mean:.1f}{sd}",
                "0" if measured is None else str(measured.n),
                change,
            )
        )
    return cells


def accuracy_table(compared: Sequence[Accuracy]) -> Table:
    """Return published and measured accuracies on skeletons for the terminal, within 80 columns."""
    title = (
        "test accuracy in %, mean of three splits; lt: long tail; f: filters; measured: mean ± standard "
        "deviation over seeds; difference: to the paper, or on a long tail to the same loss without weights, "
        "paired, with its 95 % interval"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=title)
    for name in _ACCURACY_HEAD:
        left = name in ("data", "loss", "weights")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for cells in accuracy_cells(compared):
        table.add_row(*cells)
    return table


def accuracy_markdown(compared: Sequence[Accuracy]) -> str:
    """Return published and measured accuracies on skeletons as a Markdown table."""
    return markdown(_ACCURACY_HEAD, accuracy_cells(compared))


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(
        "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _mean(summary: Summary | None) -> str:
    return "n/a" if summary is None else f"{100 * summary.mean:.1f}"


def _mean_sd(summary: Summary | None) -> str:
    if summary is None:
        return "n/a"
    spread = "" if summary.sd is None else f" ± {100 * summary.sd:.1f}"
    return f"{100 * summary.mean:.1f}{spread}"
