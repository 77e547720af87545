"""Images per second and core: decoding no more than is needed against decoding everything.

    python benchmarks/images.py [FOLDER_OF_JPEGS]

The pictures are scikit-learn's two photographs, enlarged to 1024 pixels, or those of a folder as they are.
Both sides read the same bytes from memory, cut the same boxes (of the same seeds), filter bilinearly and
normalise with the same function; only the order of the steps differs. The result, with how far the
evaluation transform is from the plain way, is results/benchmarks/images.json.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from core import RESULTS, interleave, provenance, put_in_page, row
from PIL import Image
from sklearn.datasets import load_sample_images

from longtail.datasets.decoding import normalise
from longtail.datasets.images import EvalTransform, TrainTransform

LONG_SIDE, QUALITY, ROUNDS, CROPS = 1024, 90, 15, 6


def photographs(folder: Path | None) -> tuple[list[bytes], str]:
    """JPEG files as bytes, and what they are."""
    if folder is not None:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        return [path.read_bytes() for path in found], f"{len(found)} JPEGs of {folder.name}"
    files = []
    for name in load_sample_images().filenames:
        picture = Image.open(name)
        size = (LONG_SIDE, round(picture.height * LONG_SIDE / picture.width))
        buffer = io.BytesIO()
        picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
        files.append(buffer.getvalue())
    return files, f"JPEGs of {LONG_SIDE}x{size[1]}"


def plain_train(image: Image.Image, draw: np.random.Generator, t: TrainTransform) -> np.ndarray:
    """Decode all, crop, resize, mirror: the same random numbers as `TrainTransform`."""
    image = image.convert("RGB")
    part = image.crop(t._box(*image.size, draw)).resize((t.size, t.size), Image.Resampling.BILINEAR)
    if draw.random() < t.flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalise(np.asarray(part), t.mean, t.std)


def plain_evaluation(image: Image.Image, t: EvalTransform) -> np.ndarray:
    """Decode all, resize all, crop the middle."""
    image, short = image.convert("RGB"), round(t.size * 256 / 224)
    w, h = image.size
    w, h = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    left, top = round((w - t.size) / 2), round((h - t.size) / 2)
    part = image.resize((w, h), Image.Resampling.BILINEAR)
    return normalise(np.asarray(part.crop((left, top, left + t.size, top + t.size))), t.mean, t.std)


def over(files: list[bytes], one: Callable[[Image.Image, np.random.Generator], object]) -> Callable[[], None]:
    """All files, several crops of each."""

    def run() -> None:
        for seed in range(CROPS):
            for index, content in enumerate(files):
                one(Image.open(io.BytesIO(content)), np.random.default_rng((seed, 0, index)))

    return run


def main(folder: Path | None = None) -> None:
    """Measure training and evaluation at 224 and 320, and write the result file and the page's table."""
    files, what = photographs(folder)
    calls, rows = CROPS * len(files), []
    about = provenance()
    for size in (224, 320):
        train, evaluation = TrainTransform(size), EvalTransform(size)
        pairs: list[tuple[str, Any, Any]] = [
            ("train", train, lambda image, draw, t=train: plain_train(image, draw, t)),
            ("evaluation", evaluation, lambda image, draw, t=evaluation: plain_evaluation(image, t)),
        ]
        for name, ours, theirs in pairs:
            times = interleave(over(files, ours), over(files, theirs), ROUNDS)
            figures = row(
                f"{name} transform at {size}, {what}",
                "decode all, crop, resize" if name == "train" else "decode all, resize, crop",
                *times,
                1 / 1.8,
            )
            seconds = figures["seconds"]
            rate = {side: calls / seconds[side] for side in seconds}
            rows.append(figures | {"speed_up": 1 / figures["ratio"], "images_per_second_and_core": rate})
        rows[-1]["levels_of_255_from_plain"] = levels_apart(files, evaluation)
        print(rows[-1]["levels_of_255_from_plain"], flush=True)
    if folder is None:
        result = {"name": "images"} | about | {"rows": rows}
        (RESULTS / "images.json").write_text(json.dumps(result, indent=2) + "\n")
        write_page(result)


def levels_apart(files: list[bytes], transform: EvalTransform) -> dict[str, float]:
    """How far an evaluation transform is from the plain way, in levels of 0..255."""
    scale, apart = 255 * np.array(transform.std)[:, np.newaxis, np.newaxis], []
    for content in files:
        ours, plain = (Image.open(io.BytesIO(content)) for _ in range(2))
        apart.append(np.abs(transform(ours) - plain_evaluation(plain, transform)) * scale)
    every = np.concatenate([levels.ravel() for levels in apart])
    return {"mean": float(every.mean()), "quantile_99": float(np.quantile(every, 0.99))}


def write_page(result: dict[str, Any]) -> None:
    """Put the figures into the page's table."""
    lines = [
        f"{result['device']}, one core, {result['date'][:10]}, commit {(result['commit'] or '?')[:10]}, load "
        f"{result['load_average_before']} before:",
        "",
        "| | images per second and core | the plain way | speed (quartiles) | asked | levels of 255 apart |",
        "|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        low, high = (1 / q for q in reversed(r["ratio_quartiles"]))
        rate, apart = r["images_per_second_and_core"], r.get("levels_of_255_from_plain")
        levels = "" if apart is None else f"mean {apart['mean']:.2f}, 99 % within {apart['quantile_99']:.0f}"
        lines.append(
            f"| {r['case']} | {rate['ours']:.0f} | {rate['other']:.0f} | {r['speed_up']:.1f}x ({low:.1f} to "
            f"{high:.1f}) | 1.8x, {'met' if r['passed'] else '**missed**'} | {levels} |"
        )
    put_in_page("images", lines)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
