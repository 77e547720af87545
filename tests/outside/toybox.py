"""Another package, of one file: a toy of each kind that longtail is open to.

It is found by the entry points of its own distribution, see entry_points.txt beside it.
"""

import numpy as np
import typer


def register():
    """Add the toys to the rooms they belong to."""
    from longtail import methods
    from longtail.adjust import ADJUSTMENTS
    from longtail.datasets import DATASETS, Source
    from longtail.extend import NAMES
    from longtail.report.blocks import PANELS
    from longtail.sampling import SAMPLING
    from longtail.training.registries import DEFAULTS
    from longtail.vectors import WEIGHTS

    DATASETS.register("toy_stripes", Source(stripes, built_in=True))
    DEFAULTS.register("toy_stripes", recipe)
    PANELS.register("toy", panel)
    WEIGHTS.register("toy_cube_root", cube_root)
    SAMPLING.register("toy_reversed", turned)
    methods.SCHEDULES.register("toy_middle", middle)
    ADJUSTMENTS.register("toy_lift", lift)
    toy = methods.Method(
        "toy",
        weight=methods.Rule("toy_cube_root", scale=2.0),
        sampling=methods.Rule("toy_reversed"),
        schedule=methods.Rule("toy_middle", start=0.5),
        adjustment=methods.Rule("toy_lift"),
        source="made for a test",
    )
    methods.CATALOGUE.register("toy", toy)
    NAMES.register("longtail.adapters.toy", "toybox:Learner")


class Learner:
    """A framework's own class around the library."""

    def weigh(self, labels):
        from longtail import sample_weights

        return sample_weights(labels, "inverse")


def cube_root(counts, *, scale=1.0):
    """Weights."""
    return scale / np.cbrt(np.maximum(counts, 1))


def turned(counts, progress):
    """Draw a class the more often the smaller it is."""
    return 1.0 / counts


def middle(progress, *, start=0.25):
    """Act in the later part of a training."""
    return progress >= start


def lift(logits, counts, prior):
    """Decide for the smallest class, whatever the network says."""
    return logits + 1e3 * (counts == counts.min())


def stripes():
    """Images of a stripe at one of three places."""
    from longtail.datasets import Dataset, Split

    places = np.arange(90) % 3
    images = np.zeros((90, 1, 8, 8), np.uint8)
    images[np.arange(90), 0, 2 * places] = 16
    return Dataset("toy_stripes", Split(images, places), Split(images[:30], places[:30]), ("a", "b", "c"))


def recipe():
    """What the name stands for where a recipe is asked."""
    from longtail import recipes

    return recipes.digits(dataset="toy_stripes", imbalance_factor=10.0, epochs=6, warmup_epochs=1)


def panel(table):
    """Count the methods of a comparison."""
    from longtail.report.blocks import Panel, Text

    return Panel("A toy's panel", [Text(f"{len(table.rows)} method compared")])


def add(app: typer.Typer) -> None:
    """Add a command."""

    @app.command()
    def toy(name: str = "world") -> None:
        """Greet."""
        from longtail.cli.terminal import console

        console.print(f"hello {name}")
