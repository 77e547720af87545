"""Images on the disk: every layout read right, bad ones refused by name, decoding equal to the plain way."""

import io
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from folders import unseal
from longtail import class_counts, cli, datasets
from longtail.cli.sources import look_at_images
from longtail.datasets.decoding import MARGIN, cut, normalise, upright_size
from longtail.datasets.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INATURALIST_MEAN,
    INATURALIST_STD,
    EvalTransform,
    ImageList,
    TorchDataset,
    TrainTransform,
    UnreadableImageError,
    gtsrb,
    in_memory,
    load_images,
)
from longtail.datasets.long_tail import Dataset, Split, hold_out, long_tail_subset
from longtail.models import StridedCNN
from longtail.paper.reproduce import jobs_for, reproduce
from longtail.paper.results import columns_of, read_rows
from longtail.paper.settings import measure, signs
from longtail.paper.tables import sheet

BILINEAR = Image.Resampling.BILINEAR


@pytest.fixture(scope="session")
def photographs():
    from sklearn.datasets import load_sample_images

    return [Image.open(name).convert("RGB") for name in load_sample_images().filenames]


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


def opened(image, kind="JPEG", **options):
    return Image.open(io.BytesIO(encoded(image, kind, **options)))


@pytest.fixture(scope="session")
def pieces(photographs):
    """Small real JPEGs, 40x30, each of another part of a photograph."""
    return [
        encoded(photographs[i % 2].crop((20 * i, 10 * i, 20 * i + 160, 10 * i + 120)).resize((40, 30)))
        for i in range(20)
    ]


@pytest.fixture
def write(tmp_path, pieces):
    """Write images at these names, with real content, and return the folder."""

    def make(*names):
        for i, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pieces[i % len(pieces)])
        return tmp_path

    return make


def names_of(images):
    """(file name from the root, class name) of every image."""
    files = [os.fsdecode(f).replace(os.sep, "/") for f in images.files]
    return list(zip(files, (images.class_names[t] for t in images.targets), strict=True))


def size_of(images, index):
    with images.open(index) as image:
        return image.size


# ---- decoding


def plain_evaluation(image, size):
    """Decode all, resize the shorter side, crop the middle."""
    image, short = image.convert("RGB"), round(size * 256 / 224)
    w, h = image.size
    w, h = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    left, top = round((w - size) / 2), round((h - size) / 2)
    return np.asarray(image.resize((w, h), BILINEAR).crop((left, top, left + size, top + size)))


