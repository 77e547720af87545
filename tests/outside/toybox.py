"""Another package, of one file: a toy of each kind that longtail is open to.

It is found by the entry points of its own distribution, see entry_points.txt beside it.
"""

import numpy as np
import typer


def register():
    """Add the toys to the rooms they belong to."""
    from longtail import methods
    from longtail.adjust import ADJUSTMENTS
    from longtail.extend import NAMES
    from longtail.sampling import SAMPLING
    from longtail.vectors import WEIGHTS

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


def add(app: typer.Typer) -> None:
    """Add a command."""

    @app.command()
    def toy(name: str = "world") -> None:
        """Greet."""
        from longtail.cli.terminal import console

        console.print(f"hello {name}")
