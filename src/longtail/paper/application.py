"""What this application adds to the library."""

from longtail.extend import NAMES, later
from longtail.training.registries import DEFAULTS


def register() -> None:
    """Add the paper's recipes."""
    for name in ("paper_cifar", "paper_large"):
        for module in ("longtail.training", "longtail.training.recipes"):
            NAMES.register(f"{module}.{name}", f"longtail.paper.recipes:{name}")
    for dataset in ("cifar10", "cifar20", "cifar100"):
        DEFAULTS.register(dataset, later("longtail.paper.recipes:paper_cifar", dataset=dataset))
