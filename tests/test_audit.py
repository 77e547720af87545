"""The audit: formulas against oracles and simulations, planted duplicates found, and no false ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import shutil
import sys
import warnings
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import longtail
from longtail import cli, datasets
from longtail.auditing import duplicates, facts, samples
from longtail.auditing.findings import harmless
from longtail.counts import ClassCounts
from longtail.report.audit import audit_page

# ---- formulas

sizes = st.lists(st.integers(0, 500), min_size=1, max_size=12).filter(any)


@given(sizes)
def test_gini_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    pairs = sum(abs(a - b) for a in counts for b in counts)
    expected = Fraction(pairs, 2 * len(counts) * sum(counts))
    assert facts.gini(counts) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.filterwarnings("ignore:beta=.* does nothing")
@given(sizes)
def test_effective_shares_are_kishs_of_single_samples(counts: list[int]) -> None:
    for share in facts.effective_shares(counts):
        weights = longtail.class_weights(counts, share.scheme, beta=share.beta or 0.5)
        w = np.repeat(weights, counts)  # one weight a sample, as Kish has it
        assert share.share == pytest.approx(w.sum() ** 2 / (w @ w) / len(w), rel=1e-9)


def test_a_beta_that_does_nothing_and_one_that_is_inverse_are_named() -> None:
    shares = {s.name: s for s in facts.effective_shares([900_000, 60_000], [0.9999, 0.99999999])}
    assert shares["effective beta=0.9999"].does_nothing
    assert shares["effective beta=0.99999999"].is_inverse
    assert not any(s.does_nothing or s.is_inverse for s in facts.effective_shares([50, 50]))


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_what_a_test_set_can_show_is_what_simulated_runs_show(seeds: int, rng: np.random.Generator) -> None:
    m, r, trials = np.array([40, 12, 5]), np.array([0.9, 0.6, 0.7]), 20_000
    found = facts.resolution(ClassCounts("abc", m), seeds=seeds, recall=r.tolist())
    right = rng.binomial(m, r, size=(trials, seeds, 2, 3)) / m
    difference = np.diff(right.mean(-1), axis=-1)[..., 0]  # of two models, a seed each
    if seeds == 1:
        expected = 1.959964 * difference.std()
    else:
        reach = {3: 4.302653, 5: 2.776445}[seeds]  # Student's t, from a table
        expected = reach * np.sqrt((difference.var(axis=1, ddof=1) / seeds).mean())
    assert found.visible == pytest.approx(expected, rel=0.02)
    assert found.error_margin == pytest.approx(1.959964 * right.mean(-1).std(), rel=0.02)


def test_thin_and_empty_test_classes_are_named() -> None:
    found = facts.resolution(ClassCounts("abcd", [0, 4, 5, 1]))
    assert (found.empty, found.thin) == (("a",), ("b", "d"))
    assert facts.resolution(ClassCounts("ab", [0, 0])).visible is None


def test_good_turing_is_the_share_of_groups_not_seen(rng: np.random.Generator) -> None:
    share = rng.dirichlet(np.full(80, 0.4))
    missed, said, held = [], [], []
    for _ in range(400):
        drawn = np.bincount(rng.choice(80, 120, p=share), minlength=80)
        (c,) = facts.groups_per_class(["a"], [drawn[drawn > 0]])
        assert c.new is not None
        assert c.low is not None
        assert c.high is not None
        assert c.coverage == 1 - c.new
        missed.append(share[drawn == 0].sum())
        said.append(c.new)
        held.append(c.low <= missed[-1] <= c.high)
    assert np.mean(said) == pytest.approx(np.mean(missed), abs=0.005)
    assert 0.9 < np.mean(held) < 0.99


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ([[30] * 3, [30] * 34], "samples come in batches of about 30"),
        ([[2] * 40, [2] * 7], "samples come in batches of about 2"),  # two eyes of every patient
        ([[12]], "one group"),
        ([[]], "no samples"),
        ([[1] * 40], ""),
        ([[5, 1, 9, 2, 1]], ""),
    ],
)
def test_no_probability_where_samples_do_not_come_one_by_one(groups: list[list[int]], why: str) -> None:
    found = facts.groups_per_class(["a", "b"][: len(groups)], [np.array(g, np.int64) for g in groups])
    assert {c.why for c in found} == {why}
    assert all((c.new is None) == bool(why) for c in found)


def test_single_draws_are_seldom_taken_for_batches(rng: np.random.Generator) -> None:
    batches = 0
    for _ in range(300):
        drawn = [np.bincount(rng.integers(0, 12, 40), minlength=12) for _ in range(4)]
        batches += facts.groups_per_class("abcd", [d[d > 0] for d in drawn])[0].why != ""
    assert batches <= 3


# ---- pairs that are near


def test_all_near_pairs_are_found_and_no_other(rng: np.random.Generator) -> None:
    vectors = samples.unit(rng.normal(size=(400, 40)))
    vectors[200:260] = samples.unit(vectors[:60] + 0.03 * rng.normal(size=(60, 40)))
    similar = 1 - ((vectors[:, None] - vectors[None]) ** 2).sum(-1) / 2
    expected = {(i, j) for i in range(400) for j in range(i + 1, 400) if similar[i, j] >= 0.9}
    assert len(expected) > 50
    pairs, values = duplicates.near_pairs(lambda at: vectors[at], np.arange(400), 0.9, 1)
    assert set(map(tuple, pairs.tolist())) == expected
    assert values.tolist() == sorted(values, reverse=True)
    np.testing.assert_allclose(values, similar[pairs[:, 0], pairs[:, 1]], atol=1e-6)


def test_a_crowd_of_near_samples_costs_memory_in_proportion(rng: np.random.Generator) -> None:
    crowd = samples.unit(np.ones((900, 20)) + 1e-3 * rng.normal(size=(900, 20)))
    pairs, _ = duplicates.near_pairs(lambda at: crowd[at], np.arange(900), 0.98, 1)
    assert 900 / 2 <= len(pairs) <= 5 * 900


# ---- planted duplicates


def picture(seed: int, side: int = 48) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def folder(root: Path, parts: dict[str, dict[str, int]]) -> Path:
    number = 0
    for part, classes in parts.items():
        for name, size in classes.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for _ in range(size):
                picture(number).save(root / part / name / f"{number:03}.png")
                number += 1
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder(tmp_path / "photos", {"train": {"cat": 30, "lynx": 6}, "test": {"cat": 6, "lynx": 3}})


def names(found: object) -> set[str]:
    return {sample.name for sample in getattr(found, "samples", None) or (found.first, found.second)}


def test_planted_duplicates_are_all_found_and_no_other(photos: Path) -> None:
    train, test = photos / "train", photos / "test"
    assert not longtail.audit(photos).exact_duplicates
    shutil.copy(train / "cat/000.png", test / "cat/leak.png")
    Image.open(train / "cat/001.png").save(train / "cat/pixels.bmp")
    shutil.copy(train / "cat/002.png", train / "lynx/wrong.png")
    copies = {}
    for k, quality in enumerate((20, 50, 75, 95), start=3):
        name = f"test/cat/jpeg{quality}.jpg"
        Image.open(train / f"cat/{k:03}.png").save(photos / name, quality=quality)
        copies[name] = f"train/cat/{k:03}.png"
    for k, side in enumerate((24, 32, 40, 96, 224), start=10):
        name = f"test/lynx/side{side}.png"
        Image.open(train / f"cat/{k:03}.png").resize((side, side)).save(photos / name)
        copies[name] = f"train/cat/{k:03}.png"
    found = longtail.audit(photos)
    kinds = {tuple(sorted(names(d))): d.kind for d in found.exact_duplicates}
    assert kinds == {
        ("test/cat/leak.png", "train/cat/000.png"): "bytes",
        ("train/cat/001.png", "train/cat/pixels.bmp"): "pixels",
        ("train/cat/002.png", "train/lynx/wrong.png"): "bytes",
    }
    assert [names(d) for d in found.leaks] == [{"train/cat/000.png", "test/cat/leak.png"}]
    assert [names(d) for d in found.label_conflicts] == [{"train/cat/002.png", "train/lynx/wrong.png"}]
    assert {frozenset(names(p)) for p in found.probable_duplicates} == set(map(frozenset, copies.items()))
    assert found.probable_total == len(copies)
    assert all(p.is_leak for p in found.probable_duplicates)
    assert found.repeated == {"cat": 1}
    assert found.counts["cat"] == 31  # counts are what lies there, duplicates and all


def test_every_part_of_a_folder_is_compared(photos: Path) -> None:
    (photos / "test").rename(photos / "val")
    folder(photos, {"Test": {"cat": 2}})  # the first two of training
    found = longtail.audit(photos, groups_from="([0-9]+)")
    assert [sorted(names(d)) for d in found.leaks] == [
        ["Test/cat/000.png", "train/cat/000.png"],
        ["Test/cat/001.png", "train/cat/001.png"],
    ]
    assert [g.samples for g in found.shared_groups] == [{"train": 1, "Test": 1}] * 2
    assert found.test_counts is not None
    assert found.test_counts.total == 9
    (photos / "Test" / "dog").mkdir()
    with pytest.raises(ValueError, match="the test images have 1 classes that no training image has: 'dog'"):
        longtail.audit(photos)


def test_links_that_loop_are_walked_once(photos: Path) -> None:
    (photos / "train" / "cat" / "again").symlink_to(photos / "train", target_is_directory=True)
    found = longtail.audit(photos)
    assert (found.counts.total, found.exact_duplicates) == (36, ())


def test_what_only_looks_the_same_is_no_exact_duplicate(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": {"a": 1, "b": 1}}) / "train" / "a"
    base = np.full((20, 24), 256 * 77, np.uint16)
    for k in range(2):  # alike in the upper eight bits
        Image.fromarray(base + np.uint16(k)).save(root / f"deep{k}.png")
    rgb = np.asarray(picture(7))
    for k, alpha in enumerate((255, 255, 254)):
        rgba = np.dstack([rgb, np.full((48, 48), alpha, np.uint8)])
        Image.fromarray(rgba[:, :, :3] if k == 0 else rgba).save(root / f"alpha{k}.png")
    for k in (1, 3):
        exif = Image.Exif()
        exif[0x0112] = k
        picture(8).save(root / f"turned{k}.png", exif=exif)
    first = picture(9).convert("P")
    for k in (10, 11):
        first.save(root / f"film{k}.tif", save_all=True, append_images=[picture(k).convert("P")])
    Image.new("RGB", (10, 20)).save(root / "tall.png")
    Image.new("RGB", (20, 10)).save(root / "wide.png")
    Image.new("L", (10, 20)).save(root / "grey.png")
    found = longtail.audit(tmp_path / "train")
    assert found.counts["a"] == 13
    same = {frozenset(os.path.basename(n) for n in names(d)) for d in found.exact_duplicates}
    assert same == {frozenset({"alpha0.png", "alpha1.png"}), frozenset({"tall.png", "grey.png"})}


def test_plain_pictures_of_another_brightness_are_no_pair(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train": {"a": 1, "b": 1}})
    for level in (0, 90, 180, 255):
        Image.new("RGB", (30 + level, 30), (level,) * 3).save(root / "train" / "a" / f"plain{level}.png")
    assert longtail.audit(root / "train").probable_total == 0


def test_cosine_of_features_finds_pairs_that_pixels_do_not(photos: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(45, 24))
    vectors[40] = 3 * vectors[2] + 0.01
    found = longtail.audit(photos, features=vectors)
    (pair,) = found.probable_duplicates
    assert (names(pair), pair.by) == ({"train/cat/002.png", "test/cat/040.png"}, "features")
    with pytest.raises(ValueError, match=r"features has 44 rows for 45 samples \(36 \+ 9\); give one row a"):
        longtail.audit(photos, features=vectors[:44])
    codes = np.array([0] * 30 + [1] * 6 + [0] * 6 + [1] * 3)
    np.savez(photos / "f.npz", X=vectors, y=codes, class_names=["cat", "lynx"])
    assert longtail.audit(photos, features=photos / "f.npz").probable_total == 1
    np.savez(photos / "f.npz", X=vectors, y=codes[::-1].copy(), class_names=["cat", "lynx"])
    with pytest.raises(ValueError, match=r"row 0 is of class 'lynx', but sample 'train/cat/000\.png' is not"):
        longtail.audit(photos, features=photos / "f.npz")


def test_unreadable_files_are_named_and_the_rest_is_audited(photos: Path) -> None:
    (photos / "train/cat/bad.jpg").write_bytes(b"no picture")
    (photos / "train/cat/also.jpg").write_bytes(b"no picture")
    whole = io.BytesIO()
    picture(3).save(whole, "JPEG")
    (photos / "test/lynx/short.jpg").write_bytes(whole.getvalue()[:400])
    found = longtail.audit(photos)
    bad = {sample.name for sample, _ in found.unreadable}
    assert bad == {"train/cat/bad.jpg", "train/cat/also.jpg", "test/lynx/short.jpg"}
    assert not found.exact_duplicates
    assert "3 samples could not be read" in str(found)


def test_a_file_that_vanishes_is_unreadable(photos: Path) -> None:
    gone = photos / "test" / "lynx" / "044.png"
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    content = samples.of_images(datasets.images.list_images(photos), ("train", "test"), "photos")
    gone.unlink()
    assert content.content is not None
    found = duplicates.look(content.content, len(content), 2, progress)
    assert list(found.unreadable) == [44]
    assert seen[-1] == (45, 45)
    assert found.coarse[44] == -1


# ---- groups


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """Tracks numbered anew in every class: 3 of cat and 9 of lynx in training, the next ones in test."""
    number = 0
    for part, start, of in (("train", 0, {"cat": 3, "lynx": 9}), ("test", 50, {"cat": 1, "lynx": 2})):
        for name, size in of.items():
            (tmp_path / part / name).mkdir(parents=True)
            for track in range(start, start + size):
                for frame in range(3):
                    picture(number, 16).save(tmp_path / part / name / f"{track:05}_{frame:05}.png")
                    number += 1
    return tmp_path


@pytest.mark.parametrize("regex", [r"(\d+)_\d+\.png", r"([^/]+/\d+)_", r"([^/]+)/(\d+)_"])
def test_tracks_are_counted_within_classes(tracks: Path, regex: str) -> None:
    found = longtail.audit(tracks, groups_from=regex, group_scope="class")
    assert found.groups is not None
    assert [(c.name, c.samples, c.groups, c.test_groups) for c in found.groups.per_class] == [
        ("cat", 9, 3, 1),
        ("lynx", 27, 9, 2),
    ]
    assert (found.groups.total, found.shared_groups) == (15, ())
    assert found.test is not None
    assert found.test.visible is not None
    assert found.test.visible_by_group == pytest.approx(found.test.visible * math.sqrt(3))
    assert [need.name for need in found.collect] == ["cat"]


def test_numbers_that_start_again_in_every_class_are_noticed(tracks: Path) -> None:
    for path in tracks.glob("test/*/0005*"):  # numbers of training, in other classes alone
        other = {"cat": 5, "lynx": 20}[path.parent.name] + int(path.name[4])
        path.rename(path.with_name(f"{other:05}{path.name[5:]}"))
    found = longtail.audit(tracks, groups_from=r"(\d+)_")
    assert found.groups is not None
    assert found.groups.by_class
    assert found.groups.total == 15
    assert not found.shared_groups
    assert "numbers start again in every class" in str(found)
    everywhere = longtail.audit(tracks, groups_from=r"(\d+)_", group_scope="all")
    assert everywhere.groups is not None
    assert [(g.name, g.samples) for g in everywhere.shared_groups] == [("00005", {"train": 3, "test": 3})]


def test_patients_in_several_classes_are_one_group_and_their_leak_is_found(tmp_path: Path) -> None:
    number = 0
    for part, patients in (("train", range(1, 9)), ("test", range(8, 11))):
        for name in ("ill", "well"):
            (tmp_path / part / name).mkdir(parents=True)
            for patient in patients:
                picture(number, 16).save(tmp_path / part / name / f"{patient:02}_{name == 'ill':d}.png")
                number += 1
    found = longtail.audit(tmp_path, groups_from=r"(\d+)_")
    assert found.groups is not None
    assert not found.groups.by_class
    assert (found.groups.total, found.groups.in_several_classes) == (10, 10)
    assert [(g.name, g.samples) for g in found.shared_groups] == [("08", {"train": 2, "test": 2})]
    assert "1 of them in both training and test, such as 08 (2 in train and 2 in test)" in str(found)


@pytest.mark.parametrize(
    ("regex", "groups"),
    [
        (r"[^/]+/\d+", {"cat/00000": 3, "lynx/00051": 3}),  # no parentheses: all of it
        (r"^([^/]+)/\d", {"cat": 12, "lynx": 33}),  # below the part's folder
        (r"(.+)_\d+", {"cat/00000": 3, "lynx/00051": 3}),
        (r"train/(\w+)/(\d+)|test/(\w+)/(\d+)", {"cat/00000//": 3, "//lynx/00051": 3}),  # in the whole path
        (r"(cat|lynx)(/no)?", {"cat/": 12, "lynx/": 33}),
    ],
)
def test_an_expression_finds_the_groups_that_training_finds(
    tracks: Path, regex: str, groups: dict[str, int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups in both parts, and numbers that begin anew
        train, test = datasets.images.list_images(tracks, groups_from=regex)
    assert test is not None
    trained = Counter([*train.groups, *test.groups])  # type: ignore[misc]
    assert {name: trained[name] for name in groups} == groups
    found = longtail.audit(tracks, groups_from=regex, group_scope="all")
    assert found.groups is not None
    assert found.groups.total == len(trained)
    assert {g.name for g in found.shared_groups} == {*train.groups} & {*test.groups}  # type: ignore[misc]


def test_a_part_with_one_class_folder_is_told_from_its_class(tracks: Path) -> None:
    shutil.rmtree(tracks / "test/lynx")
    for path in tracks.glob("test/cat/*"):
        path.rename(path.with_name(path.name.replace("00050", "00000")))
    found = longtail.audit(tracks, groups_from=r"(.+)_\d+")
    assert [(g.name, g.samples) for g in found.shared_groups] == [("cat/00000", {"train": 3, "test": 3})]
    with pytest.warns(UserWarning, match="1 groups are in both training and test, such as 'cat/00000'"):
        datasets.images.list_images(tracks, groups_from=r"(.+)_\d+")


def shared(source: Path | tuple[Path, Path], regex: str) -> set[str]:
    """Return the groups in both parts, as the audit and what trains find them alike."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, test = datasets.images.list_images(source, groups_from=regex)
    assert test is not None
    bare = datasets.images.list_images(source)
    found = longtail.audit(bare, groups_from=regex, group_scope="all")  # type: ignore[arg-type]
    assert {g.name for g in found.shared_groups} == {*train.groups} & {*test.groups}  # type: ignore[misc]
    return {g.name for g in found.shared_groups}


