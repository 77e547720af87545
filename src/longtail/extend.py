"""What applications and other packages add to the library with.

Each room has a registry of what it looks up by name, such as `longtail.datasets.DATASETS`,
`longtail.models.NETWORKS` and `longtail.training.registries.AUGMENTATIONS`. A package's entry point under
"longtail.applications" names a function that fills them; it is called when first a name is not found. It must
not import torch: `later` is for what does.
"""

from longtail._checks import choice, describe, integer, number, short, shorten
from longtail._registry import NAMES, Registry, later

__all__ = ["NAMES", "Registry", "later", "choice", "describe", "integer", "number", "short", "shorten"]
