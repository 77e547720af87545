"""Prediction from a run's folder: it sees what training saw, says what the run's own evaluation says."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import longtail
from folders import unseal
from longtail import cli, datasets, models
from longtail.datasets import Dataset, Split
from longtail.datasets.images import in_memory, load_images
from longtail.predict import Classifier, StreamClassifier
from longtail.skeletons.clips import prepare
from longtail.skeletons.single_clip import SingleClip
from longtail.training import Recipe, load_run, recipes, train

CLASSES = ("wave", "jump", "sit", "stand [still]")


def raw_clips(count, seed):
    """Clips of 3 to 60 frames; each class drifts its own way, so that something can be learned."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    clips = []
    for label in labels:
        steps = np.linspace(0, 1, draw.integers(3, 60))[:, None, None]
        drift = np.array([[np.cos(label), np.sin(label)]]) * 3
        clips.append((draw.normal(size=(1, 6, 2)) + steps * drift).astype(np.float32))
    return clips, labels


@pytest.fixture(scope="module")
def skeleton_run(tmp_path_factory):
    """A run on skeletons, and the raw clips of its test split."""
    splits = []
    for count, seed in ((64, 1), (24, 2)):
        clips, labels = raw_clips(count, seed)
        prepared = prepare(np.concatenate(clips), [len(clip) for clip in clips], frames=16)
        splits.append(Split(prepared, labels))
    data = Dataset("clips", *splits, class_names=CLASSES, kind="skeletons")
    recipe = Recipe(
        dataset="clips",
        model="ddnet16",
        scheme="none",
        optimizer="adam",
        learning_rate=1e-2,
        epochs=8,
        batch_size=32,
    )
    folder = tmp_path_factory.mktemp("runs") / "clips"
    train(recipe, folder, dataset=data, threads=1)
    return SimpleNamespace(folder=folder, data=data, clips=clips)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    recipe = Recipe(
        **{"dataset": "digits", "model": "small_cnn", "loss": "focal", "epochs": 2, "input_scale": 8.0}
    )
    train(recipe, folder, threads=1)
    return folder


def own_logits(folder, inputs):
    with torch.inference_mode():
        return load_run(folder).model(torch.from_numpy(inputs)).double()


# no skew between training and prediction


def test_a_raw_test_clip_gets_the_runs_own_answer(skeleton_run):
    classify = Classifier(skeleton_run.folder)
    logits = own_logits(skeleton_run.folder, skeleton_run.data.test.inputs)
    found = [classify(clip) for clip in skeleton_run.clips]
    for prediction, own in zip(found, logits.softmax(1).numpy(), strict=True):
        np.testing.assert_allclose(prediction.probabilities, own, atol=1e-5)
    wrong = [p.best != CLASSES[t] for p, t in zip(found, skeleton_run.data.test.targets, strict=True)]
    assert np.mean(wrong) == load_run(skeleton_run.folder).evaluation.error < 0.5


def test_an_image_gets_the_runs_own_answer(image_run):
    test = datasets.load("digits").test.inputs[:20]
    classify = Classifier(image_run)
    own = own_logits(image_run, test.astype(np.float32) / 8 - 1).sigmoid().numpy()
    for image, expected in zip(test, own, strict=True):
        np.testing.assert_allclose(classify(image).probabilities, expected, atol=1e-6)


