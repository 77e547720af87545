"""Skeleton clips: small files in both official layouts, the compact form, a plain loop as the oracle."""

import os
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.signal import medfilt

from longtail.datasets import jhmdb, load, shrec, subset_sha256
from longtail.skeletons import clips as skeletons
from longtail.skeletons.clips import convert, prepare
from longtail.skeletons.files import check_clip, read_clip, read_compact

ACTIONS = [
    *("brush_hair", "catch", "clap", "climb_stairs", "golf", "jump", "kick_ball", "pick", "pour", "pullup"),
    *("push", "run", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "stand", "swing_baseball", "throw"),
    *("walk", "wave"),
]


# writers of both layouts


@pytest.fixture(scope="module")
def jhmdb_layout(tmp_path_factory):
    """Three clips of every action; clip k is the test clip of split k."""
    root, draw = tmp_path_factory.mktemp("JHMDB"), np.random.default_rng(0)
    (root / "splits").mkdir()
    for action in ACTIONS:
        names = [f"clip of {action} (no {k})" for k in (1, 2, 3)]
        for name in names:
            folder = root / "joint_positions" / action / name
            folder.mkdir(parents=True)
            world = draw.normal(size=(2, 15, draw.integers(3, 12)))
            fields = {"pos_world": world, "pos_img": 100 * world + 160, "scale": 1.0, "viewpoint": "S"}
            savemat(folder / "joint_positions.mat", fields)
        for k in (1, 2, 3):
            lines = [f"{name}.avi {2 if j == k else 1}" for j, name in enumerate(names, start=1)]
            (root / "splits" / f"{action}_test_split{k}.txt").write_text("\n".join(lines) + " \n\n")
    (root / "joint_positions" / ".hidden").mkdir()
    return root


@pytest.fixture(scope="module")
def shrec_layout(tmp_path_factory):
    """One training and one test clip of each gesture with each finger."""
    root, draw = tmp_path_factory.mktemp("SHREC"), np.random.default_rng(0)
    lines = {"train": [], "test": []}
    for gesture in range(1, 15):
        for finger in (1, 2):
            for essai, part in enumerate(lines, start=1):
                folder = root / f"gesture_{gesture}/finger_{finger}/subject_7/essai_{essai}"
                folder.mkdir(parents=True)
                clip = draw.normal(size=(draw.integers(3, 9), 66)).astype(np.float32)
                np.savetxt(folder / "skeletons_world.txt", clip, fmt="%.8g")
                fine = 2 * (gesture - 1) + finger
                lines[part].append(f"{gesture} {finger} 7 {essai} {gesture} {fine} {len(clip)}")
    for part, text in lines.items():
        (root / f"{part}_gestures.txt").write_text("\n".join(text) + "\n")
    return root


@pytest.fixture
def jhmdb_root(jhmdb_layout, tmp_path):
    return shutil.copytree(jhmdb_layout, tmp_path / "JHMDB")


@pytest.fixture
def shrec_root(shrec_layout, tmp_path):
    return shutil.copytree(shrec_layout, tmp_path / "HandGestureDataset_SHREC2017")


