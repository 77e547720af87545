"""Pictures as cameras, scanners and cutting tools write them: upright, bright as taken, or one clear line."""

import io
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from longtail.datasets import load_images
from longtail.datasets.decoding import EvalTransform, orientation, upright, upright_size
from longtail.datasets.images import ImageList, UnreadableImageError, in_memory, list_images

DATA = Path(__file__).parent / "data"
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how to store a picture that is shown upright by this tag


def picture():
    """Every corner of another colour, wider than high."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return Image.fromarray(pixels)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def block(*fields, order="<", count=None):
    """An EXIF block of fields (tag, kind, count, value)."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    body = struct.pack(order + "H", len(fields) if count is None else count)
    for tag, kind, number, value in fields:
        form = {3: "HH", 1: "BBH"}.get(kind, "I")
        packed = struct.pack(order + form, *((value,) if form == "I" else (value, *[0] * (len(form) - 1))))
        body += struct.pack(order + "HHI", tag, kind, number) + packed
    return b"Exif\0\0" + mark + struct.pack(order + "I", 8) + body + b"\0" * 4


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_of_every_kind_is_shown_upright(tag, kind):
    stored = picture() if tag == 1 else picture().transpose(Image.Transpose(TURNS[tag]))
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif, **options)
    assert upright_size(Image.open(io.BytesIO(data))) == (64, 48)
    shown = upright(Image.open(io.BytesIO(data)), 0)
    apart = np.abs(np.asarray(shown).astype(int) - np.asarray(picture()))
    assert np.quantile(apart, 0.9) <= 6
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(theirs))
    whole = EvalTransform(32)(Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(whole, EvalTransform(32)(theirs), atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of fields that nobody asks for
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ([(0x0112, 3, 1, 6)], 6),
        ([(0x0112, 4, 1, 8)], 8),
        ([(0x0112, 1, 1, 3)], 3),
        ([(0x010F, 2, 4, 0), (0x0112, 3, 1, 5)], 5),
        ([(0x0112, 3, 1, 0)], 1),
        ([(0x0112, 3, 1, 9)], 1),
        ([(0x0112, 4, 1, 2**32 - 1)], 1),
        ([(0x0112, 3, 2, 6)], 1),
        ([(0x0112, 2, 1, 6)], 1),
        ([(0x010F, 2, 2**31, 2**31), (0x829A, 5, 1, 7), (0x0112, 3, 1, 6)], 6),  # others point nowhere
    ],
)
def test_the_tag_alone_is_read(fields, wanted, order):
    image = Image.open(io.BytesIO(encoded(picture(), "JPEG", exif=block(*fields, order=order))))
    assert orientation(image) == wanted
    assert upright_size(image) == ((48, 64) if wanted >= 5 else (64, 48))
    assert EvalTransform(16)(image).shape == (3, 16, 16)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_no_exif_block_ends_a_run(data, kind):
    """By hand, 6,000 such files: none raised. Where Pillow reads the block, the pictures are the same."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    exif[0x8769] = {0x9003: "2020", 0x829A: 0.01}
    broken = bytearray(exif.tobytes())
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(6, len(broken) - 1))] = data.draw(st.integers(0, 255))
    file = encoded(picture(), kind, exif=bytes(broken[: data.draw(st.integers(8, len(broken)))]))
    shown = upright(Image.open(io.BytesIO(file)), 0)
    assert sorted(shown.size) == [48, 64]
    assert EvalTransform(16)(Image.open(io.BytesIO(file))).shape == (3, 16, 16)


@pytest.fixture
def photos(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            picture().save(tmp_path / name / f"{i}.jpg")
    return tmp_path


def test_the_files_that_ended_runs_are_read(photos):
    shutil.copy(DATA / "exif_struct_error.jpg", photos / "cat")
    shutil.copy(DATA / "orientation6.tif", photos / "dog")
    train, test = load_images(photos)
    assert sum(map(len, (train, test))) == 10
    for images in (train, test):
        assert images.checked() is images
    data = in_memory(train, test, 16, name="photos")
    assert len(data.train) + len(data.test) == 10
    with Image.open(DATA / "orientation6.tif") as turned:
        assert upright_size(turned) == upright(turned, 0).size == (64, 48)


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_greys_are_as_bright_as_they_were_taken(top, bits, kind):
    ramp = np.linspace(0, top, 64, dtype=np.uint16)[np.newaxis].repeat(64, 0)
    shown = np.asarray(upright(Image.open(io.BytesIO(encoded(Image.fromarray(ramp), kind))), 0))
    wanted = (ramp.astype(float) / (2**bits) * 256).astype(int)
    np.testing.assert_array_equal(shown, wanted[..., np.newaxis].repeat(3, -1))


def test_numbers_without_a_range_are_one_line():
    for values in (
        np.full((8, 8), 1e6, np.int32),
        np.full((8, 8), 0.5, np.float32),
        -np.ones((8, 8), np.int32),
    ):
        image = Image.open(io.BytesIO(encoded(Image.fromarray(values), "TIFF")))
        with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
            upright(image, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_whatever_colour_hides_there(mode):
    cut = picture().convert("RGBA")
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[24:, 32:] = 0
    alpha[:24, 32:] = 128
    cut.putalpha(Image.fromarray(alpha))
    if mode == "P":
        flat = picture().quantize(4)
        hidden = flat.getpixel((60, 44))
        image = Image.open(io.BytesIO(encoded(flat, "PNG", transparency=hidden)))
    else:
        image = Image.open(io.BytesIO(encoded(cut.convert(mode), "PNG")))
    shown = np.asarray(upright(image, 0))
    assert shown[40, 50].tolist() == [255, 255, 255]
    if mode == "RGBA":
        assert shown[10, 10].tolist() == [250, 0, 0]
        assert np.abs(shown[10, 50].astype(int) - [127, 252, 127]).max() <= 1  # half through


def test_all_bad_files_are_named_at_once_and_the_remedy_is_an_option(photos):
    for i in range(3):
        (photos / "cat" / f"bad {i}.jpg").write_bytes(b"none")
    picture().save(photos / "dog" / "cut.png")
    (photos / "dog" / "cut.png").write_bytes((photos / "dog" / "cut.png").read_bytes()[:-40])
    train, _ = list_images(photos)
    with pytest.raises(
        UnreadableImageError, match=r"4 of 12 images cannot be read; .*on_error='skip'"
    ) as caught:
        train.checked()
    assert all(name in str(caught.value) for name in ("bad 0", "bad 1", "bad 2", "cut.png"))
    with pytest.raises(UnreadableImageError, match=r"4 of 12 images cannot be read"):
        in_memory(train, train, 8, name="photos")
    with pytest.warns(UserWarning, match=r"4 of 12 images are left out, they cannot be read"):
        assert len(train.checked("skip")) == 8


def test_files_that_vanish_and_bombs_are_one_line(photos, monkeypatch):
    images, _ = load_images(photos)
    Path(images.name(0)).unlink()
    with pytest.raises(UnreadableImageError, match=r"image .* cannot be read: .*No such file.*; replace or"):
        images.checked()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImageError, match=r"Image size \(3072 pixels\) exceeds limit") as caught:
            ImageList(images.targets[1:2], images.class_names, images.root, images.files[1:2]).checked()
    assert "\n" not in str(caught.value)
