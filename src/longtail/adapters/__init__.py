"""The library inside other people's frameworks: one file each, which imports its framework alone.

Importing this package imports none of them; ``longtail.adapters.sklearn`` does when it is first used. Another
package adds an adapter under a name: ``NAMES.register("longtail.adapters.mine", "my_package.mine")``, with
`longtail.extend.NAMES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from longtail._registry import added

if TYPE_CHECKING:
    from longtail.adapters import keras as keras
    from longtail.adapters import sklearn as sklearn
    from longtail.adapters import transformers as transformers

__all__ = ["sklearn", "transformers", "keras"]


def __getattr__(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}") if name in __all__ else added(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