def put(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number, 16).save(root / name)


@pytest.mark.parametrize("classes", [("train", "bus"), ("test", "bus"), ("images", "train")])
@pytest.mark.parametrize("inner", ["", "images/"])
def test_a_class_may_be_called_as_the_folder_of_a_part(
    tmp_path: Path, classes: tuple[str, ...], inner: str
) -> None:
    names = [f"{inner}{c}/{g}_{i}.png" for c in classes for g in range(3) for i in range(2)]
    put(tmp_path, *(f"{part}/{name}" for part in ("train", "test") for name in names))
    groups = {f"{c}/{g}" for c in classes for g in range(3)}
    assert shared(tmp_path, r"(.+)_\d+") == groups
    found = longtail.audit(tmp_path, groups_from=r"(.+)_\d+")
    assert found.groups is not None
    assert found.groups.total == len(found.shared_groups) == 6
    for part in ("train", "test"):  # as lists: no folder is told to be the part's
        lines = [f"{part}/{name} {classes.index(name.split('/')[-2])}" for name in names]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines), encoding="utf-8")
    assert shared((tmp_path / "train.txt", tmp_path / "test.txt"), r"(.+)_\d+") == groups


def test_lists_of_parts_in_one_folder_each_share_their_groups(tmp_path: Path) -> None:
    names = [f"{g}_{i}.png" for g in "abcd" for i in range(2)]
    put(tmp_path, *(f"{part}/{name}" for part in ("pics/one", "two") for name in names))
    for part, file in (("pics/one", "train.txt"), ("two", "test.txt")):
        lines = [f"{part}/{name} {name[0] in 'cd':d}" for name in names]
        (tmp_path / file).write_text("\n".join(lines), encoding="utf-8")
    assert shared((tmp_path / "train.txt", tmp_path / "test.txt"), r"(.+)_\d+") == {*"abcd"}