def compact(**changes):
    """The fields of a small JHMDB in the compact form; a change to None leaves a field out."""
    labels = np.repeat(np.arange(21), 2)
    fields = {
        "poses": np.random.default_rng(1).normal(size=(42 * 4, 15, 2)).astype(np.float32),
        "lengths": np.full(42, 4),
        "labels": labels,
        "label_names": np.array(ACTIONS),
        "is_test": np.tile([[False], [True]], (21, 3)),
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


# preparation


def plain_loop(clips, frames=32):
    """Joint by joint and coordinate by coordinate, as DD-Net's authors go about it."""
    out = np.empty((len(clips), frames, *clips[0].shape[1:]))
    for n, clip in enumerate(clips):
        for joint in range(clip.shape[1]):
            for axis in range(clip.shape[2]):
                line = medfilt(np.pad(clip[:, joint, axis], 1, mode="edge"), 3)[1:-1]
                out[n, :, joint, axis] = np.interp(
                    np.linspace(0, len(line) - 1, frames), np.arange(len(line)), line
                )
        for axis in range(clip.shape[2]):
            out[n, ..., axis] -= np.mean(out[n, ..., axis])
    return out


@given(
    lengths=st.lists(st.integers(3, 70), min_size=1, max_size=8),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3)),
    frames=st.integers(2, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_preparation_is_the_plain_loops(lengths, shape, frames, seed):
    draw = np.random.default_rng(seed)
    clips = [draw.normal(size=(length, *shape)) for length in lengths]
    done = prepare(np.concatenate(clips), lengths, frames)
    assert done.dtype == np.float32
    np.testing.assert_allclose(done, plain_loop(clips, frames), atol=1e-5)
    for clip, own in zip(clips, done, strict=True):  # neighbours have no influence, to the last bit
        np.testing.assert_array_equal(prepare(clip, [len(clip)], frames)[0], own)


def test_an_outlier_goes_and_the_movement_of_the_whole_body_stays():
    walk = np.linspace(0, 31, 32)[:, None, None] + np.zeros((32, 4, 2))
    jumpy = walk.copy()
    jumpy[10, 2, 1] = 500
    expected = walk - walk.mean()
    np.testing.assert_allclose(prepare(walk, [32])[0], expected, atol=1e-5)
    # one frame of one joint differs by a frame's step, where it was off by 500
    assert np.abs(prepare(jumpy, [32])[0] - expected).max() < 1.1


def test_where_somebody_stands_does_not_matter(rng):
    clip = rng.normal(size=(20, 15, 2)).astype(np.float32)
    np.testing.assert_allclose(prepare(clip + np.array([3, -2]), [20]), prepare(clip, [20]), atol=1e-5)


def test_the_input_is_left_as_it_was(rng):
    clip = rng.normal(size=(20, 15, 2)).astype(np.float32)
    before = clip.copy()
    prepare(clip, [20])
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize(
    ("lengths", "frames", "message"),
    [
        ([4, 5], 32, r"poses has shape \(10, 2, 2\) and lengths shape \(2,\) with sum 9"),
        ([8, 2], 32, "lengths holds 2 for clip 1; leave out clips of fewer than 3 frames"),
        ([5, 5], 1, r"frames must be in \[2, inf"),
    ],
)
def test_what_cannot_be_prepared(lengths, frames, message):
    with pytest.raises(ValueError, match=message):
        prepare(np.zeros((10, 2, 2)), lengths, frames)


# the official layouts


def test_jhmdb_in_its_official_layout(jhmdb_layout):
    for k in (1, 2, 3):
        data = jhmdb(jhmdb_layout, split=k)
        assert data.name == f"jhmdb21-{k}"
        assert data.kind == "skeletons"
        assert data.class_names == tuple(ACTIONS)
        assert data.class_counts.tolist() == [2] * 21
        assert data.test.targets.tolist() == list(range(21))
        mat = jhmdb_layout / f"joint_positions/catch/clip of catch (no {k})/joint_positions.mat"
        clip = loadmat(mat)["pos_world"].transpose(2, 1, 0)
        np.testing.assert_allclose(data.test.inputs[1], plain_loop([clip])[0], atol=1e-5)


def test_14_classes_are_those_of_one_word(jhmdb_layout):
    whole, part = jhmdb(jhmdb_layout, split=2), jhmdb(jhmdb_layout, classes=14, split=2)
    assert part.class_names == tuple(name for name in ACTIONS if "_" not in name)
    assert part.num_classes == 14
    kept = [ACTIONS.index(name) for name in part.class_names]
    np.testing.assert_array_equal(part.test.inputs, whole.test.inputs[kept])
    assert part.class_counts.tolist() == [2] * 14


def test_shrec_in_its_official_layout(shrec_layout):
    fine, coarse = shrec(shrec_layout, gestures=28), shrec(shrec_layout)
    assert (fine.name, coarse.name, fine.kind) == ("shrec28", "shrec14", "skeletons")
    assert fine.class_names[:3] == ("grab, finger", "grab, hand", "tap, finger")
    assert coarse.class_names[0] == "grab"
    assert coarse.class_names[-1] == "shake"
    assert fine.class_counts.tolist() == [1] * 28
    assert coarse.class_counts.tolist() == [2] * 14
    np.testing.assert_array_equal(fine.train.targets // 2, coarse.train.targets)
    np.testing.assert_array_equal(fine.train.inputs, coarse.train.inputs)
    clip = np.loadtxt(shrec_layout / "gesture_2/finger_1/subject_7/essai_2/skeletons_world.txt")
    np.testing.assert_allclose(fine.test.inputs[2], plain_loop([clip.reshape(-1, 22, 3)])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "file", "names"),
    [
        ("jhmdb_layout", "jhmdb21.npz", ["jhmdb21-1", "jhmdb21-3", "jhmdb14-2"]),
        ("shrec_layout", "shrec17.npz", ["shrec14", "shrec28"]),
    ],
)
def test_the_compact_form_loads_as_its_source(layout, file, names, request, tmp_path, monkeypatch):
    source = request.getfixturevalue(layout)
    written = convert(source, tmp_path / "new" / file)
    again = convert(tmp_path / "new" / file, tmp_path / "again.npz")  # its own form is a source, too
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    monkeypatch.setenv("LONGTAIL_DATA", str(tmp_path / "new"))
    for name in names:
        one, other = load(name), load(name, source)
        np.testing.assert_array_equal(one.train.inputs, other.train.inputs)
        np.testing.assert_array_equal(one.test.targets, other.test.targets)
        assert one.class_names == other.class_names
    assert os.listdir(tmp_path / "new") == [file]


@pytest.mark.parametrize(
    ("copied", "name"), [("jhmdb_root", "jhmdb21-1"), ("shrec_root", "shrec14")], ids=["jhmdb", "shrec"]
)
def test_the_official_folder_may_lie_in_the_root(copied, name, request):
    root = request.getfixturevalue(copied)
    assert load(name, root.parent).name == name


def test_splits_in_files_of_their_own_are_put_together(jhmdb_layout, tmp_path):
    whole = convert(jhmdb_layout, tmp_path / "jhmdb21.npz")
    clips = np.split(whole.poses, np.cumsum(whole.lengths)[:-1])
    (tmp_path / "splits").mkdir()
    for k in (1, 2, 3):
        fields = {"label_names": whole.label_names}
        for part, rows in (("train", ~whole.is_test[:, k - 1]), ("test", whole.is_test[:, k - 1])):
            rows = np.random.default_rng(k).permutation(np.flatnonzero(rows))
            fields[f"{part}_poses"] = np.concatenate([clips[i] for i in rows])
            fields[f"{part}_lengths"] = whole.lengths[rows].astype(np.int16)
            fields[f"{part}_labels"] = whole.labels[rows].astype(np.int16)
        np.savez(tmp_path / "splits" / f"split{k}.npz", **fields)
    merged = convert(tmp_path / "splits", tmp_path / "merged" / "jhmdb21.npz")
    assert merged.is_test.shape == (63, 3)
    for k in (1, 2, 3):
        ours, theirs = jhmdb(tmp_path / "merged", split=k), jhmdb(jhmdb_layout, split=k)
        for part in ("train", "test"):
            keys = [
                sorted(zip(s.targets, map(bytes, s.inputs), strict=True))
                for s in (getattr(ours, part), getattr(theirs, part))
            ]
            assert keys[0] == keys[1]
    alone = convert(tmp_path / "splits" / "split2.npz", tmp_path / "alone" / "jhmdb21.npz")
    assert alone.is_test.shape == (63, 1)
    with pytest.raises(ValueError, match="'is_test' has 1 splits, not a split 2"):
        jhmdb(tmp_path / "alone", split=2)
    with np.load(tmp_path / "splits" / "split3.npz") as file:
        fields = {name: file[name] for name in file.files}
    fields["test_poses"] = fields["test_poses"] + 1
    np.savez(tmp_path / "splits" / "split3.npz", **fields)
    with pytest.raises(ValueError, match=r"split3.npz: 'poses' and 'labels' are not the clips of split1.npz"):
        convert(tmp_path / "splits", tmp_path / "jhmdb21.npz")


def test_a_long_tail_of_clips(jhmdb_layout):
    data = jhmdb(jhmdb_layout)
    tail, kept = data.long_tailed(2, seed=3)
    assert (tail.name, tail.kind) == ("jhmdb21-1-lt2", "skeletons")
    assert tail.class_counts.tolist() == [2, *[1] * 20]
    np.testing.assert_array_equal(tail.train.inputs, data.train.inputs[kept])
    assert len(subset_sha256(kept)) == 64


# bad input: each error names the file and the field


def mat(root, action="golf", k=1):
    return root / f"joint_positions/{action}/clip of {action} (no {k})/joint_positions.mat"


def spoil(**fields):
    return lambda root: savemat(mat(root), fields)


def nowhere(shape, *place):
    poses = np.zeros(shape)
    poses[place] = np.nan
    return poses


def edit(file, old, new):
    def change(root):
        path = root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil(pos_img=np.zeros((2, 15, 9))), r"golf.*joint_positions.mat has no 'pos_world'"),
        (spoil(pos_world=np.zeros((2, 14, 9))), r"\.mat: 'pos_world' has shape \(2, 14, 9\)"),
        (spoil(pos_world=np.zeros((2, 15, 2))), r"\.mat: 'pos_world' has 2 frames, and the motion"),
        (spoil(pos_world=np.zeros((2, 15))), r"\.mat: 'pos_world' has shape \(2, 15\)"),
        (
            spoil(pos_world=nowhere((2, 15, 9), 1, 7, 5)),
            r"\.mat: 'pos_world' is not finite at frame 5, joint 7; fill in missing joints first",
        ),
        (spoil(pos_world=np.array([["a", "b"]])), r"\.mat: 'pos_world' has shape"),
        (lambda root: mat(root).write_bytes(b"MATLAB, not"), r"joint_positions.mat is no MATLAB file"),
        (
            lambda root: mat(root).unlink(),
            r"golf_test_split1.txt names the clip 'clip of golf \(no 1\)', but",
        ),
        (edit("splits/golf_test_split1.txt", "(no 2).avi 1", "(no 2).avi 3"), "golf_test_split1.txt, line 2"),
        (
            edit("splits/golf_test_split1.txt", "(no 2)", "(no 9)"),
            r"golf_test_split2.txt: clip 'clip of golf",
        ),
        (
            lambda root: (root / "splits/golf_test_split3.txt").unlink(),
            "golf_test_split3.txt is not there; unpack the splits",
        ),
        (
            lambda root: (root / "splits/golf_test_split1.txt").write_text("\n"),
            "golf_test_split1.txt lists no clips, so the class is empty",
        ),
        (
            edit("splits/golf_test_split1.txt", "(no 1).avi 2", "(no 1).avi 1"),
            "'labels' has no test clip of class 'golf' in split 1",
        ),
        (lambda root: shutil.rmtree(root / "joint_positions/golf"), "'label_names' has 20 classes, not 21"),
        (
            lambda root: (shutil.rmtree(root / "joint_positions"), (root / "joint_positions").mkdir()),
            "joint_positions holds no clips",
        ),
    ],
)
def test_a_spoilt_jhmdb_names_file_and_field(change, message, jhmdb_root):
    change(jhmdb_root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        jhmdb(jhmdb_root)


WORLD = "gesture_2/finger_1/subject_7/essai_1/skeletons_world.txt"


def put_world(text):
    return lambda root: (root / WORLD).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put_world("1 " * 66 + "\n" + "1 " * 65), "_world.txt, frame 1: 'skeletons_world' has 65 numbers"),
        (put_world(("1 " * 65 + "x\n") * 3), "_world.txt: 'skeletons_world' is not all numbers"),
        (put_world(("1 " * 65 + "nan\n") * 3), "'skeletons_world' is not finite at frame 0, joint 21"),
        (put_world("1 " * 66), "_world.txt: 'skeletons_world' has 1 frame, and the motion"),
        (put_world(""), "_world.txt: 'skeletons_world' has 0 frames"),
        (
            lambda root: (root / WORLD).unlink(),
            r"train_gestures.txt, line 3, names the clip .*_world.txt, which is not there",
        ),
        (
            edit("train_gestures.txt", "2 1 7 1 2 3", "2 1 7 1 2 29"),
            "train_gestures.txt, line 3: '2 1 7 1 2 29",
        ),
        (edit("train_gestures.txt", "2 1 7 1 2 3 ", "2 1 7 1 2 "), "train_gestures.txt, line 3"),
        (edit("train_gestures.txt", "2 1 7 1 2 3", "2 1 7 1 2 4"), "'28_labels' of the gesture lists"),
        (edit("train_gestures.txt", "2 1 7 1 2 3", "2 1 7 1 3 3"), "'28_labels' of the gesture lists"),
        (
            lambda root: (root / "test_gestures.txt").write_text(""),
            "'labels' has no test clip of class 'grab'",
        ),
    ],
)
def test_a_spoilt_shrec_names_file_and_field(change, message, shrec_root):
    change(shrec_root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        shrec(shrec_root)


HOLE = np.zeros((42 * 4, 15, 2), np.float32)
HOLE[9, 3, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None}, "jhmdb21.npz has no 'poses', only 'lengths', 'labels'"),
        ({"poses": HOLE}, "jhmdb21.npz, clip 2: 'poses' is not finite at frame 1, joint 3"),
        ({"poses": HOLE[:-1]}, r"'poses' has shape \(167, 15, 2\) and dtype float32, not \(168, J, D\)"),
        (
            {"poses": np.zeros((42 * 4, 14, 2))},
            r"'poses' has \(14, 2\) joints and coordinates, not \(15, 2\)",
        ),
        ({"lengths": np.array([2, 6, *[4] * 40])}, "jhmdb21.npz, clip 0: 'poses' has 2 frames"),
        ({"lengths": np.array([1, 7, *[4] * 40])}, "jhmdb21.npz, clip 0: 'poses' has 1 frame,"),
        ({"lengths": np.array([-4, 12, *[4] * 40])}, "jhmdb21.npz, clip 0: 'poses' has -4 frames"),
        ({"lengths": np.full(42, 4.0)}, "'lengths' has shape .* dtype float64, not integers"),
        ({"lengths": np.zeros(0, int), "labels": np.zeros(0, int)}, "'lengths' is empty"),
        ({"labels": np.zeros(41, int)}, "'labels' has 41 entries for 42 clips"),
        ({"labels": np.full(42, 21)}, "'labels' is from 21 to 21 for 21 'label_names'"),
        ({"labels": np.zeros(42, int)}, "'labels' has no training clip of class 'catch' in split 1"),
        ({"label_names": np.array(["a"] * 21)}, "'label_names' is not a list of different names"),
        ({"label_names": np.array([*ACTIONS, "fly"])}, "'label_names' has 22 classes, not 21"),
        ({"is_test": np.zeros((42, 3), int)}, "'is_test' has shape .* dtype int64, not bool"),
        ({"is_test": np.zeros((42, 3), bool)}, "'labels' has no test clip of class 'brush_hair'"),
        ({"coarse_labels": np.zeros(21, int)}, "'coarse_labels' and 'coarse_label_names' belong together"),
        (
            {"coarse_labels": np.ones(21, int), "coarse_label_names": np.array(["all"])},
            "'coarse_labels' does not give each of 21 classes one of 1 groups",
        ),
    ],
)
def test_a_spoilt_compact_file_names_its_field(changes, message, tmp_path):
    np.savez(tmp_path / "jhmdb21.npz", **compact(**changes))
    with pytest.raises(ValueError, match=message):
        jhmdb(tmp_path)


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("kind", ["an npz cut short", "a pickle", "a pickle inside", "one array", "text"])
def test_a_broken_or_hostile_npz_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "jhmdb21.npz"
    if kind == "an npz cut short":
        np.savez(path, **compact())
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "a pickle inside":
        np.savez(path, allow_pickle=True, **compact(labels=np.array([Runs()], object)))
    elif kind == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(pickle.dumps(Runs()) if kind == "a pickle" else b"poses")
    with pytest.raises(
        ValueError, match=r"jhmdb21.npz is no npz file of plain arrays \(.*; convert it again"
    ):
        jhmdb(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: jhmdb(root, classes=15), "classes must be 14 or 21, got 15"),
        (lambda root: jhmdb(root, split=4), "split must be 1, 2 or 3, got 4"),
        (lambda root: shrec(root, gestures=12), "gestures must be 14 or 28, got 12"),
        (lambda root: load("jhmdb21", root), "did you mean 'jhmdb21-"),
        (lambda root: shrec(root), "root is .*, which has no shrec17.npz, and no train_gestures.txt and"),
        (
            lambda root: jhmdb(root, classes=14),
            "root is .*, which has no jhmdb14.npz, and no joint_positions",
        ),
        (lambda root: convert(root, "x.npz"), "has no joint_positions"),
        (lambda root: convert(root / "none", "x.npz"), "none is not there"),
        (lambda root: convert(root, "x.txt"), "out is 'x.txt', which is not an .npz"),
    ],
)
def test_wrong_arguments_and_empty_folders(call, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(tmp_path)


# single clips


def test_a_single_clip_in_every_form(jhmdb_layout, shrec_layout, tmp_path, rng):
    clip = rng.normal(size=(5, 15, 2)).astype(np.float32)
    np.save(tmp_path / "clip.npy", clip.astype(np.float64))
    np.savez(tmp_path / "clip.npz", poses=clip)
    np.savez(tmp_path / "one.npz", poses=clip, lengths=[5])
    for name in ("clip.npy", "clip.npz", "one.npz"):
        np.testing.assert_array_equal(read_clip(tmp_path / name), clip)
    assert read_clip(mat(jhmdb_layout)).shape[1:] == (15, 2)
    assert read_clip(shrec_layout / WORLD).shape[1:] == (22, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "none.npy is not there"),
        ("clip.csv", b"1,2", "clip.csv is of no known kind"),
        ("clip.npy", b"1,2", "clip.npy is no array of numbers"),
        ("clip.npz", b"1,2", "clip.npz is no npz file"),
        ("poses.npz", {"clip": np.zeros((5, 2, 2))}, "poses.npz has no 'poses'"),
        ("two.npz", {"poses": np.zeros((8, 2, 2)), "lengths": np.array([4, 4])}, "two.npz has 2 clips"),
    ],
)
def test_a_single_clip_that_cannot_be_read(name, content, message, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.savez(tmp_path / name, **content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_clip(tmp_path / name)


@pytest.mark.parametrize("clip", [np.zeros((5, 4)), np.zeros((5, 0, 2)), np.array([[["a"]]] * 3)])
def test_what_is_no_clip(clip):
    with pytest.raises(
        ValueError, match=r"here: 'field' has shape .* give numbers of shape \(frames, joints"
    ):
        check_clip(clip, "here", "field")


# the real data


def test_real_jhmdb():
    try:
        data = [jhmdb(classes=14, split=k) for k in (1, 2, 3)]
    except FileNotFoundError:
        pytest.skip("LONGTAIL_DATA does not name a folder with the real JHMDB")
    assert [len(d.train) for d in data] == [433, 433, 434]
    assert [len(d.test) for d in data] == [176, 176, 175]
    whole = [jhmdb(split=k) for k in (1, 2, 3)]
    assert [len(d.test) for d in whole] == [268, 270, 265]
    path, _ = skeletons.data_root(None)
    if (path / "jhmdb21.npz").is_file():
        clips = read_compact(path / "jhmdb21.npz")
        ends = np.cumsum(clips.lengths)
        few = [clips.poses[e - n : e] for n, e in zip(clips.lengths[:40], ends[:40], strict=True)]
        np.testing.assert_allclose(prepare(clips.poses, clips.lengths)[:40], plain_loop(few), atol=1e-5)
