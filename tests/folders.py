"""What a run needs, run folders as earlier versions left them, and ways to damage one."""

import json
from pathlib import Path

import numpy as np


def unseal(folder, without=()):
    """Make a folder one of an earlier version, which had no manifest, and knew less of its making."""
    (Path(folder) / "manifest.json").unlink()
    file = Path(folder) / "environment.json"
    about = json.loads(file.read_text())
    kept = {name: value for name, value in about.items() if name not in ("manifest", *without)}
    file.write_text(json.dumps(kept))


def flip(file, at, bit=0):
    """Turn one bit of a file over."""
    data = bytearray(Path(file).read_bytes())
    data[at] ^= 1 << bit
    Path(file).write_bytes(bytes(data))


def write_photos(root, counts=(24, 9, 5), test=(3, 2, 2), size=48):
    """Real photographs' parts, in class folders: enough to train on, not to learn from."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    rng = np.random.default_rng(0)
    for part, sizes in (("train", counts), ("val", test)):
        for c, n in enumerate(sizes):
            folder = Path(root) / part / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(n):
                picture = pictures[c % 2]
                y, x = (rng.integers(0, side - size) for side in picture.shape[:2])
                pixels = picture[y : y + size, x : x + size]
                Image.fromarray(255 - pixels if c == 2 else pixels).save(folder / f"{i}.jpg")
    return Path(root)


def write_tiny(folder):
    """Write a small network's configuration, without weights and without batch norm; return where."""
    from transformers import ConvNextConfig

    config = ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2, patch_size=4)
    config.save_pretrained(folder)
    return str(folder)


def write_trained(folder):
    """Write such a network with weights, and return where."""
    import torch
    from transformers import AutoModelForImageClassification, ConvNextConfig

    config = ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 16], num_stages=2, patch_size=4)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return str(folder)