def test_an_expression_that_reaches_into_the_folder_of_a_part_is_refused(tmp_path: Path) -> None:
    names = [f"{part}/{c}/p{n}/1.png" for part in ("train", "test") for c in ("cat", "dog") for n in range(3)]
    put(tmp_path, *names, "test/dog/9.png")
    regex = r"(.+/.+)/[^/]+$"
    test = datasets.images.list_images(tmp_path)[1]
    assert test is not None
    message = (
        r"finds no group in 'dog/9.png', below the folder of the part, and in the whole path "
        r"'(train/cat/p0|test/cat/p0)/1.png' it finds '\1', which holds that folder, .*; give an expression"
    )
    for look in (
        lambda: longtail.audit(tmp_path, groups_from=regex),
        lambda: datasets.load_images(tmp_path, groups_from=regex),
        lambda: test.with_groups(regex),
    ):
        with pytest.raises(ValueError, match=message):
            look()
    # both are found by whole paths, as one image has no group below its part, and the folder is in no group
    assert shared(tmp_path, r"(?:train|test)/(.+/p\d)|(?:test)/(dog)/9") == {
        f"{c}/p{n}/" for c in ("cat", "dog") for n in range(3)
    }
    (tmp_path / "test/dog/9.png").unlink()
    assert len(shared(tmp_path, regex)) == 6


