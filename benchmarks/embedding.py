"""`longtail embed` against the plain loop: decode by Pillow, the model's processor, a batched forward pass.

    python benchmarks/embedding.py

Both sides load the same model from a folder, read the same files, and end with one array in memory; ours also
hashes model and files, and writes what it computed into a new cache and its file. The model has random
weights: its speed is that of its shape. Times are the processor's, of all threads. The result is
results/benchmarks/embedding.json.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from core import RESULTS, Row, provenance, put_in_page, row
from PIL import Image
from sklearn.datasets import load_sample_images

from longtail.datasets.images import list_images
from longtail.training.embedding import embed

BATCH, ROUNDS = 32, 3
# photographs as cameras and phones make them, and small pictures
CASES = {"JPEGs of 1024 pixels": (1024, 32), "PNGs of 64 pixels": (64, 64)}


def write_images(root: Path, side: int, count: int) -> None:
    """Parts of scikit-learn's photographs, in two class folders."""
    pictures, draw = load_sample_images().images, np.random.default_rng(0)
    for number in range(count):
        folder = root / ("flower" if number % 2 else "temple")
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pictures[number % 2])
        x, y = (int(draw.integers(0, n // 4)) for n in picture.size)
        part = picture.crop((x, y, x + picture.width // 2, y + picture.height // 2)).resize(
            (side, side * 3 // 4)
        )
        part.save(folder / (f"{number}.jpg" if side > 100 else f"{number}.png"), quality=90)


def plain(folder: Path, model_folder: str) -> np.ndarray:
    """What the documentation of transformers shows, in batches."""
    model = transformers.AutoModel.from_pretrained(model_folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(model_folder)
    images, _ = list_images(folder)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = [
                Image.open(images.name(i)).convert("RGB")
                for i in range(start, min(start + BATCH, len(images)))
            ]
            pixels = processor(images=batch, return_tensors="pt")["pixel_values"]
            rows.append(model(pixel_values=pixels).pooler_output.flatten(1).numpy())
    return np.concatenate(rows)


def measure(root: Path, name: str, model: str, size: int) -> list[Row]:
    """Measure one model on all kinds of images."""
    rows, numbers = [], itertools.count()
    for case, (side, count) in CASES.items():
        folder = root / case.replace(" ", "-")
        if not folder.exists():
            write_images(folder, side, count)

        def ours(folder: Path = folder) -> np.ndarray:
            cache = root / "cache" / str(next(numbers))
            made = embed(folder, model, out=root / "f.npz", batch_size=BATCH, cache=cache)
            shutil.rmtree(cache)
            return made.X

        apart = float(np.abs(ours() - plain(folder, model)).max() / np.abs(ours()).max())
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for side, call in enumerate((ours, lambda folder=folder: plain(folder, model))):
                started = time.process_time()  # other programs at work do not count
                call()
                times[side].append(time.process_time() - started)
        figures = row(f"{name} at {size}, {count} {case}", "Pillow, processor, batches", *times, 1.0)
        seconds = figures["seconds"]
        rate = {who: count / seconds[who] for who in seconds}
        rows.append(figures | {"images_per_second": rate, "largest_difference": apart})
    return rows


def main() -> None:
    """Measure, and write the result file and the page's table."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    about, rows = provenance(), []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        torch.manual_seed(0)
        resnet = transformers.ResNetConfig(
            depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"
        )
        vit = transformers.ViTConfig(
            hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768
        )
        models: dict[str, Any] = {
            "ResNet-18": transformers.ResNetModel(resnet),
            "ViT-Ti/16": transformers.ViTModel(vit),
        }
        for name, model in models.items():
            model.save_pretrained(root / name.replace("/", "-"))
            transformers.ViTImageProcessor().save_pretrained(root / name.replace("/", "-"))
            rows += measure(root, name, str(root / name.replace("/", "-")), 224)
    result = {"name": "embedding"} | about | {"rows": rows}
    (RESULTS / "embedding.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        f"{result['device']}, {torch.get_num_threads()} threads, {result['date'][:10]}, commit "
        f"{(result['commit'] or '?')[:10]}, load {result['load_average_before']} before:",
        "",
        "| | images a processor second | the plain loop | time ratio (quartiles) | asked | features apart |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["ratio_quartiles"]
        rate = r["images_per_second"]
        lines.append(
            f"| {r['case']} | {rate['ours']:.0f} | {rate['other']:.0f} | {r['ratio']:.2f} ({low:.2f} to "
            f"{high:.2f}) | 1, {'met' if r['passed'] else '**missed**'} | "
            f"{100 * r['largest_difference']:.1f} % |"
        )
    put_in_page("embedding", lines)


if __name__ == "__main__":
    main()
