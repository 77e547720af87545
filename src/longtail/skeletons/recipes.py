"""The recipe of DD-Net."""

from __future__ import annotations

from longtail.training.recipes import Recipe


def ddnet(dataset: str = "jhmdb14-1", filters: int = 64, **changes: object) -> Recipe:
    """Return the recipe of DD-Net on skeletons (Yang et al., 2019).

    Augmentation and epochs were chosen by cross-validation inside the training set of JHMDB's 21 classes,
    split 1 (examples/choose_ddnet.py): 120 epochs there. Elsewhere it is 60.

    Args:
        dataset: a data set of skeletons, such as "jhmdb14-1", "jhmdb21-3" or "shrec14".
        filters: 16, 32 or 64.
        **changes: any other fields of `Recipe` to set otherwise.

    Raises:
        ValueError: as `Recipe`.
    """
    start = Recipe(
        dataset=dataset,
        model=f"ddnet{filters}",
        scheme="none",
        gamma=1.0,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="cosine",
        final_learning_rate=1e-5,
        epochs=120 if dataset.startswith("jhmdb21-") else 60,
        batch_size=32,
        augmentation="skeleton",
        eval_every=20,
    )
    return start.replace(**changes)