def test_frames_of_one_track_are_no_pairs(tracks: Path) -> None:
    for frame in (7, 8):
        Image.open(tracks / "train/cat/00000_00000.png").resize((20 + frame,) * 2).save(
            tracks / f"train/cat/00000_0000{frame}.png"
        )
    assert longtail.audit(tracks).probable_total == 3
    assert longtail.audit(tracks, groups_from=r"([^/]+/\d+)_").probable_total == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups_from": "("}, r"groups_from must be a regular expression, got '\(': missing"),
        ({"groups_from": "(track.*)_"}, "finds nothing in 'train/cat/00000_00000.png'; give an expression"),
        ({"groups_from": "(track.*)?"}, "finds an empty text in 'train/cat/00000_00000.png'; give an"),
        (
            {"group": "patient"},
            "group='patient': .* has no columns; for images give groups_from=",
        ),
        ({"groups": ["a", "b"]}, "groups has 2 entries for 45 samples; give one a sample, training first"),
        ({"groups": [None] * 45}, "the group is missing for 45 samples"),
        ({"groups": ["a"] * 45, "groups_from": "(.)"}, "groups= and groups_from= are given"),
        ({"group_scope": "part"}, "group_scope must be one of 'auto', 'all', 'class', got 'part'"),
        ({"similarity": 1}, r"similarity must be in \(0, 1\), got 1"),
        ({"recall": 1.2}, r"recall must be in \[0, 1\], got 1.2"),
        ({"recall": [0.5]}, "recall must be one number or 2, one a class, got 1"),
        ({"betas": [2]}, r"beta must be in \[0, 1\], got 2"),
        ({"seeds": 0}, "seeds must be in"),
        ({"jobs": 0}, "jobs must be in"),
    ],
)
def test_bad_arguments_are_refused(tracks: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        longtail.audit(tracks, **options)


def test_gtsrbs_tracks_are_counted_exactly() -> None:
    root = Path(os.environ.get("LONGTAIL_DATA", "no/data")) / "gtsrb"
    if not root.is_dir():
        pytest.skip("LONGTAIL_DATA has no folder gtsrb")
    train, test = datasets.images.list_images(root)
    kept = []  # the first picture of every track: decoding all takes half a minute
    for images in (train, test):
        first: dict[str, int] = {}
        for index in range(len(images)):
            first.setdefault(images.name(index).rpartition("_")[0], index)
        kept.append(images.select(list(first.values())))
    found = longtail.audit(tuple(kept), groups_from=r"(\d+)_\d+\.jpg")
    assert found.groups is not None
    for c in found.groups.per_class:
        listed = [{name[:5] for name in os.listdir(root / part / c.name)} for part in ("train", "test")]
        assert (c.groups, c.test_groups) == (len(listed[0]), len(listed[1]))
    assert found.groups.by_class
    assert found.shared_groups == ()


# ---- other sources


def test_labels_alone() -> None:
    found = longtail.audit(["cat"] * 90 + ["lynx"] * 10, test=["cat"] * 9 + ["lynx"], groups=list(range(110)))
    assert found.test is not None
    assert found.test.thin == ("lynx",)
    assert found.groups is not None
    assert found.groups.per_class[0].new == 1.0
    assert found.compared == ()
    with pytest.raises(ValueError, match="the labels has one class, 'a'; an audit needs two or more"):
        longtail.audit(["a", "a"])
    with pytest.raises(ValueError, match="the test labels have 1 classes that no training sample has: 'c'"):
        longtail.audit(["a", "b"], test=["c"])


def test_a_data_set_in_memory(rng: np.random.Generator) -> None:
    train, test = (rng.integers(0, 17, (n, 1, 8, 8)).astype(np.float32) for n in (30, 9))
    test[3] = train[7]
    test[4] = np.clip(train[8] + 0.1, 0, 16)  # as good as the same
    parts = [datasets.Split(x, np.arange(len(x)) % 3) for x in (train, test)]
    found = longtail.audit(datasets.Dataset("d", *parts, ("a", "b", "c"), kind="images"))
    assert [names(d) for d in found.leaks] == [{"train 7", "test 3"}]
    assert [names(p) for p in found.probable_duplicates] == [{"train 8", "test 4"}]
    assert "data:image/jpeg" in audit_page(found)
    rows = [datasets.Split(part.inputs[:, 0, 0], part.targets) for part in parts]
    vectors = datasets.Dataset("d", *rows, ("a", "b", "c"))
    assert [d.kind for d in longtail.audit(vectors).leaks] == ["values"]


TABLE = """id,text,n,who,kind
1,The  cat sat,1.0,ann,good
2,the CAT\tsat ,1,ann,good
3,A dog,2,bob,bad
4,A dog,2,eve,good
5,A dog ,2.5,eve,bad
6,Straße,3,eve,good
7,STRASSE,3,eve,good
8,ﬁsh,4,eve,bad
9,fish,4,eve,bad
10,,5,eve,bad
11,NA,5,dan,bad
12,007,9,dan,bad
13,7,9,dan,bad
14,12345678901234567890,9,dan,bad
15,12345678901234567891,9,dan,bad
"""
SAME = {(1, 2): "text", (3, 4): "row", (6, 7): "text", (8, 9): "text", (10, 11): "text"}


@pytest.mark.parametrize("kind", ["csv", "tsv", "gz", "frame", "mapping", "parquet"])
def test_rows_are_compared_as_they_stand_and_after_normalisation(kind: str, tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(TABLE)))
    columns = {name: list(cells) for name, cells in zip(rows[0], zip(*rows[1:], strict=True), strict=True)}
    source: object = tmp_path / f"t.{kind}"
    if kind == "csv":
        (tmp_path / "t.csv").write_text(TABLE, encoding="utf-8")
    elif kind == "tsv":
        lines = ("\t".join(cell.replace("\t", " ") for cell in row) for row in rows)
        (tmp_path / "t.tsv").write_text("\n".join(lines), encoding="utf-8")
    elif kind == "gz":
        source = tmp_path / "t.csv.gz"
        source.write_bytes(gzip.compress(TABLE.replace(",", ";").encode()))
    elif kind == "frame":
        source = pd.DataFrame(columns)
    elif kind == "mapping":
        source = columns
    else:
        pd.DataFrame(columns).to_parquet(source)
    found = longtail.audit(source, label="kind", group="who")
    same = {tuple(sorted(s.index + 1 for s in d.samples)): d.kind for d in found.exact_duplicates}
    assert same == SAME
    assert [d.samples[0].index for d in found.label_conflicts] == [2]
    assert found.counts.counts.tolist() == [10, 5]
    assert found.groups is not None
    assert [(c.name, c.groups) for c in found.groups.per_class] == [("bad", 3), ("good", 2)]
    assert found.notes == (
        "Rows are compared without 'id', whose values are all distinct and tell rows apart.",
    )
    assert "A dog | 2" in audit_page(found)


