"""A sample of the losses' battery on the plain path, which "auto" leaves to soft labels and compilers.

`make backends` runs all of it on every path.
"""

from __future__ import annotations

import pytest

import test_losses
from longtail.losses.fast import fused

rng = test_losses.rng
test_values = test_losses.test_values_and_gradients_match_the_definition
test_reductions = test_losses.test_reductions_match_the_definition
test_1e4 = test_losses.test_logits_to_1e4_are_finite_and_right
test_all_ignored = test_losses.test_all_ignored_is_zero_with_a_zero_gradient
test_n_d = test_losses.test_n_d_equals_flattened


@pytest.fixture(autouse=True, scope="module")
def _plain():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "worthwhile", lambda input, form: False)
        yield