def levels(pixels, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """Undo the normalisation: 0..255, (H, W, 3)."""
    return (pixels.transpose(1, 2, 0).astype(np.float64) * std + mean) * 255


@pytest.mark.parametrize("size", [224, 320])
@pytest.mark.parametrize("shape", [(1024, 683), (683, 1024), (1024, 1024), (1600, 1067), (640, 427)])
def test_the_evaluation_transform_is_the_plain_way(photographs, shape, size):
    for photograph in photographs:
        jpeg = encoded(photograph.resize(shape))
        ours = Image.open(io.BytesIO(jpeg))
        pixels = EvalTransform(size)(ours)
        assert pixels.shape == (3, size, size)
        assert pixels.dtype == np.float32
        apart = np.abs(levels(pixels) - plain_evaluation(Image.open(io.BytesIO(jpeg)), size))
        scale = min(shape) / round(size * 256 / 224)
        assert ours.size[0] == (shape[0] if scale < 2 * MARGIN else -(-shape[0] // 2))  # decoded at a half
        if scale < 2 * MARGIN:
            assert apart.max() <= 2.01  # rounding of the two passes
        else:
            assert apart.mean() < 1.5
            assert np.quantile(apart, 0.99) < 10


def test_png_files_are_decoded_whole_and_equal_the_plain_way(photographs):
    png = encoded(photographs[0].resize((600, 400)), "PNG")
    apart = levels(EvalTransform(64)(Image.open(io.BytesIO(png)))) - plain_evaluation(
        Image.open(io.BytesIO(png)), 64
    )
    assert np.abs(apart).max() <= 1.01


@pytest.mark.parametrize("size", [64, 224])
def test_the_training_transform_cuts_and_mirrors_the_box_it_draws(photographs, size, seed):
    for index, photograph in enumerate(photographs):
        jpeg = encoded(photograph.resize((1024, 683)))
        for epoch in range(4):
            transform = TrainTransform(size, INATURALIST_MEAN, INATURALIST_STD)
            pixels = transform(Image.open(io.BytesIO(jpeg)), np.random.default_rng((seed, epoch, index)))
            draw = np.random.default_rng((seed, epoch, index))
            box = transform._box(1024, 683, draw)
            part = Image.open(io.BytesIO(jpeg)).crop(box).resize((size, size), BILINEAR)
            if draw.random() < 0.5:
                part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            apart = np.abs(levels(pixels, INATURALIST_MEAN, INATURALIST_STD) - np.asarray(part))
            # without a margin, a decoder's scale may leave nothing to filter: sharper, nowhere shifted
            assert apart.mean() < 5


def test_mirroring_is_never_or_always_where_asked(photographs):
    png = encoded(photographs[1].resize((80, 60)), "PNG")
    cuts = [
        TrainTransform(32, flip=flip)(Image.open(io.BytesIO(png)), np.random.default_rng(1))
        for flip in (0.0, 1.0)
    ]
    np.testing.assert_array_equal(cuts[0], cuts[1][:, :, ::-1])


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_boxes_lie_in_the_image_with_the_area_and_shape_asked(width, height, start):
    left, top, right, bottom = TrainTransform(8)._box(width, height, np.random.default_rng(start))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    assert abs(w - h) <= max(w, h) / 4 + 2 or min(width, height) < 4
    if 0.8 < width / height < 1.2 and min(width, height) > 50:
        assert 0.08 * 0.9 <= w * h / (width * height) <= 1


def test_boxes_cover_small_and_large_parts():
    draw = np.random.default_rng(0)
    boxes = np.array([TrainTransform(8)._box(400, 400, draw) for _ in range(2000)])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 160_000
    assert area.min() < 0.1
    assert area.max() > 0.9
    # uniform but for the largest ones, of which some do not fit
    assert 0.45 < area.mean() < 0.55


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photographs, orientation):
    undo = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",  # to be shown, it is turned by 270
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    upright = photographs[0].resize((800, 600))
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    tagged = opened(stored, exif=exif, quality=95)
    assert upright_size(tagged) == (800, 600)
    apart = levels(EvalTransform(64)(tagged)) - levels(EvalTransform(64)(opened(upright, quality=95)))
    assert np.abs(apart).mean() < 1.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_kind_of_picture_becomes_rgb(photographs, mode):
    grey = photographs[0].convert("L").resize((60, 40))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    else:
        image = (grey if mode == "P" else grey.convert("RGB")).convert(mode)
    options = {"transparency": b"\0" * 8} if mode == "P" else {}
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    got = levels(EvalTransform(32)(opened(image, kind, **options)))
    assert got.shape == (32, 32, 3)
    if mode != "1":  # which dithers
        wanted = levels(EvalTransform(32)(opened(grey, "PNG")))
        assert np.abs(got - wanted).mean() < 5


def test_normalisation_by_hand():
    white = np.full((2, 3, 3), 255, np.uint8)
    expected = (1 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    got = normalise(white, IMAGENET_MEAN, IMAGENET_STD)
    assert got.shape == (3, 2, 3)
    np.testing.assert_allclose(got[:, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainTransform(0), r"size must be in \[1, inf\], got 0|size must be in"),
        (lambda: EvalTransform(8, mean=(0.5, 0.5)), r"mean must be three numbers, got \(0.5, 0.5\)"),
        (lambda: EvalTransform(8, std=(1, 0, 1)), r"std must be three numbers above 0, got \(1, 0, 1\)"),
        (lambda: TrainTransform(8, area=(0.5, 1.5)), r"area must rise and lie in \(0, 1\], got \(0.5, 1.5\)"),
        (lambda: TrainTransform(8, ratio=(2, 1)), r"ratio must rise .*, got \(2, 1\)"),
        (lambda: TrainTransform(8, flip=2), r"flip must be in \[0, 1\], got 2"),
    ],
)
def test_bad_transforms_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- layouts


def test_a_folder_with_train_and_validation(write):
    root = write(
        *("train/lynx/b.jpg", "train/lynx/a.JPEG", "train/cat/deep/er/c.png", "train/cat/notes.txt"),
        *("validation/cat/d.jpg", "test/cat/e.jpg", "train/.hidden/f.jpg", "train/cat/.thumb.jpg"),
    )
    train, test = load_images(root)
    assert train.class_names == test.class_names == ("cat", "lynx")
    assert names_of(train) == [
        ("train/cat/deep/er/c.png", "cat"),
        ("train/lynx/a.JPEG", "lynx"),
        ("train/lynx/b.jpg", "lynx"),
    ]
    assert names_of(test) == [("validation/cat/d.jpg", "cat")]  # before test/
    assert dict(train.class_counts) == {"cat": 1, "lynx": 2}
    assert train.targets.dtype == np.int64
    assert size_of(train, 1) == (40, 30)


def test_class_folders_alone_are_split_by_class_and_seed(write):
    files = [f"{name}/{i:02}.jpg" for name, n in (("cat", 10), ("lynx", 2), ("puma", 1)) for i in range(n)]
    root = write(*files)
    train, test = load_images(root, validation=0.3, seed=4)
    assert dict(train.class_counts) == {"cat": 7, "lynx": 1, "puma": 1}
    assert dict(test.class_counts) == {"cat": 3, "lynx": 1, "puma": 0}
    assert sorted(names_of(train) + names_of(test)) == [(f, f.split("/")[0]) for f in sorted(files)]
    expected = long_tail_subset([0] * 10 + [1] * 2 + [2], [3, 1, 0], seed=4)
    assert [f for f, _ in names_of(test)] == [sorted(files)[i] for i in expected]
    assert names_of(load_images(root, validation=0.3, seed=5)[1]) != names_of(test)


def test_groups_are_held_out_whole(write):
    films = [
        f"{name}/film{f}-{i}.jpg"
        for name, n in (("cat", 8), ("lynx", 2), ("puma", 1))
        for f in range(n)
        for i in range(3)
    ]
    root = write(*films)
    train, test = load_images(root, groups_from=r"[^/]+/film\d+")
    assert not {*train.groups} & {*test.groups}
    assert dict(train.class_counts) == {"cat": 18, "lynx": 3, "puma": 3}
    assert dict(test.class_counts) == {"cat": 6, "lynx": 3, "puma": 0}
    assert [*test.groups] == [name.rpartition("-")[0] for name, _ in names_of(test)]
    again, same = load_images(**train.arguments)
    assert names_of(again) == names_of(train)
    assert names_of(same) == names_of(test)
    assert names_of(load_images(root)[1]) != names_of(test)
    assert names_of(load_images(root, groups_from=r"[^/]+/film\d+", seed=3)[1]) != names_of(test)


def test_numbers_that_begin_anew_in_every_class_are_told(write):
    names = [f"{c}/{t}_{i}.jpg" for c, n in (("cat", 4), ("lynx", 2)) for t in range(n) for i in range(2)]
    root = write(*names)
    with pytest.warns(UserWarning, match=r"finds numbers such as '0', which may begin anew .*\(\[\^/\]\+\)/"):
        load_images(root, groups_from=r"(\d+)_")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test = load_images(root, groups_from=r"([^/]+)/(\d+)_")
    assert {*train.groups, *test.groups} == {"/".join(n.split("_")[0].split("/")) for n in names}


def test_groups_of_a_given_test_part_that_training_has_are_told(write):
    root = write("train/cat/1_1.jpg", "train/lynx/2_1.jpg", "test/cat/1_2.jpg", "test/lynx/3_1.jpg")
    for look in (load_images, look_at_images):  # the latter for longtail train
        with pytest.warns(UserWarning, match="1 groups are in both training and test, such as '1'"):
            train, _ = look(str(root), groups_from=r"(\d+)_")
        assert train.arguments == {"groups_from": r"(\d+)_", "source": str(root)}


def test_a_rare_class_with_few_patients_is_no_numbering_that_begins_anew(write):
    root = write(*(f"{c}/p{n}_0.png" for c, found in (("a", range(20)), ("rare", [3, 11])) for n in found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(root, groups_from=r"p(\d+)_")


def test_the_expression_that_is_suggested_finds_the_groups(write):
    root = write(
        *(f"{c}/t_{t:02}_{i}.png" for c, n in (("a", 6), ("b", 2)) for t in range(n) for i in range(2))
    )
    with pytest.warns(UserWarning, match="may begin anew") as told:
        load_images(root, groups_from=r"_(\d+)_")
    suggested = str(told[0].message).rpartition("too: ")[2]
    train, test = load_images(root, groups_from=suggested)
    assert len({*train.groups, *test.groups}) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups_from": "("}, "groups_from must be a regular expression"),
        ({"groups_from": "film"}, "groups_from 'film' finds nothing in 'cat/1.jpg'"),
        ({"groups_from": "(film)?"}, r"groups_from '\(film\)\?' finds an empty text in 'cat/1.jpg'"),
        ({"groups_from": "a", "groups": "b"}, "groups= is given beside groups_from="),
        ({"groups": "film"}, r"belongs to a Hugging Face .* \(groups_from finds groups in paths\)"),
        ({"groups_from": "[cl]"}, "no group can be held out without a class losing its last one"),
    ],
)
def test_groups_that_cannot_be_found_or_held_out(write, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_images(write("cat/1.jpg", "cat/2.jpg", "lynx/1.jpg"), **arguments)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=4, max_size=120),
    st.floats(0.05, 0.6),
    st.integers(0, 5),
)
def test_what_is_held_out_by_groups(pairs, share, seed):
    targets, groups = (np.array(part) for part in zip(*pairs, strict=True))
    classes = np.unique(targets)
    targets = np.searchsorted(classes, targets)
    of_class = [{*groups[targets == c].tolist()} for c in range(len(classes))]
    try:
        out = hold_out(targets, share, seed, groups)
    except ValueError:
        # every group is the only one of some class
        alone = set().union(*(names for names in of_class if len(names) == 1))
        assert {*groups.tolist()} <= alone
        return
    kept = np.setdiff1d(np.arange(len(targets)), out)
    assert not {*groups[out].tolist()} & {*groups[kept].tolist()}
    assert np.bincount(targets[kept], minlength=len(classes)).min() > 0
    assert (
        hold_out(targets, share, seed, groups.astype(str).astype(object)).tolist()
        == hold_out(targets, share, seed, groups.astype(str)).tolist()
    )


def test_the_share_held_out_by_groups_is_near_the_one_asked():
    rng = np.random.default_rng(0)
    targets, groups = np.repeat([0, 1, 2], [4000, 400, 60]), rng.permutation(4460) // 4
    out = hold_out(targets, 0.2, 1, groups)
    shares = np.bincount(targets[out]) / np.bincount(targets)
    np.testing.assert_allclose(shares, 0.2, atol=0.06)
    own = np.concatenate([np.arange(4000) // 4, 1000 + np.arange(400) // 4, 1100 + np.arange(60) // 4])
    out = hold_out(targets, 0.2, 1, own)
    np.testing.assert_allclose(np.bincount(targets[out]) / np.bincount(targets), 0.2, atol=0.02)


def test_what_is_held_out_goes_little_beyond_the_share():
    lopsided = np.repeat(["a", "b"], [95, 5])
    for seed in range(8):
        assert len(hold_out(np.zeros(100, int), 0.2, seed, lopsided)) == 5
    rng = np.random.default_rng(3)
    targets = np.repeat(np.arange(40), np.geomspace(1000, 10, 40).astype(int))
    for seed in range(5):
        out = hold_out(targets, 0.2, seed, rng.integers(0, 300, len(targets)))
        assert 0.1 < len(out) / len(targets) < 0.3


@pytest.mark.parametrize("wrong", [1.5, "a", -1, True])
def test_seeds_are_whole_numbers(write, wrong):
    with pytest.raises((TypeError, ValueError), match="seed must be"):
        load_images(write("cat/1.jpg", "cat/2.jpg", "lynx/1.jpg"), seed=wrong)
    with pytest.raises((TypeError, ValueError), match="seed must be"):
        hold_out(np.array([0, 0, 1, 1]), 0.5, wrong, np.arange(4))
    train, _ = load_images(write("cat/1.jpg", "cat/2.jpg", "lynx/1.jpg"), seed=np.int64(3))
    assert json.loads(json.dumps(train.arguments))["seed"] == 3


def test_a_class_that_is_called_train(write):
    train, _ = load_images(write("train/a.jpg", "train/b.jpg", "plane/a.jpg", "plane/b.jpg"))
    assert train.class_names == ("plane", "train")


def test_links_are_followed_but_not_in_circles(write):
    root = write("set/cat/0.jpg", "set/dog/0.jpg", "set/cat/1.jpg", "set/dog/1.jpg", "elsewhere/2.jpg")
    (root / "set/cat/again").symlink_to(root / "set")
    (root / "set/dog/more").symlink_to(root / "elsewhere")
    train, test = load_images(root / "set")
    assert sorted(f for f, _ in names_of(train) + names_of(test)) == [
        *("cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg", "dog/more/2.jpg"),
    ]


def test_imagenet_with_its_flat_validation_folder(write):
    data = "ILSVRC/Data/CLS-LOC"
    root = write(
        *(f"{data}/train/n01440764/n01440764_1.JPEG", f"{data}/train/n01443537/n01443537_7.JPEG"),
        *(f"{data}/val/ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3)),
    )
    with pytest.raises(
        ValueError, match=r"no LOC_val_solution.csv beside it that says which image is of which"
    ):
        load_images(root)
    (root / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000002,n01443537 1 2 3 4 n01443537 5 6 7 8 \n"
        "ILSVRC2012_val_00000001,n01440764 85 1 499 272\nILSVRC2012_val_00000003,n01443537 1 1 2 2\n"
    )
    train, test = load_images(root)
    assert train.class_names == ("n01440764", "n01443537")
    assert [(f[-5 - 1 : -5], c) for f, c in names_of(test)] == [
        ("1", "n01440764"),
        ("2", "n01443537"),
        ("3", "n01443537"),
    ]
    assert size_of(test, 2) == (40, 30)


def annotate(path, files, categories, year=None):
    """An annotation file as iNaturalist's: (file name, category id) each, categories id -> name."""
    content = {
        "info": {} if year is None else {"year": year},
        "images": [{"id": 100 + i, "file_name": name} for i, (name, _) in enumerate(files)],
        "annotations": [
            {"id": i, "image_id": 100 + i, "category_id": c} for i, (_, c) in reversed(list(enumerate(files)))
        ],
        "categories": [{"id": i, "name": n, "supercategory": "Aves"} for i, n in categories.items()],
    }
    path.write_text(json.dumps(content))


@pytest.fixture
def naturalist(write):
    files = [f"train_val2018/Aves/{c}/{i}.jpg" for c in (3, 7) for i in range(3)]
    root = write(*files)
    categories = {7: "Corvus corax", 3: "Pica pica"}
    annotate(
        root / "train2018.json", [(f, int(f.split("/")[2])) for f in files if "0.jpg" not in f], categories
    )
    annotate(root / "val2018.json", [(f, int(f.split("/")[2])) for f in files if "0.jpg" in f], categories)
    return root


def test_inaturalist(naturalist):
    train, test = load_images(naturalist)
    assert train.class_names == ("Pica pica", "Corvus corax")  # by category id
    assert names_of(train)[0] == ("train_val2018/Aves/3/1.jpg", "Pica pica")
    assert (train.targets.tolist(), test.targets.tolist()) == ([0, 0, 1, 1], [0, 1])
    again, _ = load_images(naturalist / "train2018.json")
    assert names_of(again) == names_of(train)


def test_categories_of_one_name_are_told_apart_by_their_id(naturalist):
    for part in ("train", "val"):
        path = naturalist / f"{part}2018.json"
        path.write_text(path.read_text().replace("Corvus corax", "Pica pica"))
    assert load_images(naturalist)[0].class_names == ("Pica pica (3)", "Pica pica (7)")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda r: (r / "val2018.json").rename(r / "val2017.json"),
            ValueError,
            r"val2017.json, of another year",
        ),
        (lambda r: (r / "val2018.json").unlink(), FileNotFoundError, r"train2018.json but no val2018.json"),
        (
            lambda r: shutil.copy(r / "train2018.json", r / "train2017.json"),
            ValueError,
            r"has train2017.json and train2018.json; name the one you mean",
        ),
        (
            lambda r: annotate(r / "train2018.json", [("a.jpg", 0)], {0: "x"}, year=2017),
            ValueError,
            r"train2018.json says that it is of the year 2017, not 2018",
        ),
        (
            lambda r: annotate(r / "val2018.json", [("a.jpg", 0)], {0: "x", 1: "y"}),
            ValueError,
            r"has 2 categories and .*val2018.json 2, or other ones; they are not of one data set",
        ),
        (
            lambda r: (r / "train2018.json").write_text("{"),
            ValueError,
            r"train2018.json' is cut short or no JSON \(.*\); check",
        ),
        (
            lambda r: (r / "train2018.json").write_text("{}"),
            ValueError,
            r"train2018.json' has no categories; it has no object; give a file with",
        ),
        (
            lambda r: (r / "train2018.json").write_text(
                (r / "train2018.json").read_text().replace('"category_id": 7', '"category_id": 9')
            ),
            ValueError,
            r"category_id 9 is in no category",
        ),
        (
            lambda r: (r / "train2018.json").write_text(
                (r / "train2018.json").read_text().replace('"image_id": 101', '"image_id": 999')
            ),
            ValueError,
            r"image \d+ is not in both images and annotations",
        ),
        (
            lambda r: shutil.rmtree(r / "train_val2018" / "Aves" / "7"),
            FileNotFoundError,
            r"names train_val2018/Aves/7/1.jpg, which is not in ",
        ),
    ],
)
def test_annotation_files_that_do_not_fit_are_refused(naturalist, change, error, message):
    change(naturalist)
    with pytest.raises(error, match=message):
        load_images(naturalist)


def test_lists_of_paths_and_labels(write):
    root = write(*(f"data/train/{n}/{i} x.jpg" for n in ("n02", "n01") for i in range(2)), "data/val/v.jpg")
    lists = root / "lists"
    lists.mkdir()
    lines = [f"train/{n}/{i} x.jpg {k}" for k, n in enumerate(("n02", "n01")) for i in range(2)]
    (lists / "ImageNet_LT_train.txt").write_text("\n".join(lines) + "\n\n")
    (lists / "ImageNet_LT_val.txt").write_text("val/v.jpg 1\r\n")
    train, test = load_images(lists / "ImageNet_LT_train.txt", root=root / "data")
    assert train.class_names == ("n02", "n01")  # one folder for each label gives it its name
    assert (train.targets.tolist(), test.targets.tolist()) == ([0, 0, 1, 1], [1])
    assert size_of(test, 0) == (40, 30)
    pair = lists / "ImageNet_LT_train.txt", str(lists / "ImageNet_LT_val.txt")
    assert names_of(load_images(pair, root=root / "data")[0]) == names_of(train)
    with pytest.raises(FileNotFoundError, match=r"names train/n02/0 x.jpg, which is not in .*lists; is that"):
        load_images(pair)


def test_labels_are_names_where_folders_say_nothing(write):
    root = write("a/0.jpg", "a/1.jpg", "b/2.jpg", "a/3.jpg")
    (root / "train.txt").write_text("a/0.jpg 0\na/1.jpg 1\nb/2.jpg 1\n")
    (root / "val.txt").write_text("a/3.jpg 1\n")
    assert load_images(root / "train.txt")[0].class_names == ("0", "1")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (
            "a.jpg 0\na.jpg x\n",
            "a.jpg 0\n",
            r"train.txt: line 2 is 'a.jpg x'; it needs a path, a space and a label",
        ),
        ("a.jpg\n", "a.jpg 0\n", r"line 1 is 'a.jpg'"),
        ("", "a.jpg 0\n", r"train.txt is empty"),
        (
            "a.jpg 1\na.jpg 2\n",
            "a.jpg 1\n",
            r"labels go up to 2, but 0 has no image; number the classes from 0",
        ),
        ("a.jpg 0\na.jpg 0\n", "a.jpg 0\n", r"has one class, '0'; a classifier needs two or more"),
        (
            "a.jpg 0\na.jpg 1\n",
            "a.jpg 5\na.jpg 0\n",
            r"the test images have 1 classes that no training image has: '5'",
        ),
    ],
)
def test_bad_lists_are_refused(write, train, val, message):
    root = write("a.jpg")
    (root / "train.txt").write_text(train)
    (root / "val.txt").write_text(val)
    with pytest.raises(ValueError, match=message):
        load_images(root / "train.txt")