def test_columns_left_out_and_a_test_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,kind\n1,5,0\n2,6,10\n2,7,2\n")
    (tmp_path / "b.csv").write_text("y,x,kind\n6,2,10\n9,9,2\n")
    found = longtail.audit(tmp_path / "a.csv", label="kind", test=tmp_path / "b.csv")
    assert [s.name for d in found.leaks for s in d.samples] == ["train row 2", "test row 1"]
    assert found.counts.names == ("0", "2", "10")
    assert found.test_counts is not None
    assert found.test_counts.counts.tolist() == [0, 1, 1]
    assert len(longtail.audit(tmp_path / "a.csv", label="kind", drop="y").exact_duplicates) == 1
    both = longtail.audit(tmp_path / "a.csv", label="kind", test=tmp_path / "a.csv", drop="y")
    assert "2 samples repeat another of the same part, such as train row 2" in str(both)
    (tmp_path / "b.csv").write_text("z,x,kind\n6,2,10\n")
    with pytest.raises(ValueError, match=r"test has other columns than a\.csv: 'y', 'z' are in one of them"):
        longtail.audit(tmp_path / "a.csv", label="kind", test=tmp_path / "b.csv")
    (tmp_path / "b.csv").write_text("y,x,kind\n6,2,11\n")
    with pytest.raises(ValueError, match="classes that no training image has: '11'"):
        longtail.audit(tmp_path / "a.csv", label="kind", test=tmp_path / "b.csv")


