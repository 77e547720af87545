"""Loss and gradient in one pass over the logits, and when "auto" takes it: where it was measured to pay.

On a CPU results/benchmarks/loss-cpu.json shows the fused path right and faster where `pays` says so. On a GPU
"auto" is plain PyTorch until a result file of that kind of GPU says otherwise (:mod:`longtail._measured`).
"""

from __future__ import annotations

from typing import NamedTuple

from longtail import _checks, _measured

KINDS = ("softmax", "sigmoid")
# below this many elements, and for segmentation, F.cross_entropy's few kernels cost less than ours
SOFTMAX_FROM = 1 << 18


class Setting(NamedTuple):
    """Which loss: what the fused paths need to know besides tensors."""

    kind: str  # one of KINDS: the activation of a focal loss, gamma 0 for the cross-entropy
    gamma: float
    smoothing: float
    ignore_index: int
    ignores: bool = True  # False where no label is ignore_index
    name: str = ""  # of the form, as the measurements call it


def check_kind(kind: str) -> None:
    """Refuse a loss that no fused path computes."""
    if kind not in KINDS:
        _checks.choice("kind", kind, KINDS)


def pays(
    setting: Setting,
    elements: int,
    dimensions: int,
    device: str,
    gpu: str = "",
    table: _measured.Table | None = None,
) -> bool:
    """Whether "auto" prefers the fused path, for inputs that it could take.

    Args:
        setting: which loss.
        elements: of the logits.
        dimensions: of the logits; 2 is (N, C).
        device: "cpu", "cuda", ....
        gpu: what kind of GPU, as torch.cuda.get_device_name says.
        table: what was measured, by kind of GPU; default: the packaged table.
    """
    if device == "cuda":
        return setting.name in _measured.gpu(gpu, table).fused
    cross_entropy = setting.kind == "softmax" and setting.gamma == 0.0
    return device == "cpu" and not (cross_entropy and (elements < SOFTMAX_FROM or dimensions > 2))
