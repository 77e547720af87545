"""Folders of pictures as people have them: what is a class, what a split, what is left out, and one walk."""

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import longtail
from longtail import class_counts, cli
from longtail.datasets import load_images
from longtail.datasets.images import ImageList, UnreadableImageError, list_images
from longtail.sources import folders


def pictures(root, *names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i % 250, 0, 0)).save(path, "JPEG")
    return root


def some(*places, classes=("cat", "dog"), each=2):
    return [f"{place}/{name}/{i}.jpg" for place in places for name in classes for i in range(each)]


def places(images, depth=-3):
    return {Path(images.name(i)).parts[depth] for i in range(len(images))}


# ---- splits


@pytest.mark.parametrize(
    ("tops", "chosen"),
    [
        (("Training", "Testing"), "Testing"),
        (("train", "valid", "test"), "valid"),
        (("TRAIN", "VAL"), "VAL"),
        (("TRAIN", "TEST", "TEST_SIMPLE"), "TEST"),
        (("seg_train", "seg_test", "seg_pred"), "seg_test"),
        (("training", "validation"), "validation"),
        (("train", "dev"), "dev"),
        (("train", "eval"), "eval"),
        (("train", "Evaluation"), "Evaluation"),
        (("training_set", "test_set"), "test_set"),
        (("images-train", "images-val"), "images-val"),
        (("Train Images", "Test Images"), "Test Images"),
        (("train", "test", "notebooks"), "test"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_splits_are_read_as_splits(tmp_path, tops, chosen, nested, capsys):
    inside = [f"{top}/{top}" if nested else top for top in tops]  # as Kaggle wraps them
    pictures(tmp_path, *some(*inside))
    train, test = load_images(tmp_path)
    assert train.class_names == test.class_names == ("cat", "dog")
    assert places(train) == {tops[0]}
    assert places(test) == {chosen}
    with pytest.raises(ValueError, match=rf"holds the splits .*; give one, such as '.*{tops[0]}'"):
        class_counts(tmp_path)
    assert class_counts(tmp_path / inside[0]) == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    "names",
    [
        some("train", "plane"),  # a class called train beside another, with folders
        ["train/a.jpg", "train/b.jpg", "plane/a.jpg", "plane/b.jpg"],
        ["test/a.jpg", "test/b.jpg", "plane/a.jpg", "plane/b.jpg", "rig/c.jpg", "rig/d.jpg"],
        [*some("cat/left", "cat/right", classes=("x",)), *some("dog/left", classes=("x",))],
        ["__old/a.jpg", "__old/b.jpg", "cat/a.jpg", "cat/b.jpg"],
        ["retrain/a.jpg", "retrain/b.jpg", "contest/a.jpg", "contest/b.jpg"],
        [f"{name}/images/{i}.jpg" for name in ("n01", "n02") for i in range(2)],
        some(*map(str, range(11)), classes=("back", "front")),  # more classes than anybody has splits
    ],
)
def test_what_is_counted_is_what_is_loaded(tmp_path, names):
    if names == some("train", "plane"):
        names.append("plane/c.jpg")  # else both hold the same folders
    pictures(tmp_path, *names)
    train, test = load_images(tmp_path, validation=0.5)
    loaded = np.bincount(np.concatenate([train.targets, test.targets]))
    counted = class_counts(tmp_path)
    assert counted == dict(zip(train.class_names, loaded.tolist(), strict=True))
    assert counted == Counter(name.split("/")[0] for name in names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (some("fold1", "fold2"), r"the folders 'fold1', 'fold2' of '.*' all hold 'cat', 'dog', so that they"),
        (some("2019", "2020", "2021"), r"give one, such as '.*2019', or call them train and test"),
        (some("bottle", "cable", classes=("train", "test")), r"hold the splits 'test', 'train' each; turn"),
        (some("photos/data"), r"holds one folder, 'photos', with folders inside; give '.*/photos'"),
        (some("photos"), r"holds one folder, 'photos', with folders inside; give '.*/photos'"),
        (
            [*some("photos"), "notes/"],
            r"holds one folder with images, 'photos', with folders inside; give '.*/photos'",
        ),
        (some("val", "test"), r"holds the splits (val, test|test, val)"),
        (
            ["train/images/a.jpg", "train/labels/", "valid/images/b.jpg"],
            "pictures and boxes|holds the splits",
        ),
        (
            ["images/a.jpg", "labels/"],
            r"holds 'images', 'labels', which are no classes but pictures and boxes",
        ),
    ],
)
def test_folders_that_are_no_classes_are_refused_by_counting_and_loading(tmp_path, names, message):
    pictures(tmp_path, *(name for name in names if not name.endswith("/")))
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
    for read in (class_counts, load_images):
        with pytest.raises(ValueError, match=message):
            read(tmp_path)


def test_flat_splits_name_the_table_beside_them(tmp_path):
    pictures(tmp_path, "train/a.jpg", "train/b.jpg", "test/c.jpg")
    (tmp_path / "train.csv").write_text("id,label\na,1\nb,2\n")
    with pytest.raises(
        ValueError, match=r"2 images lie in it directly.*or its labels may be in '.*train\.csv'"
    ):
        load_images(tmp_path)
    with pytest.raises(
        ValueError, match=r"has no class folders; its labels may be in '.*train\.csv': give that"
    ):
        class_counts(tmp_path / "train")


def test_a_split_without_classes_is_not_replaced_without_a_word(tmp_path):
    pictures(tmp_path, *some("train"), "test/1.jpg", "test/2.jpg")
    with pytest.warns(
        UserWarning, match=r"test has no class folders and is left out; a share of the training"
    ):
        train, test = load_images(tmp_path)
    assert places(train) == places(test) == {"train"}


def told(command, source, *options):
    """What a command says on standard error in a process of its own, and whether it loaded torch."""
    script = (
        "import sys\nfrom longtail import cli\nsys.argv[0] = 'longtail'\ntry:\n    cli.main()\n"
        "finally:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command, str(source), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr, done.stdout.endswith("True\n")


def test_train_looks_at_the_folder_before_it_imports_torch(tmp_path):
    for source in (tmp_path / "nosuch", pictures(tmp_path / "one", *some("photos")), "./nosuch"):
        code, said, torch = told("train", source)
        assert (code, torch) == (2, False)
        assert said.startswith("error: ")
        assert said.count("\n") == 1


def test_what_was_chosen_is_said_in_one_line(tmp_path, capsys):
    look = cli.sources.look_at_images
    look(str(pictures(tmp_path, *some("Training", each=3), *some("Testing"))))
    assert capsys.readouterr().err == "2 classes, 6 training and 4 test images (Training, Testing)\n"
    look(str(tmp_path / "Training"))
    assert capsys.readouterr().err == (
        "2 classes, 4 training and 2 test images (a fifth of each class is held out)\n"
    )
    pictures(tmp_path, *(f"Training/cat/more {i}.jpg" for i in range(1200)))
    look(str(tmp_path))
    assert capsys.readouterr().err.startswith("2 classes, 1,206 training and 4 test images")


@pytest.mark.parametrize("command", ["weights", "compare"])
def test_every_command_names_the_folder_inside(tmp_path, command, capsys, monkeypatch):
    pictures(tmp_path, *some("photos"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["longtail", command, str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"give '{tmp_path}/photos'" in said
    assert os.listdir(tmp_path) == ["photos"]


# ---- files


def test_every_picture_that_pillow_opens_is_counted_and_read(tmp_path):
    kinds = {"jfif": "JPEG", "JPE": "JPEG", "GIF": "GIF", "Avif": "AVIF", "jp2": "JPEG2000", "dib": "DIB"}
    kinds |= {"tga": "TGA", "png": "PNG", "TIFF": "TIFF", "webp": "WEBP", "pbm": "PPM"}
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for ending, kind in kinds.items():
            Image.new("RGB" if ending != "pbm" else "1", (9, 8), 1).save(
                tmp_path / name / f"a.{ending}", kind
            )
    train, test = load_images(tmp_path)
    assert class_counts(tmp_path) == {"cat": len(kinds), "dog": len(kinds)}
    assert len(train) + len(test) == 2 * len(kinds)
    for images in (train, test):
        assert images.checked() is images
        for i in range(len(images)):
            with images.open(i) as image:
                assert image.size == (9, 8)


def test_pictures_that_are_left_out_are_said_with_the_remedy(tmp_path):
    pictures(tmp_path, *some("."), "cat/x.HEIC", "cat/deep/y.heic", "dog/z.heic", "dog/notes.txt")
    if class_counts.__module__ and not folders.importlib.util.find_spec("pillow_heif"):
        said = r"3 files of .* left out: 3 \.heic; pip install pillow-heif"
        with pytest.warns(UserWarning, match=said):
            assert class_counts(tmp_path) == {"cat": 2, "dog": 2}
        with pytest.warns(UserWarning, match=said):
            load_images(tmp_path)
    for path in tmp_path.rglob("*.[hH]*"):
        path.rename(path.with_suffix(".nef"))
    with pytest.warns(UserWarning, match=r"3 files of .* left out: 3 \.nef; convert them to \.png"):
        class_counts(tmp_path)
    bare = tmp_path / "bare"
    pictures(bare, "cat/1", "dog/2")
    with pytest.raises(ValueError, match=r"2 folders and no image in them; .* it has 2 without an ending"):
        class_counts(bare)


def test_names_in_two_forms_of_unicode_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Grünfink") for form in ("NFC", "NFD"))
    pictures(tmp_path, f"train/{composed}/1.jpg", "train/cat/1.jpg", f"val/{apart}/2.jpg", "val/cat/2.jpg")
    if len(list((tmp_path / "train").iterdir())) == 2:
        pictures(tmp_path, f"train/{apart}/3.jpg")
    train, test = load_images(tmp_path)
    assert train.class_names == test.class_names == (composed, "cat")
    assert class_counts(tmp_path / "train") == {composed: 2, "cat": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_of_every_kind_end(tmp_path):
    pictures(tmp_path, "cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/d.jpg")
    (tmp_path / "cat" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "dog" / "self").symlink_to("self")
    (tmp_path / "dog" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "dot").symlink_to(".", target_is_directory=True)
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    with pytest.warns(
        UserWarning,
        match=r"3 links of source .* lead nowhere, left out: 'cat/gone.jpg', 'cat/self.jpg', 'dog/self'; put",
    ):
        assert class_counts(tmp_path) == {"cat": 2, "dog": 2}
    assert folders.walk(tmp_path).folders["cat"].left_out == {"broken links": 3}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path):
    names = [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
    train, test = load_images(tmp_path)
    assert len(train) + len(test) == 9
    whole = ImageList(
        np.concatenate([train.targets, test.targets]), train.class_names, train.root,
        np.concatenate([train.files, test.files]),
    )  # fmt: skip
    with pytest.raises(
        UnreadableImageError, match=r"image .*cat/gone.png cannot be read: .*No such file.*remove"
    ):
        whole.checked()
    with pytest.warns(UserWarning, match=r"1 of 9 images are left out, they cannot be read: .*cat/gone.png"):
        assert len(whole.checked("skip")) == 8
    found = longtail.audit((whole,))
    assert [sample.name for sample, _ in found.unreadable] == ["cat/gone.png"]
    (tmp_path / "list_train.txt").write_text("cat/gone.png 0\ncat/0.png 0\ndog/0.png 1\n")
    (tmp_path / "list_val.txt").write_text("cat/1.png 0\ndog/1.png 1\n")
    listed, _ = load_images(tmp_path / "list_train.txt")
    with pytest.raises(UnreadableImageError, match=r"cat/gone.png cannot be read"):
        listed.checked()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_folder_that_is_gone_is_told(tmp_path):
    pictures(tmp_path, "cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/d.jpg")
    (tmp_path / "lynx").symlink_to("/nowhere/lynx", target_is_directory=True)
    told = "1 link of .* leads nowhere, left out: 'lynx'; put back what is linked, or remove it"
    with pytest.warns(UserWarning, match=told):
        load_images(tmp_path)
    with pytest.warns(UserWarning, match=told):
        assert class_counts(tmp_path) == {"cat": 2, "dog": 2}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_folder_of_links_to_nothing_alone_has_no_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").symlink_to("/nowhere/a.jpg")
    with pytest.raises(ValueError, match=r"has no class folders with images .*; it has 2 broken links"):
        load_images(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_table_takes_the_image_of_two_of_one_name_that_can_be_read(tmp_path):
    pictures(tmp_path, "there/a.jpg", "there/b.jpg", "there/c.jpg", "there/d.jpg")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "a.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "gone" / "e.jpg").symlink_to("nowhere.jpg")
    rows = zip("abcde", "01010", strict=True)
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    found = {images.path(i) for images in load_images(tmp_path / "t.csv") for i in range(len(images))}
    assert found == {"there/a.jpg", "there/b.jpg", "there/c.jpg", "there/d.jpg", "gone/e.jpg"}


def test_a_name_with_line_breaks_and_escapes_is_harmless(tmp_path, capsys, monkeypatch):
    pictures(tmp_path, "a\x1b[31m\nb/1.jpg", "c/2.jpg")
    assert class_counts(tmp_path) == {"a\x1b[31m\nb": 1, "c": 1}
    monkeypatch.setattr("sys.argv", ["longtail", "weights", str(tmp_path), "--beta", "0.9"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "\x1b[31m" not in "".join(capsys.readouterr())


COUNTED = """
import os, sys
calls = []
def note(event, arguments):
    if event in ("os.scandir", "os.listdir", "open"):
        calls.append((event, os.path.abspath(os.fspath(arguments[0]))))
from longtail.datasets import load_images
from longtail import class_counts
from longtail.sources import folders
stats = 0
true_stat = os.stat
def stat(*given, **more):
    global stats
    stats += 1
    return true_stat(*given, **more)
os.stat = stat
sys.addaudithook(note)
class_counts(sys.argv[1])
seen = [path for event, path in calls if event == "os.scandir"]
seen.remove(sys.argv[1])  # which is looked at for annotations first
assert len(seen) == len(set(seen)) == 61, len(seen)
assert not [c for c in calls if c[0] != "os.scandir" and c[1].startswith(sys.argv[1])], calls
assert stats < 20, stats
calls.clear()
load_images(sys.argv[1])
seen = [path for event, path in calls if event == "os.scandir"]
seen.remove(sys.argv[1])  # which is looked at for annotations first
assert len(seen) == len(set(seen)) == 61, len(seen)
"""


def test_a_folder_is_walked_once_and_no_file_is_looked_at(tmp_path):
    """As os.walk: one listing for each folder; only links are followed by a further call."""
    for name in range(20):
        for part in ("x", "y"):
            (tmp_path / f"{name}/{part}").mkdir(parents=True)
            for i in range(10):
                (tmp_path / f"{name}/{part}/{name}-{i}.jpg").touch()
        (tmp_path / f"{name}/z{name}.jpg").touch()
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# ---- tables of images


@pytest.fixture
def table(tmp_path):
    pictures(tmp_path, *(f"part_{1 + i % 2}/ISIC_{i}.jpg" for i in range(12)))
    rows = "".join(f"L{i},ISIC_{i},{'nv' if i % 3 else 'mel'},{i}\n" for i in range(12))
    (tmp_path / "ham.csv").write_text("lesion_id,image_id,dx,age\n" + rows)
    return tmp_path / "ham.csv"


def test_a_table_of_images_and_labels_is_read_and_counted(table):
    train, test = load_images(table, validation=0.25)
    assert train.class_names == ("mel", "nv")
    assert class_counts(table, label="dx") == {"mel": 4, "nv": 8}
    assert (train.class_counts.counts + test.class_counts.counts).tolist() == [4, 8]
    for images in (train, test):
        for i in range(len(images)):
            number = int(Path(images.name(i)).stem.removeprefix("ISIC_"))
            assert images.class_names[images.targets[i]] == ("nv" if number % 3 else "mel")
    ages, _ = list_images(table, label="age")
    assert ages.class_names == tuple(map(str, range(12)))  # in the order of numbers


def test_hugging_faces_metadata_is_found_in_a_folder(tmp_path):
    pictures(tmp_path, *(f"images/{i}.jpg" for i in range(6)))
    rows = "".join(f"images/{i}.jpg,{10 - i % 3}\n" for i in range(6))
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + rows)
    train, test = load_images(tmp_path)
    assert train.class_names == test.class_names == ("8", "9", "10")


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (
            ("ISIC_3,", "ISIC_99,"),
            {},
            FileNotFoundError,
            r"1 of the 12 images .* such as 'ISIC_99'; say where",
        ),
        (("mel,3", ",3"), {}, ValueError, r"1 rows of .* lack a name or a label \('dx'\); drop or fill them"),
        (("mel,3", "NA,3"), {}, ValueError, r"1 rows of .* lack a name or a label"),
        (
            ("dx", "y1"),
            {},
            ValueError,
            r"no column that is known for its labels; name it by label='...', one of",
        ),
        (("", ""), {"label": "nope"}, ValueError, r"label='nope' is no column of .*; it has 'lesion_id'"),
        (("", ""), {"root": "nowhere"}, FileNotFoundError, "root nowhere is not there"),
    ],
)
def test_bad_tables_of_images(table, change, options, error, message):
    table.write_text(table.read_text().replace(*change, 1))
    with pytest.raises(error, match=message):
        load_images(table, **options)


def test_two_images_of_one_name_are_refused(table):
    pictures(table.parent, "part_2/ISIC_0.jpg")
    with pytest.raises(ValueError, match=r"names 'ISIC_0', which 2 images below .* are called"):
        load_images(table)


def test_train_takes_a_table_and_says_what_it_is(table, capsys):
    cli.sources.look_at_images(str(table), label="dx")
    assert capsys.readouterr().err.startswith("2 classes, 9 training and 3 test images")
    code, said, torch = told("train", table.with_name("gone.csv"))
    assert (code, torch) == (2, False)
    assert "gone.csv is not there" in said