def test_labels_that_are_missing_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1.5,a\n2.5,\n1.5,b\n\n")
    with pytest.raises(ValueError, match="missing_as_class=True"):
        longtail.audit(tmp_path / "a.csv", label="2", header=False)
    found = longtail.audit(tmp_path / "a.csv", label="2", header=False, missing_as_class=True)
    assert dict(found.counts) == {"a": 1, "b": 1, "missing": 1}
    assert len(found.label_conflicts) == 1
    frame = pd.DataFrame({"x": [1, 2, 3], "y": ["a", None, "b"]})
    assert dict(longtail.audit(frame, label="y", missing_as_class=True).counts) == {
        "a": 1,
        "b": 1,
        "missing": 1,
    }


@given(st.lists(st.floats() | st.integers() | st.text(), min_size=2, max_size=2))
def test_cells_are_one_only_if_they_read_the_same(cells: list[object]) -> None:
    first, second = cells
    one = samples.normal(first) == samples.normal(second)
    if isinstance(first, int) and isinstance(second, int):
        assert one == (first == second)
    if isinstance(first, float) and isinstance(second, float):
        assert one == (first == second or (first != first and second != second))
    assert samples.normal(first) == samples.normal(first if not isinstance(first, str) else f" {first}\n")


def test_a_features_file_brings_its_groups(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(12, 5)).astype(np.float32)
    x[9], x[11] = x[0], 1.001 * x[2]
    y, g = np.array([0] * 8 + [1] * 4), np.array(list("aabbccddeeaa"))
    np.savez(
        tmp_path / "f.npz", X=x[:9], y=y[:9], X_test=x[9:], y_test=y[9:], groups=g[:9], groups_test=g[9:]
    )
    found = longtail.audit(tmp_path / "f.npz")
    assert [names(d) for d in found.leaks] == [{"train 0", "test 0"}]
    assert [names(p) for p in found.probable_duplicates] == [{"train 2", "test 2"}]
    assert [g.name for g in found.shared_groups] == ["a", "e"]


