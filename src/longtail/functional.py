"""The class-balanced losses as functions; the short name of ``longtail.losses.functional``."""

from longtail.losses.functional import class_balanced_asymmetric_loss as class_balanced_asymmetric_loss
from longtail.losses.functional import (
    class_balanced_binary_cross_entropy as class_balanced_binary_cross_entropy,
)
from longtail.losses.functional import class_balanced_cross_entropy as class_balanced_cross_entropy
from longtail.losses.functional import (
    class_balanced_distribution_balanced_loss as class_balanced_distribution_balanced_loss,
)
from longtail.losses.functional import class_balanced_focal_loss as class_balanced_focal_loss
from longtail.losses.functional import class_balanced_softmax_focal_loss as class_balanced_softmax_focal_loss
from longtail.losses.linear import (
    class_balanced_linear_cross_entropy as class_balanced_linear_cross_entropy,
)
from longtail.losses.linear import class_balanced_linear_focal_loss as class_balanced_linear_focal_loss

__all__ = [
    "class_balanced_cross_entropy",
    "class_balanced_binary_cross_entropy",
    "class_balanced_focal_loss",
    "class_balanced_softmax_focal_loss",
    "class_balanced_asymmetric_loss",
    "class_balanced_distribution_balanced_loss",
    "class_balanced_linear_cross_entropy",
    "class_balanced_linear_focal_loss",
]
