"""The panels of a report, in their order on the page. Another package adds one by ``PANELS.register``."""

from longtail.report.blocks import PANELS
from longtail.report.panels import (
    advice,
    certainty,
    classes,
    confusions,
    explorer,
    probabilities,
    provenance,
    results,
    tail,
)

__all__ = ["PANELS"]

for _name, _panel in {
    **{"tail": tail.panel, "explorer": explorer.panel, "results": results.panel, "classes": classes.panel},
    **{"confusions": confusions.panel, "class_table": classes.all_classes, "certainty": certainty.panel},
    **{"probabilities": probabilities.panel, "advice": advice.panel, "provenance": provenance.panel},
}.items():
    PANELS.register(_name, _panel)
