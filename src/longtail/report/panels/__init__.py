"""The panels of a report, in their order on the page. Another package adds one by ``PANELS.register``."""

from longtail.report.blocks import PANELS
from longtail.report.panels import (
    advice,
    certainty,
    class_table,
    classes,
    confusions,
    explorer,
    provenance,
    results,
    tail,
)

__all__ = ["PANELS"]

for _module in (
    tail,
    explorer,
    results,
    classes,
    confusions,
    class_table,
    certainty,
    advice,
    provenance,
):
    PANELS.register(_module.__name__.rpartition(".")[2], _module.panel)
