"""What DD-Net sees of a clip, as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

# JHMDB's joints: neck, belly, face, then right and left of shoulders, hips, elbows, knees, wrists, ankles
JHMDB_BONES = (
    *((0, 2), (0, 1), (0, 3), (0, 4), (1, 5), (1, 6)),
    *((3, 7), (4, 8), (7, 11), (8, 12), (5, 9), (6, 10), (9, 13), (10, 14)),
)


def draw_skeleton(
    clip: npt.NDArray[np.floating],
    path: str | os.PathLike[str],
    *,
    bones: Sequence[tuple[int, int]] = JHMDB_BONES,
    title: str = "",
) -> Path:
    """Draw one clip and what DD-Net sees of it: five poses, the distances' matrix, and both motions.

    Args:
        clip: joint positions of shape (T, J, D) with T at least 5; the first two coordinates are drawn, the
            second one downwards, as pixels count.
        path: the picture's file; the ending chooses the format (.png, .svg, .pdf).
        bones: pairs of joints to join by a line.
        title: above the poses.

    Returns:
        The path.

    Raises:
        ValueError: another number of axes, or too few frames.
    """
    import torch
    from matplotlib.figure import Figure

    from longtail.skeletons.ddnet import joint_collection_distances, two_scale_motion

    if clip.ndim != 3 or len(clip) < 5:
        raise ValueError(f"clip must have shape (T, J, D) with T at least 5, got {clip.shape}")
    frames, joints = clip.shape[:2]
    positions = torch.from_numpy(np.asarray(clip, np.float32))[None]
    slow, fast = (m[0].reshape(m.shape[1], joints, -1).norm(dim=2).T for m in two_scale_motion(positions))
    middle = frames // 2
    matrix = np.zeros((joints, joints))
    matrix[np.triu_indices(joints, 1)] = joint_collection_distances(positions)[0, middle].numpy()

    figure = Figure(figsize=(9.5, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.15))
    poses = figure.add_subplot(grid[0, :])
    width = 1.4 * np.ptp(clip[..., 0])
    for place, k in enumerate(np.linspace(0, frames - 1, 5).round().astype(int)):
        x, y = clip[k, :, 0] + place * width, clip[k, :, 1]
        for one, other in bones:
            poses.plot(x[[one, other]], y[[one, other]], color="#0072B2", linewidth=2)
        poses.plot(x, y, "o", color="#D55E00", markersize=3)
        middle_x, below = place * width + clip[..., 0].mean(), clip[..., 1].max()
        poses.text(middle_x, below, f"\nframe {k}", ha="center", va="top", fontsize=9)
    poses.set_aspect("equal")
    poses.invert_yaxis()
    poses.set_axis_off()
    poses.set_title(title, fontsize=10)
    panels = (
        (matrix + matrix.T, f"distances of joints (JCD), frame {middle}", "joint"),
        (slow.numpy(), "slow motion, length per joint", "frame"),
        (fast.numpy(), "fast motion, length per joint", "every other frame"),
    )
    for column, (values, name, below) in enumerate(panels):
        axes = figure.add_subplot(grid[1, column])
        image = axes.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(below)
        axes.set_ylabel("joint" if column == 0 else "")
        axes.set_yticks(range(0, joints, 1 + joints // 10))
        figure.colorbar(image, ax=axes)
    figure.savefig(path, dpi=150)
    return Path(path)
