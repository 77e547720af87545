"""A stand-in until `longtail.methods` is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from longtail.training.recipe import Recipe

METHOD_FIELDS = ("loss", "scheme", "beta", "gamma", "normalizer", "label_smoothing", "prior_bias", "sampling")


@dataclass(frozen=True)
class Method:
    """A loss and a weighting."""

    loss: str
    weighting: str
    numbers: tuple[tuple[str, str | int | float | bool | None], ...]

    @property
    def plain(self) -> Method:
        """The same loss unweighted."""
        return replace(self, weighting="none", numbers=tuple(x for x in self.numbers if x[0] != "beta"))

    @property
    def settings(self) -> dict[str, str | int | float | bool | None]:
        """What is active."""
        return {"loss": self.loss, "weight": self.weighting, **dict(self.numbers)}

    @property
    def slug(self) -> str:
        """For folders."""
        return f"{self.loss}-{self.weighting}"

    @property
    def code(self) -> str:
        """The line of Python that makes the loss."""
        known = {"gamma": 2.0, "normalizer": "samples", "label_smoothing": 0.0}
        words = [f'loss="{self.loss}"', f'scheme="{self.weighting}"']
        for name in ("beta", "gamma", "normalizer", "label_smoothing"):
            if (value := self.settings.get(name)) is not None and (
                name in ("beta", "gamma") or value != known[name]
            ):
                words.append(f'{name}="{value}"' if isinstance(value, str) else f"{name}={value!r}")
        return f"criterion = longtail.ClassBalancedLoss(longtail.class_counts(labels), {', '.join(words)})"


def method_of(recipe: Recipe) -> Method:
    """Return the method of a recipe."""
    idle = {"loss", "scheme"}
    if recipe.scheme != "effective":
        idle.add("beta")
    if "focal" not in recipe.loss:
        idle.add("gamma")
    numbers = ((n, getattr(recipe, n)) for n in METHOD_FIELDS if n not in idle and hasattr(recipe, n))
    return Method(recipe.loss, recipe.scheme, tuple(numbers))