# ---- what is shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.jpg", "a b.jpg"),
        ("Lüchse.jpg", "Lüchse.jpg"),
        ("x\n\x1b[31m", "x\\n\\x1b[31m"),
        ("\u202egpj.a", "\\u202egpj.a"),
        (os.fsdecode(b"\xff.jpg"), "\\udcff.jpg"),
    ],
)
def test_names_are_harmless(name: str, shown: str) -> None:
    assert harmless(name) == shown


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["longtail", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_prints_text_json_csv_and_a_page(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(photos / "train/cat/000.png", photos / "test/cat/l\n\x1b[31m[red]<b>.png")
    page = tmp_path / "page.html"
    assert run([photos, "--out", page], monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "1 test sample is in training, too" in " ".join(shown.split())
    assert "2 of 2 classes" not in shown
    assert "1 of 2 classes has fewer than 5 test samples (lynx)" in " ".join(shown.split())
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 2
    assert "l\\n\\x1b[31m[red]&lt;b&gt;.png" in html
    assert "[red]<b>" not in html
    assert "http:" not in html.partition("<script")[0]
    assert run([photos, "--out", page], monkeypatch) == 2
    assert "exists; give another name, or --force" in " ".join(capsys.readouterr().err.split())
    assert run([photos, "--format", "json"], monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["exact_duplicates"][0]["is_leak"]
    assert told["counts"] == [{"class": "cat", "count": 30}, {"class": "lynx", "count": 6}]
    assert told["findings"][0]["title"] == "The tail"
    assert run([photos, "--format", "csv"], monkeypatch) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[1] == {"class": "lynx", "training": "6", "repeated": "0", "test": "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such"], "image folder no/such is not there; check the path"),
        (["{photos}", "--groups-from", "track"], "--groups-from 'track' finds nothing in 'train/cat/"),
        (["{photos}", "--group", "who"], "--group 'who': photos has no columns"),
        (
            ["{photos}", "--group", "who", "--groups-from", "x"],
            "--group and --groups-from are given; they say",
        ),
        (["{photos}/train/cat"], "has no class folders"),
        (["{photos}", "--test", "b.csv"], "--test 'b.csv' belongs to a table; leave it out for"),
        (["{photos}/t.csv"], "is a table; name its label column, such as --label 'class'"),
        (["{photos}/t.csv", "--label", "kinds"], "--label 'kinds' is no column of"),
        (
            ["{photos}/t.csv", "--label", "kind", "--group", "who"],
            "--group 'who' is no column of t.csv; it has 'kind', 'n'",
        ),
        (
            ["{photos}/t.csv", "--label", "kind", "--groups-from", "(.)"],
            "--groups-from needs names of files, and t.csv has none; name a column by --group",
        ),
        (["{photos}/t.csv", "--label", "n"], "has one class, '1'; an audit needs two or more"),
        (["{photos}", "--features", "no.npz"], "features no.npz is not there"),
    ],
)
def test_the_command_fails_in_one_line(
    arguments: list[str],
    message: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "t.csv").write_text("kind,n\na,1\nb,1\n")
    assert run([a.format(photos=photos) for a in arguments], monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_without_a_test_part_that_is_the_finding(photos: Path) -> None:
    found = longtail.audit(photos / "train")
    assert found.test is None
    assert found.test_counts is None
    assert "There is no test part" in str(found)
    page = audit_page(found)
    assert "https:" not in page.partition("<script")[0]
    assert "nothing it found reaches a weight" in page