@pytest.fixture
def listed(write):
    """Writes a table of ten pictures of two classes, with other columns beside."""
    files = [f"{'ab'[i % 2]}/{i}.jpg" for i in range(10)]
    root = write(*files)

    def make(rows=(), **columns):
        lines = [
            ["file_name", "label", *columns],
            *([f, f[0], *(c[i] for c in columns.values())] for i, f in enumerate(files)),
            *rows,
        ]
        (root / "t.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
        return root / "t.csv"

    return make


def test_a_column_of_parts_in_a_table_of_pictures_is_kept_to(listed):
    said = ["Train"] * 6 + ["test"] * 4
    train, test = load_images(listed(split=said, patient=[*range(10)]), groups="patient")
    assert names_of(train) == [(f"{'ab'[i % 2]}/{i}.jpg", "ab"[i % 2]) for i in range(6)]
    assert names_of(test) == [(f"{'ab'[i % 2]}/{i}.jpg", "ab"[i % 2]) for i in range(6, 10)]
    assert train.groups.tolist() == list("012345")
    with pytest.warns(
        UserWarning, match=r"t.csv: 2 images whose 'split' is 'test' take no part; those of 'val'"
    ):
        train, test = load_images(listed(split=["train"] * 6 + ["val"] * 2 + ["test"] * 2))
    assert names_of(test) == [("a/6.jpg", "a"), ("b/7.jpg", "b")]
    with pytest.warns(UserWarning, match=r"t.csv: 3 images whose 'split' is '', 'odd' take no part"):
        train, test = load_images(listed(split=["train"] * 5 + ["test"] * 2 + ["odd", "odd", ""]))
    assert (len(train), len(test)) == (5, 2)
    assert len(load_images(listed(phase=["a", ""] * 5))[0]) == 8  # blanks in a column that says nothing of it
    for other in (["train"] * 10, ["train", "odd"] * 5, list("0123456789")):  # says nothing of parts
        assert len(load_images(listed(split=other))[1]) == 2
    with pytest.raises(ValueError, match=r"1 classes that no training image has: 'b'"):
        load_images(listed(split=["train", "test"] * 5))


@pytest.mark.parametrize(
    ("name", "no", "yes", "trained"),
    [
        ("is_test", 0, 1, "no"),
        ("In_Validation", "False", "True", "no"),
        ("is_training_image", 0, 1, "yes"),
        ("test_set", "no", "yes", "no"),
    ],
)
def test_a_column_of_yes_and_no_says_the_parts_of_pictures(name, no, yes, trained, listed):
    words = (no, yes) if trained == "no" else (yes, no)
    train, test = load_images(listed(**{name: [words[0]] * 6 + [words[1]] * 4}))
    assert names_of(train) == [(f"{'ab'[i % 2]}/{i}.jpg", "ab"[i % 2]) for i in range(6)]
    assert names_of(test) == [(f"{'ab'[i % 2]}/{i}.jpg", "ab"[i % 2]) for i in range(6, 10)]
    for other in ({name: [no] * 10}, {name: [no, yes, "odd", no, yes] * 2}, {"is_sick": [no, yes] * 5}):
        assert len(load_images(listed(**other))[1]) == 2  # says nothing of parts
    with pytest.raises(
        ValueError, match=r"'split' of .*t.csv holds .*; write train and test there, or rename"
    ):
        load_images(listed(split=[no, yes] * 5))


def test_a_picture_that_a_list_names_twice_is_told(listed, write):
    with pytest.warns(
        UserWarning,
        match=r"t.csv names 2 images more than once, such as 'a/0.jpg'; 1 of them with "
        r"different classes\. Each row counts",
    ):
        load_images(listed(rows=[["a/0.jpg", "a"], ["b/1.jpg", "a"]]))
    root = write("c/0.jpg", "d/0.jpg")
    (root / "train.txt").write_text("c/0.jpg 0\nd/0.jpg 1\n")
    (root / "val.txt").write_text("c/0.jpg 0\n")
    with pytest.warns(UserWarning, match=r"train.txt names 1 images more than once, .*; 1 are in both parts"):
        load_images(root / "train.txt")


def test_a_list_needs_its_partner(write):
    root = write("a.jpg")
    for name in ("train.txt", "list.txt"):
        (root / name).write_text("a.jpg 0\na.jpg 1\n")
    with pytest.raises(
        FileNotFoundError, match=r"has no partner val.txt or test.txt beside it; write the test images there"
    ):
        load_images(root / "train.txt")
    with pytest.raises(ValueError, match=r"'list.txt' has no 'train' in its name; call it list_train.txt"):
        load_images(root / "list.txt")
    with pytest.raises(ValueError, match=r"must be a pair \(train, test\) of list files, got 1 names"):
        load_images([root / "train.txt"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["a.jpg", "b.png"],
            r"has no class folders with images \(2 images lie in it directly\); give a folder",
        ),
        (["cat/notes.txt"], r"has no class folders with images \(0 images"),
        (["cat/a.jpg", "cat/b.jpg"], r"has one class, 'cat'; a classifier needs two or more"),
        (
            ["cat/a.jpg", "lynx/notes.txt"],
            r"1 class has no training image: 'lynx'; add some or leave that class out",
        ),
        (
            ["train/cat/a.jpg", "train/dog/a.jpg", "val/cat/a.jpg", "val/wolf/a.jpg"],
            r"the test images have 1 classes that no training image has: 'wolf'; add training images",
        ),
        (
            ["train/cat/a.jpg", "train/dog/a.jpg", "val/cat/notes.txt"],
            r"the class folders of the test images are empty",
        ),
        (["cat/a.jpg", "dog/a.jpg"], r"every class has one image, so that none can be held out"),
    ],
)
def test_bad_folders_are_refused(write, files, message):
    with pytest.raises(ValueError, match=message):
        load_images(write(*files))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "no/such"}, FileNotFoundError, r"image folder no/such is not there"),
        ({"source": "no/such/train.txt"}, FileNotFoundError, r"no partner"),
        ({"source": "no/such/train2018.json"}, FileNotFoundError, r"annotation file .* is not there"),
        ({"source": "no/such/other.json"}, ValueError, r"is none of train2017.json, train2018.json"),
        ({"source": 3}, TypeError, r"source must be a folder, list files or a data set, got int 3"),
        ({"source": "x", "validation": 1.0}, ValueError, r"validation must be in \(0, 1\), got 1.0"),
        (
            {"source": "x", "label": "y"},
            ValueError,
            r"label='y' belongs to a Hugging Face data set or a table; leave it",
        ),
        ({"source": "x", "root": "y"}, ValueError, r"root='y' belongs to list files"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        load_images(**arguments)


# ---- Hugging Face data sets


@pytest.fixture
def rows(pieces):
    hugging = pytest.importorskip("datasets")
    hugging.disable_progress_bars()

    def make(labels, feature):
        cells = [{"bytes": piece, "path": None} for piece in pieces[: len(labels)]]
        kinds = hugging.Features({"photo": hugging.Image(), "species": feature, "id": hugging.Value("int64")})
        columns = {"photo": cells, "species": labels, "id": list(range(len(labels)))}
        return hugging.Dataset.from_dict(columns, features=kinds)

    make.hugging = hugging
    return make


def test_a_hugging_face_data_set_by_object_and_from_the_disk(rows, tmp_path, pieces):
    names = rows.hugging.ClassLabel(names=["cat", "lynx"])
    train_rows, test_rows = rows([1, 0, 1, 1, 0], names), rows([0, 1], names)
    both = rows.hugging.DatasetDict(train=train_rows, validation=test_rows)
    both.save_to_disk(tmp_path / "saved")
    for source in (both, tmp_path / "saved", str(tmp_path / "saved")):
        train, test = load_images(source)
        assert train.class_names == ("cat", "lynx")
        assert (train.targets.tolist(), test.targets.tolist()) == ([1, 0, 1, 1, 0], [0, 1])
        assert train.open(4).tobytes() == Image.open(io.BytesIO(pieces[4])).tobytes()
        assert train.open(4).format == "JPEG"  # not decoded before it is asked for
        assert train.select([4, 0]).name(0) == "row 0"
    train, test = load_images(train_rows, validation=0.4)
    assert dict(train.class_counts) == {"cat": 1, "lynx": 2}
    assert dict(test.class_counts) == {"cat": 1, "lynx": 1}


@pytest.mark.parametrize(("kind", "labels"), [("string", ["wolf", "cat", "wolf"]), ("int32", [7, 3, 7])])
def test_label_columns_of_plain_values_are_numbered_in_order(rows, kind, labels):
    data = rows(labels, rows.hugging.Value(kind))
    train, test = load_images({"train": data, "test": data.select([0, 1])}, label="species")
    assert train.class_names == tuple(map(str, sorted(set(labels))))
    assert (train.targets.tolist(), test.targets.tolist()) == ([1, 0, 1], [1, 0])
    other = rows(["x" if kind == "string" else 8, *labels], rows.hugging.Value(kind))
    with pytest.raises(
        ValueError, match=r"the test images have 1 classes that no training image has: '[x8]'"
    ):
        load_images({"train": data, "test": other}, label="species")


@pytest.mark.parametrize(
    ("labels", "names", "arguments", "message"),
    [
        (
            [0, 1],
            2,
            {"label": "kind"},
            r"label='kind' is no column of source; it has 'photo' \(Image\), 'species'",
        ),
        ([0, 1], 2, {"image": "species"}, r"image='species' is a column of ClassLabels, not of images"),
        ([0, 0], 1, {}, r"has one class, '0'"),
        ([0, 0], 2, {}, r"1 class has no training image: '1'"),
        ([0, -1], 2, {}, r"column 'species' has rows without a label \(-1\)"),
    ],
)
def test_columns_that_are_missing_or_wrong_are_named(rows, labels, names, arguments, message):
    data = rows(labels, rows.hugging.ClassLabel(num_classes=names))
    with pytest.raises(ValueError, match=message):
        load_images({"train": data, "test": data}, **arguments)


def test_no_label_column_and_no_training_split(rows):
    data = rows(["a", "b"], rows.hugging.Value("string"))
    with pytest.raises(ValueError, match=r"has no label column; name it by label=; it has 'photo' \(Image\)"):
        load_images(data)
    with pytest.raises(ValueError, match=r"has the splits test, but no 'train'"):
        load_images({"test": data})


def test_a_hub_name_without_a_connection(rows, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(rows.hugging.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"'hf:no/such' cannot be loaded .*check the name and the connection"
    ):
        load_images("hf:no/such")


# ---- broken images


@pytest.fixture
def broken(write):
    """Nine good images and three bad ones."""
    root = write(*(f"{name}/{i}.jpg" for name in ("cat", "lynx") for i in range(6)))
    whole = (root / "cat/2.jpg").read_bytes()
    (root / "cat/2.jpg").write_bytes(whole[:-100])
    (root / "lynx/0.jpg").write_text("<html>404</html>")
    (root / "lynx/5.jpg").write_bytes(b"")
    return root


def all_of(root):
    train, test = load_images(root)
    both = ImageList(
        np.concatenate([train.targets, test.targets]),
        train.class_names,
        train.root,
        np.concatenate([train.files, test.files]),
    )
    return both.select(np.argsort(both.files))


def test_broken_images_are_found_named_and_counted(broken):
    images = all_of(broken)
    with pytest.raises(UnreadableImageError, match=r"image .*cat/2.jpg cannot be read: .*truncated"):
        images.checked()
    with pytest.warns(UserWarning, match=r"3 of 12 images are left out.*cat/2.jpg.*lynx/0.jpg.*lynx/5.jpg"):
        left = images.checked("skip")
    assert dict(left.class_counts) == {"cat": 5, "lynx": 4}
    assert left.checked() is left
    with pytest.raises(UnreadableImageError, match=r"class 'cat' has no readable image: .*cat/2.jpg"):
        images.select([2, 7, 8]).checked("skip")
    with pytest.raises(ValueError, match=r"on_error must be one of 'raise', 'skip', got 'ignore'"):
        images.checked("ignore")


def test_a_jpeg_with_something_behind_its_end_and_a_png_are_fine(write, pieces):
    root = write("a/0.jpg", "a/1.jpg", "b/0.png", "b/1.bmp")
    (root / "a/1.jpg").write_bytes(pieces[0] + b"appended by a camera")
    for name, kind in (("b/0.png", "PNG"), ("b/1.bmp", "BMP")):
        Image.open(io.BytesIO(pieces[0])).save(root / name, kind)
    images = all_of(root)
    assert images.checked() is images
    for name, keep in (("b/0.png", 600), ("b/1.bmp", 300)):
        (root / name).write_bytes((root / name).read_bytes()[:keep])
        with pytest.raises(UnreadableImageError, match=name):
            images.checked()
        root.joinpath(name).write_bytes(pieces[1])


def test_broken_images_in_memory(broken):
    images = all_of(broken)
    with pytest.raises(UnreadableImageError, match=r"cat/2.jpg cannot be read"):
        in_memory(images, images, 16, name="x")
    with pytest.warns(UserWarning, match=r"3 of 12 images are left out"):
        data = in_memory(images, images, 16, name="x", on_error="skip")
    assert data.train.inputs.shape == (9, 3, 16, 16)
    assert data.class_counts.tolist() == [5, 4]
    good = in_memory(images.select([0, 11 - 1]), images.select([0, 1]), 16, name="x")
    np.testing.assert_array_equal(good.train.inputs, data.train.inputs[[0, -1]])


def test_a_missing_file_is_named_when_it_is_opened(write):
    images = all_of(write("cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"))
    Path(images.name(2)).unlink()
    with pytest.raises(UnreadableImageError, match=r"dog/0.jpg cannot be read: .*No such file"):
        images.open(2)


def test_a_mode_without_a_range_is_named(write):
    root = write("cat/0.jpg", "dog/0.jpg", "cat/1.jpg", "dog/1.jpg")
    Image.fromarray(np.zeros((40, 40), np.float32)).save(root / "cat/0.tif")
    images = all_of(root)
    with pytest.raises(UnreadableImageError, match=r"cat/0.tif cannot be read: its mode is F"):
        in_memory(images, images, 16, name="x")


# ---- long tails, and data sets for the two training paths


def test_a_long_tail_is_the_one_of_everywhere(write):
    root = write(*(f"{name}/{i:02}.jpg" for name in "abc" for i in range(10)))
    images = all_of(root)
    tail, kept = images.long_tailed(5, seed=3)
    memory, also = in_memory(images, images, 8, name="x").long_tailed(5, seed=3)
    np.testing.assert_array_equal(kept, also)
    assert tail.class_counts.counts.tolist() == memory.class_counts.tolist() == [10, 4, 2]
    assert [tail.name(i) for i in range(len(tail))] == [images.name(k) for k in kept]
    assert images.long_tailed(2, profile="step", max_count=8)[0].class_counts.counts.tolist() == [8, 8, 4]


def test_in_memory_is_the_middle_square(write, photographs):
    root = write("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg")
    images = all_of(root)
    data = in_memory(images, images, 30, name="mine")
    assert (data.name, data.kind, data.train.inputs.dtype) == ("mine", "images", np.uint8)
    with images.open(2) as image:
        np.testing.assert_array_equal(data.train.inputs[2].transpose(1, 2, 0), np.asarray(image)[:, 5:35])
    other = ImageList(images.targets, ("x", "y"), images.root, images.files)
    with pytest.raises(ValueError, match=r"train and test have other class_names; load them together"):
        in_memory(images, other, 8, name="mine")
    with pytest.raises(ValueError, match=r"size must be"):
        in_memory(images, images, 0, name="mine")


def test_items_depend_on_seed_epoch_and_index_alone(write):
    torch = pytest.importorskip("torch")
    images = all_of(write(*(f"{name}/{i}.jpg" for name in ("cat", "lynx") for i in range(4))))
    data = TorchDataset(images, TrainTransform(16), seed=7)
    alone = [data[i] for i in range(8)]
    assert alone[0]["pixel_values"].shape == (3, 16, 16)
    assert alone[0]["pixel_values"].dtype == torch.float32
    assert [item["labels"] for item in alone] == [0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(data[-1], alone[7])
    with pytest.raises(IndexError):
        data[8]
    data.set_epoch(1)
    second = torch.stack([data[i]["pixel_values"] for i in range(8)])
    first = torch.stack([item["pixel_values"] for item in alone])
    assert (first != second).flatten(1).any(1).all()
    loader = torch.utils.data.DataLoader(data, batch_size=3, num_workers=1, persistent_workers=True)
    for epoch, expected in ((1, second), (0, first)):  # the worker that lives on sees the new epoch
        data.set_epoch(epoch)
        torch.testing.assert_close(torch.cat([batch["pixel_values"] for batch in loader]), expected)
    assert not torch.equal(TorchDataset(images, TrainTransform(16), seed=8)[0]["pixel_values"], first[0])
    whole = TorchDataset(images, EvalTransform(16))
    evaluated = whole[3]
    whole.set_epoch(5)
    torch.testing.assert_close(whole[3], evaluated)


def test_a_skipped_item_weighs_nothing_and_is_named(broken):
    torch = pytest.importorskip("torch")
    from longtail import ClassBalancedLoss

    images = all_of(broken)
    data = TorchDataset(images, EvalTransform(16), on_error="skip")
    loader = torch.utils.data.DataLoader(data, batch_size=12, num_workers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the worker's, which names each
        (batch,) = loader
    assert batch["labels"].tolist() == [0, 0, -100, 0, 0, 0, -100, 1, 1, 1, 1, -100]
    assert [Path(name).name for name in data.skipped] == ["2.jpg", "0.jpg", "5.jpg"]
    loss = ClassBalancedLoss(images.class_counts)
    logits = torch.randn(12, 2)
    good = batch["labels"] >= 0
    torch.testing.assert_close(loss(logits, batch["labels"]), loss(logits[good], batch["labels"][good]))
    with pytest.warns(UserWarning, match=r"skipped: image .*cat/2.jpg cannot be read: .*truncated"):
        TorchDataset(images, EvalTransform(16), on_error="skip")[2]
    with pytest.raises(UnreadableImageError, match=r"cat/2.jpg cannot be read"):
        TorchDataset(images, EvalTransform(16))[2]


# ---- GTSRB


def test_gtsrb_wants_its_classes_and_tracks_apart(write):
    signs = [f"gtsrb/train/{c:02}/0000{t}_00000.jpg" for c in range(43) for t in (0, 1)]
    root = write(*signs, *(f"gtsrb/test/{c:02}/00002_00000.jpg" for c in range(43)))
    data = gtsrb(root)
    assert data.train.inputs.shape == (86, 3, 32, 32)
    assert (data.name, data.num_classes, len(data.test)) == ("gtsrb", 43, 43)
    assert data.train.groups[:3].tolist() == ["00/00000", "00/00001", "01/00000"]
    assert len({*data.test.groups}) == 43
    assert data.long_tailed(2)[0].train.groups.shape == (len(data.long_tailed(2)[0].train),)
    assert datasets.load("gtsrb", root / "gtsrb").class_names == data.class_names
    shutil.copy(root / signs[3], root / "gtsrb/test/01/00001_00007.jpg")
    with pytest.raises(ValueError, match=r"track 01/00001 is in both train and test; split by track"):
        gtsrb(root)
    shutil.rmtree(root / "gtsrb/train/42")
    shutil.rmtree(root / "gtsrb/test/42")
    with pytest.raises(ValueError, match=r"has 42 classes, GTSRB has 43"):
        gtsrb(root)
    shutil.rmtree(root / "gtsrb/test")
    with pytest.raises(
        FileNotFoundError, match=r"root is .*, which has no train and test; put GTSRB's class"
    ):
        gtsrb(root)


def test_the_real_signs():
    try:
        data = gtsrb()
    except FileNotFoundError:
        pytest.skip("LONGTAIL_DATA has no folder gtsrb")
    assert (data.class_counts.min(), data.class_counts.max()) == (90, 1020)
    assert len(data.train) == 18478
    assert len(data.test) == 4080


def test_the_grid_of_signs_is_the_issues(tmp_path):
    grid = signs()
    assert len({setting.recipe.hash for setting in grid}) == len(grid) == 8
    assert [(s.recipe.loss, s.recipe.scheme) for s in grid[:2]] == [
        ("softmax", "none"),
        ("softmax", "inverse"),
    ]
    for loss in ("softmax", "focal"):
        assert len({s.beta for s in signs(losses=[loss]) if s.recipe.scheme == "effective"}) == 3
    with pytest.raises(ValueError, match="loss must be one of 'softmax', 'focal', got 'sigmoid'"):
        signs(losses=["sigmoid"])
    jobs = jobs_for(grid, 3, tmp_path)
    assert len({job.recipe.hash for job in jobs}) == 24
    assert {job.recipe.augmentation for job in jobs} == {"shift"}  # a mirrored sign is another sign
    for job in jobs:
        assert job.recipe == job.setting.recipe.replace(seed=job.recipe.seed)


def two_signs(epochs=None):
    return [s.with_epochs(epochs) for s in signs() if str(s) in (SOFTMAX, FOCAL)]


SOFTMAX, FOCAL = "gtsrb softmax beta 0", "gtsrb focal gamma 0.5 beta 0.99"


def test_the_grid_of_signs_runs_and_goes_on(tmp_path, rng):
    def split(each):
        targets = np.repeat(np.arange(43), each)
        return Split(rng.integers(0, 256, (43 * each, 3, 32, 32), dtype=np.uint8), targets)

    data = Dataset("gtsrb", split(2), split(1), tuple(map(str, range(43))))
    results, todo = tmp_path / "gtsrb.csv", two_signs(epochs=2)
    jobs = jobs_for(todo, 1, tmp_path / "runs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal counts: no weight does anything
        assert [r.state for r in reproduce(jobs, results, data=data, device="cpu")] == ["done", "done"]
    rows = read_rows(results, "gtsrb")
    assert [tuple(row[name] for name in columns_of("gtsrb")[:5]) for row in rows] == [
        ("softmax", "none", "", "", "0"),
        ("focal", "effective", "0.99", "0.5", "0"),
    ]
    assert all(row["error_percent"] == row["balanced_error_percent"] for row in rows)  # one image a class
    assert reproduce(jobs, results, data=data, device="cpu") == []
    first, second = measure(todo, rows)
    assert first.summary("error").mean == float(rows[0]["error_percent"])
    assert second.gain("error").mean == pytest.approx(
        second.summary("error").mean - first.summary("error").mean
    )
    assert measure(two_signs(), rows)[0].summary("error") is None  # 2 epochs are not the recipe's


def test_signs_are_compared_with_the_plain_loss_by_seed():
    errors = {SOFTMAX: [(10, 20), (12, 22), (14, 24)], FOCAL: [(9, 17), (11, 19), (13, 21)]}
    todo = [*two_signs(), next(s for s in signs() if s.weights == "inverse")]

    def row(setting, seed, precision, error, balanced):
        return {
            "recipe_hash": setting.recipe.replace(seed=seed, precision=precision).short_hash,
            "seed": str(seed),
            "precision": precision,
            "error_percent": str(error),
            "balanced_error_percent": str(balanced),
        }

    rows = [
        row(setting, seed, "fp32", *pair)
        for setting in todo
        for seed, pair in enumerate(errors.get(str(setting), ()))
    ]
    measured = measure(todo, rows)
    texts = [[cell.text for cell in line] for line in sheet(measured).rows]
    assert texts == [
        ["softmax", "none", "12.0 ± 2.0", "", "22.0 ± 2.0", "", "3"],
        ["focal", "beta 0.99", "11.0 ± 2.0", "-1.0 [-1.0, -1.0]", "19.0 ± 2.0", "-3.0 [-3.0, -3.0]", "3"],
        ["softmax", "inverse", "not run", "", "not run", "", "0"],
    ]
    # a seed counts once, by its fp32 run
    doubled = [
        row(setting, seed, "bf16", 50, 50)
        for setting in two_signs()
        for seed in range(len(errors[str(setting)]))
    ]
    assert measure(todo, rows + doubled) == measured


@pytest.mark.parametrize("size", [25, 32, 48])
def test_the_network_for_signs_takes_other_sizes(size):
    torch = pytest.importorskip("torch")
    assert StridedCNN(3, 43)(torch.zeros(2, 3, size, size)).shape == (2, 43)


# ---- the command line


@pytest.fixture
def longtail(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["longtail", *arguments])
        monkeypatch.setattr(cli.terminal.error_console, "width", 400)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr()

    return run


def test_compare_takes_a_folder_as_it_is(write, longtail):
    write(*(f"photos/{name}/{i}.jpg" for name, n in (("cat", 12), ("lynx", 4)) for i in range(n)))
    options = (
        "--loss",
        "softmax",
        "--scheme",
        "none",
        "--scheme",
        "inverse",
        "--seeds",
        "1",
        "--epochs",
        "4",
    )
    code, said = longtail("compare", "photos", *options, "--jobs", "1", "--out", "runs/photos")
    assert code == 0, said.err
    assert "photos, strided_cnn, 4 epochs" in said.err
    recipe = json.loads(Path("runs/photos/softmax-none/seed0/recipe.json").read_text())
    assert (recipe["dataset"], recipe["imbalance_factor"]) == ("photos", None)
    assert "classes with > 10" in Path("runs/photos/compare.md").read_text().replace("\n", " ")
    assert "(here 10, 3)" in said.out.replace("\n", " ")
    # one of its runs says again what it said; that of an earlier version, if it is told the folder
    one = Path("runs/photos/softmax-none/seed0")
    code, said = longtail("evaluate", str(one), "--format", "json")
    assert code == 0, said.err
    assert json.loads(said.out) == json.loads((one / "evaluation.json").read_text())
    unseal(shutil.copytree(one, "earlier"), without=["arguments"])
    code, said = longtail("evaluate", "earlier")
    assert code == 2
    assert "was trained on 'photos', which is none of longtail's own data sets; give the folder" in said.err
    code, said = longtail("evaluate", "earlier", "--data", "photos", "--format", "json")
    assert code == 0, said.err
    assert json.loads(said.out) == json.loads((one / "evaluation.json").read_text())
    write(*(f"others/{name}/{i}.jpg" for name in ("dog", "lynx") for i in range(4)))
    code, said = longtail("evaluate", str(one), "--data", "others")
    assert code == 2
    assert (
        "are not those that runs/photos/softmax-none/seed0 was trained and tested on (class_names" in said.err
    )
    write("photos/cat/-1.jpg")  # another picture, and so another split
    code, said = longtail("evaluate", str(one), "--data", "photos")
    assert code == 2
    assert "train_sha256, test_sha256 differ)" in said.err
    code, said = longtail("compare", "photos", *options, "--jobs", "1", "--out", "runs/photos")
    assert code == 2
    told = " ".join(said.err.split())
    assert told.count("holds a run on other data") == 1
    assert "all 2 runs failed" in told
    assert "choose another folder (--out), or delete this one to start anew" in told
    assert "(here 10, 3)" not in said.out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "empty"], r"has no class folders with images"),
        (["reproduce", "gtsrb", "--imbalance", "100"], r"--dataset and --imbalance do not belong to gtsrb"),
        (
            ["reproduce", "gtsrb", "--loss", "sigmoid"],
            r"loss must be one of 'softmax', 'focal', got 'sigmoid'",
        ),
    ],
)
def test_mistakes_are_one_line(longtail, arguments, message):
    Path("empty").mkdir()
    code, said = longtail(*arguments)
    assert code == 2
    assert message in said.err


def test_cut_reads_from_the_box(photographs):
    image = photographs[0]
    whole = np.asarray(cut(opened(image, "PNG"), (100, 50, 228, 178), 128))
    np.testing.assert_array_equal(whole, np.asarray(image)[50:178, 100:228])


def test_a_folder_is_counted_as_it_is_loaded(write):
    root = write(
        *(f"photos/{name}" for name in ("cat/0.jpg", "cat/more/1.jpg", "cat/.thumbs/0.jpg", "lynx/2.jpg"))
    )
    (root / "photos" / "lynx" / "cats").symlink_to(root / "photos" / "cat")
    (root / "photos" / "lynx" / "up").symlink_to(root / "photos" / "lynx")
    train, test = load_images(root / "photos")
    loaded = np.bincount(np.concatenate([train.targets, test.targets]))
    assert loaded.tolist() == [2, 3]
    assert dict(class_counts(root / "photos")) == {"cat": 2, "lynx": 3}