@pytest.fixture(scope="module")
def pictures_run(tmp_path_factory):
    """A run of small pictures, as `longtail compare FOLDER` makes it, with the folder of its pictures."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, n in (("cat", 20), ("lynx", 10)):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (40, 50 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i:02}.png")
    data = in_memory(*load_images(root / "photos"), 32, name="photos")
    train(recipes.small_images("photos").with_epochs(2), root / "run", dataset=data, threads=1)
    return SimpleNamespace(folder=root / "run", data=data, photos=root / "photos")


def test_a_picture_gets_the_answer_of_the_runs_own_arrays(pictures_run, tmp_path, monkeypatch, capsys):
    classify = Classifier(pictures_run.folder)
    held = load_images(pictures_run.photos)[1]
    for i, pixels in enumerate(pictures_run.data.test.inputs):
        path = Path(held.name(i))
        np.testing.assert_array_equal(classify(path).probabilities, classify(pixels).probabilities)
    logits = classify.many_logits(pictures_run.photos)
    files = sorted(pictures_run.photos.rglob("*.png"))
    np.testing.assert_array_equal(logits[-1], classify.logits(files[-1]))
    assert len(logits) == len(files) == 30
    code, out, _ = run_cli(monkeypatch, capsys, "predict", pictures_run.folder, files[0])
    assert code == 0
    assert "lynx" in out
    (tmp_path / "bad.png").write_bytes(files[0].read_bytes()[:300])
    for name, message in (
        ("bad.png", "bad.png' is no image that can be read"),
        ("no.png", "no.png is not there"),
    ):
        code, _, err = run_cli(monkeypatch, capsys, "predict", pictures_run.folder, tmp_path / name)
        assert code == 2
        assert message in " ".join(err.split())


def test_a_row_of_features_may_be_of_any_numbers_but_nan(tmp_path, rng):
    x, y = rng.normal(size=(60, 4)), np.repeat([0, 1], 30)
    problem = longtail.Problem.from_features(x.astype(np.float32), y, test=(x.astype(np.float32), y))
    made = longtail.compare(problem, ["plain"], seeds=1, out=tmp_path, jobs=1, device="cpu")
    classify = Classifier(made.rows[0].outcomes[0].folder)
    same = classify(x[0].astype(np.float32)).probabilities
    np.testing.assert_array_equal(classify(x[0]).probabilities, same)
    assert classify(np.array([1, 2, 3, 4])).probabilities.sum() == pytest.approx(1)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="sample holds NaN or infinity"):
            classify(np.array([bad, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("filters", "shape"),
    [(16, (32, 15, 2)), (32, (32, 22, 3)), (16, (3, 2, 1)), (16, (5, 5, 3)), (16, (29, 4, 2))],
)
def test_a_single_clip_gets_the_networks_logits(filters, shape, rng):
    model = models.build(f"ddnet{filters}", joints=shape[1], in_channels=shape[2], num_classes=4)
    clips = rng.normal(size=(32, *shape)).astype(np.float32)
    model(torch.from_numpy(clips * 2 + 1))  # moves the averages of batch norm away from where they start
    quick = SingleClip(model)
    with torch.inference_mode():
        own = model.eval()(torch.from_numpy(clips)).numpy()
    np.testing.assert_allclose([quick(clip) for clip in clips], own, atol=1e-5, rtol=1e-5)
    assert own.std() > 0.01


# a stream of frames


def test_a_stream_is_its_last_frames_as_a_clip(skeleton_run, rng):
    classify, stream = Classifier(skeleton_run.folder), StreamClassifier(skeleton_run.folder, window=9)
    frames = rng.normal(size=(14, 6, 2)).astype(np.float32)
    answers = [stream.push(frame) for frame in frames]
    assert answers[:8] == [None] * 8
    for end, answer in enumerate(answers[8:], start=9):
        np.testing.assert_array_equal(answer.probabilities, classify(frames[end - 9 : end]).probabilities)
    assert stream.class_names == CLASSES
    stream.clear()
    assert stream.push(frames[0]) is None


def test_a_stream_looks_back_as_far_as_the_network_was_trained_to(skeleton_run, rng):
    stream = StreamClassifier(skeleton_run.folder)
    answers = [stream.push(frame) for frame in rng.normal(size=(17, 6, 2))]
    assert [answer is None for answer in answers] == [True] * 15 + [False] * 2


def test_a_frame_that_is_refused_or_changed_later_does_no_harm(skeleton_run):
    stream, twin = (StreamClassifier(skeleton_run.folder, window=3) for _ in range(2))
    frame = np.zeros((6, 2))
    for value in (0, 1, 2):
        frame[:] = value
        frame[0, 0] = value**2
        answer, other = stream.push(frame), twin.push(frame.copy())
        with pytest.raises(ValueError, match=r"frame has shape \(6, 2\) or holds NaN"):
            stream.push(np.full((6, 2), np.nan))
        with pytest.raises(ValueError, match=r"frame has shape \(5, 2\) .* of shape \(6, 2\)"):
            stream.push(frame[:5])
    np.testing.assert_array_equal(answer.probabilities, other.probabilities)


def test_a_window_too_short_and_a_run_on_images(skeleton_run, image_run):
    with pytest.raises(ValueError, match=r"window must be in \[3, inf"):
        StreamClassifier(skeleton_run.folder, window=2)
    with pytest.raises(ValueError, match="was trained on images; a stream needs skeletons"):
        StreamClassifier(image_run)


# what is refused


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((9, 5, 2)), r"'poses' has joints and coordinates \(5, 2\), but .* skeletons of \(6, 2\)"),
        (np.zeros((9, 6, 3)), r"'poses' has joints and coordinates \(6, 3\)"),
        (np.zeros((2, 6, 2)), "'poses' has 2 frames, and the motion over two frames needs 3"),
        (np.full((9, 6, 2), np.nan), "'poses' is not finite at frame 0, joint 0"),
        (np.zeros((9, 12)), r"'poses' has shape \(9, 12\)"),
    ],
)
def test_a_wrong_clip(clip, message, skeleton_run):
    with pytest.raises(ValueError, match="sample: " + message):
        Classifier(skeleton_run.folder)(clip)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((8, 8), np.uint8),
            r"sample has shape \(8, 8\), but the run was trained on images of \(1, 8,",
        ),
        (np.zeros((1, 8, 8)), "sample has dtype float64, but the run was trained on images of uint8"),
    ],
)
def test_a_wrong_image(image, message, image_run):
    with pytest.raises(ValueError, match=message):
        Classifier(image_run)(image)


def test_a_run_that_does_not_name_its_classes(skeleton_run, tmp_path):
    folder = shutil.copytree(skeleton_run.folder, tmp_path / "old")
    unseal(folder, without=("class_names",))
    with pytest.raises(ValueError, match=r"environment.json has no 'class_names' .*; train it again"):
        Classifier(folder)
    with pytest.raises(ValueError, match="holds no finished run"):
        Classifier(tmp_path)


# the command


def run_cli(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["longtail", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0, *capsys.readouterr()


def test_the_command_prints_the_most_probable_classes(skeleton_run, tmp_path, monkeypatch, capsys):
    path, clip = tmp_path / "clip.npy", skeleton_run.clips[0]
    np.save(path, clip)
    expected = Classifier(skeleton_run.folder)(path).top(3)
    assert expected == Classifier(skeleton_run.folder)(clip).top(3)
    assert [p for _, p in expected] == sorted((p for _, p in expected), reverse=True)

    call = ("predict", skeleton_run.folder, path, "--top", "3")
    code, out, _ = run_cli(monkeypatch, capsys, *call)
    assert code == 0
    assert out.index(expected[0][0]) < out.index(f"{100 * expected[0][1]:.1f} %") < out.index(expected[1][0])
    _, out, _ = run_cli(monkeypatch, capsys, *call, "--format", "json")
    assert json.loads(out) == [{"class": name, "probability": p} for name, p in expected]
    _, out, _ = run_cli(monkeypatch, capsys, *call, "--format", "csv")
    assert list(csv.reader(io.StringIO(out))) == [
        ["class", "probability"],
        *([n, str(p)] for n, p in expected),
    ]
    _, out, _ = run_cli(monkeypatch, capsys, "predict", skeleton_run.folder, path)
    assert all(name in out for name in CLASSES)  # fewer than five, and markup in a name is not eaten


def test_the_command_takes_the_official_files(tmp_path, monkeypatch, capsys):
    clips, labels = raw_clips(8, 3)
    hand = [np.tile(clip[:, :1, :1], (1, 22, 3)) for clip in clips]
    split = Split(prepare(np.concatenate(hand), [len(clip) for clip in hand]), labels)
    data = Dataset("hands", split, split, class_names=CLASSES, kind="skeletons")
    recipe = Recipe(dataset="hands", model="ddnet16", scheme="none", epochs=1)
    train(recipe, tmp_path / "run", dataset=data, threads=1)
    np.savetxt(tmp_path / "skeletons_world.txt", hand[0].reshape(len(hand[0]), -1))
    code, out, _ = run_cli(monkeypatch, capsys, "predict", tmp_path / "run", tmp_path / "skeletons_world.txt")
    assert code == 0
    assert "%" in out


def test_the_command_fails_in_one_line(skeleton_run, image_run, tmp_path, monkeypatch, capsys):
    code, _, err = run_cli(monkeypatch, capsys, "predict", skeleton_run.folder, tmp_path / "none.npy")
    assert code == 2
    assert "none.npy is not there" in " ".join(err.split())
    (tmp_path / "image.png").write_bytes(b"png")
    code, _, err = run_cli(monkeypatch, capsys, "predict", image_run, tmp_path / "image.png")
    assert code == 2
    assert "is no array of numbers" in " ".join(err.split())
