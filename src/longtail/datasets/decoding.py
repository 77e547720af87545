"""From an image file to a normalised array: decode no more than is needed, crop and resize in one step.

A JPEG can be decoded at a half, a quarter or an eighth of its size for less work, and a resize can read
from a box of its input. Together they replace decoding everything, cropping and resizing.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail.sources.counted import needs

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
Channels = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INATURALIST_MEAN, INATURALIST_STD = (0.466, 0.471, 0.380), (0.195, 0.194, 0.192)
_ORIENTATION: Final = 0x0112  # of EXIF
_XMP = re.compile(rb"tiff:Orientation(?:=\"|='|>)([0-9])")
# what Pillow's readers raise on broken files
BROKEN: Final = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, ArithmeticError),
    *(struct.error, zlib.error),
)
_TURNS: Final = (  # of orientations 2 to 8
    *(
        "FLIP_LEFT_RIGHT",
        "ROTATE_180",
        "FLIP_TOP_BOTTOM",
        "TRANSPOSE",
        "ROTATE_270",
        "TRANSVERSE",
        "ROTATE_90",
    ),
)
_BITS: Final = (8, 10, 12, 14, 16)  # of cameras and scanners
_SCALES: Final = (8, 4, 2)  # at which libjpeg decodes for less work
MARGIN: Final = 1.25  # what is left for the filter of the resize, where results are to equal the plain way's
_TRIES: Final = 10


@dataclass(frozen=True)
class TrainTransform:
    """A random part of an image, resized to a square, mirrored in half of the cases.

    As `torchvision.transforms.RandomResizedCrop` and a horizontal flip: the part has an area of `area` of
    the image and a width of `ratio` of its height, log-uniform; if ten draws do not fit, it is the middle
    of the image.

    Args:
        size: Height and width of the result, such as 224 or 320.
        mean: Of each channel, in 0..1.
        std: Of each channel, above 0.
        area: Smallest and largest part of the image's area.
        ratio: Smallest and largest width over height.
        flip: Probability of a mirrored image; 0 where left and right differ, as on traffic signs.

    Example:
        >>> from PIL import Image
        >>> TrainTransform(32)(Image.new("RGB", (100, 80)), np.random.default_rng(0)).shape
        (3, 32, 32)
    """

    size: int
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        _check(self.size, self.mean, self.std)
        for name, (low, high), top in (("area", self.area, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < low <= high <= top:
                raise ValueError(f"{name} must rise and lie in (0, {top:g}], got {(low, high)}")
        _checks.number("flip", self.flip, low=0, high=1)

    def __call__(self, image: Image, draw: np.random.Generator) -> Pixels:
        """Return float32 of shape (3, size, size).

        Args:
            image: Just opened, so that a JPEG need not be decoded at its full size.
            draw: Gives five numbers or more; the result depends on it and the image alone.
        """
        width, height = upright_size(image)
        pixels = np.asarray(cut(image, self._box(width, height, draw), self.size))
        if draw.random() < self.flip:
            pixels = pixels[:, ::-1]
        return normalise(pixels, self.mean, self.std)

    def _box(self, width: int, height: int, draw: np.random.Generator) -> Box:
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_TRIES):
            part = width * height * (self.area[0] + draw.random() * (self.area[1] - self.area[0]))
            ratio = math.exp(low + draw.random() * (high - low))
            w, h = round(math.sqrt(part * ratio)), round(math.sqrt(part / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = int(draw.random() * (width - w + 1))
                top = int(draw.random() * (height - h + 1))
                return left, top, left + w, top + h
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class EvalTransform:
    """The middle of an image: its shorter side resized to size * 256 / 224, then a centre crop.

    Args:
        size: Height and width of the result, such as 224 or 320.
        mean: Of each channel, in 0..1.
        std: Of each channel, above 0.

    Example:
        >>> from PIL import Image
        >>> EvalTransform(32)(Image.new("RGB", (100, 80))).shape
        (3, 32, 32)
    """

    size: int
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def __post_init__(self) -> None:
        _check(self.size, self.mean, self.std)

    def __call__(self, image: Image, draw: np.random.Generator | None = None) -> Pixels:
        """Return float32 of shape (3, size, size).

        Args:
            image: Just opened, so that a JPEG need not be decoded at its full size.
            draw: Not used; transforms for training and evaluation are called alike.
        """
        width, height = upright_size(image)
        short = round(self.size * 256 / 224)
        # the size after a resize of the whole image, in whole pixels as torchvision rounds them
        w, h = (
            (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        )
        left, top = round((w - self.size) / 2), round((h - self.size) / 2)
        x, y = width / w, height / h
        box = (left * x, top * y, (left + self.size) * x, (top + self.size) * y)
        return normalise(np.asarray(cut(image, box, self.size, MARGIN)), self.mean, self.std)


def orientation(image: Image) -> int:
    """Return how an image is to be turned, 1 to 8 as EXIF has it; 1 where that is not said, or oddly.

    Only this tag is read: other fields may be broken, and do not matter. A TIFF is turned by Pillow when it
    is loaded.
    """
    if hasattr(image, "tag_v2"):
        return 1
    found = _tag(_exif(image))
    if found is None:  # as Pillow, which looks at XMP next
        text = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        told = _XMP.search(text.encode() if isinstance(text, str) else bytes(text))
        found = int(told[1]) if told else 1
    return found if 1 <= found <= 8 else 1


def _exif(image: Image) -> bytes:
    """Return the EXIF block of an image, from its byte order on."""
    data = image.info.get("exif") or b""
    if not data and "Raw profile type exif" in image.info:  # of older PNG files, in hexadecimal digits
        with contextlib.suppress(ValueError):
            data = bytes.fromhex("".join(str(image.info["Raw profile type exif"]).split("\n")[3:]))
    return bytes(data).removeprefix(b"Exif\0\0") if isinstance(data, (bytes, bytearray)) else b""


def _tag(data: bytes) -> int | None:
    """Return the number under the orientation's tag in the first directory of a TIFF block."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", data, place)
            if tag == _ORIENTATION:
                form = {1: "B", 3: "H", 4: "I"}.get(kind)
                if form is None or count != 1:
                    return 1
                return int(struct.unpack_from(order + form, data, place + 8)[0])
    except struct.error:  # the block is cut short
        pass
    return None


