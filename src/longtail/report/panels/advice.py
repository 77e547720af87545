"""What should I use?"""

from __future__ import annotations

from longtail.compare import ComparisonTable
from longtail.compare.advice import advise
from longtail.datasets import DATASETS
from longtail.report.blocks import Card, Code, Heading, Panel, Text
from longtail.training.recipe import ImageRecipe


def panel(table: ComparisonTable) -> Panel:
    """Show what is recommended for balanced and for natural test data, and the code for it."""
    found = advise(table)
    # a recipe says what to train of data that have a name, and of lists of images
    again = isinstance(table.recipe, ImageRecipe) or table.recipe.dataset in DATASETS.names
    cards = []
    for a in found:
        keep, labels = f"Run to keep: {a.folder}", a.prior == "labels"
        if a.folder is None:
            keep = "Runs of a table keep no model: the line above fits it to all rows"
        elif table.recipe.folds:
            keep += (
                f", the first of {a.seeds} folds, which has not learned from the rows that it was tested on. "
                "The line above, on all rows, makes one that has"
            )
        elif a.seeds > 1:
            keep += (
                f", the first of {a.seeds} {table.unit}s. They differ by luck alone: taking the one with "
                "the lowest test error would be choosing on the test set"
            )
        blocks = [
            Heading(a.when.capitalize() if labels else f"{a.prior.capitalize()} test prior: {a.when}"),
            *(Text(a.rule), Text(a.finding, lead="Here:"), Code(a.code)),
            Text(f"{keep}.", "dim")
            if not again or a.folder is None
            else Text(f"{keep}. The same again:", "dim", code=f"longtail train {a.folder}/recipe.json"),
        ]
        cards.append(Card(blocks))
    answer = " ".join(
        a.finding if a.prior == "labels" else f"{a.prior.capitalize()} test data: {a.finding}" for a in found
    )
    return Panel("What should I use?", cards, "What should I use?", answer)