def upright_size(image: Image) -> tuple[int, int]:
    """Return width and height of an image held as its EXIF orientation says."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)


def opened(file: str | os.PathLike[str] | BinaryIO) -> Image:
    """Open an image; it is not decoded yet.

    Raises:
        OSError: no image, a broken one, or one that is too large to be decoded.
        ModuleNotFoundError: the library for its kind is not installed.
    """
    pillow = needs("PIL.Image", "images need", "images")
    if isinstance(file, (str, os.PathLike)) and str(file).lower().endswith((".heic", ".heif", ".hif")):
        needs("pillow_heif", f"image {file} needs", "images").register_heif_opener()
    with _one_error():
        image: Image = pillow.open(file)
        return image


def load(image: Image) -> None:
    """Decode an image.

    Raises:
        OSError: it is broken.
    """
    with _one_error():
        image.load()


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Turn what Pillow's readers raise on broken files into one kind of error."""
    bomb = needs("PIL.Image", "images need", "images").DecompressionBombError
    try:
        yield
    except OSError:
        raise
    except (*BROKEN, RuntimeError, TypeError, AttributeError, bomb) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _turned(image: Image) -> Image:
    """Load an image and hold it upright."""
    from PIL.Image import Transpose

    turn = orientation(image)
    load(image)
    return image if turn == 1 else image.transpose(Transpose[_TURNS[turn - 2]])


def cut(image: Image, box: Box, size: int, margin: float = 1.0) -> Image:
    """Return a box of an image that was just opened, upright, in RGB, resized to a square.

    The box is left, top, right and bottom, in pixels of the upright image. A JPEG is decoded at a smaller
    scale if the box then still has `margin` pixels for each one of the result.
    """
    from PIL.Image import Resampling

    sides = box[2] - box[0], box[3] - box[1]
    scale = next((s for s in _SCALES if min(sides) >= s * size * margin), 1)
    if scale > 1 and image.draft("RGB", (image.width // scale, image.height // scale)) is None:
        scale = 1  # no JPEG
    image = _turned(image)
    part = (box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale)
    return _rgb(image).resize((size, size), Resampling.BILINEAR, box=part)


def upright(image: Image, size: int) -> Image:
    """Return an image that was just opened, upright and in RGB.

    A JPEG is decoded at a smaller scale if its shorter side then still has `MARGIN` pixels for each of
    `size`; 0 decodes it whole.
    """
    scale = next((s for s in _SCALES if size and min(image.size) >= s * size * MARGIN), 1)
    if scale > 1:
        image.draft("RGB", (image.width // scale, image.height // scale))
    return _rgb(_turned(image))


def _rgb(image: Image) -> Image:
    """Return an image in RGB: transparent parts are white, 10 to 16 bits are scaled by the range in use."""
    from PIL.Image import alpha_composite, fromarray, new

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # Pillow's own conversion turns all above 255 white
        values: npt.NDArray[Any] = np.asarray(image)
        low, high = (int(x) for x in (values.min(), values.max()))
        if low < 0 or high > 0xFFFF:
            raise ValueError(f"its values go from {low} to {high}; save it with 8 or 16 bits")
        bits = next(b for b in _BITS if high < 1 << b)
        return fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError(f"its mode is {image.mode}, whose range is unknown; save it with 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            image = alpha_composite(new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def normalise(pixels: npt.NDArray[np.uint8], mean: Channels, std: Channels) -> Pixels:
    """Return (x / 255 - mean) / std of an image (H, W, 3), as float32 of shape (3, H, W)."""
    factor = (1 / (255 * np.asarray(std))).astype(np.float32)
    offset = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    out = np.empty((3, *pixels.shape[:2]), np.float32)
    np.multiply(pixels.transpose(2, 0, 1), factor[:, np.newaxis, np.newaxis], out=out)
    out += offset[:, np.newaxis, np.newaxis]
    return out


def _check(size: int, mean: Channels, std: Channels) -> None:
    _checks.integer("size", size, low=1)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            raise ValueError(f"{name} must be three numbers{' above 0' * (name == 'std')}, got {values!r}")
