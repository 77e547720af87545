"""DD-Net: features against SciPy and their definition, its published size, a run on made-up clips."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from longtail import models, recipes
from longtail.datasets import Dataset, Split
from longtail.evaluation import evaluate
from longtail.models import DDNet, joint_collection_distances, two_scale_motion
from longtail.report.figures import draw_confusion
from longtail.skeletons import ddnet
from longtail.skeletons.augment import change_view, keep_frames, play
from longtail.skeletons.figures import draw_skeleton
from longtail.training import load_run, train
from longtail.training.data import TrainingData, generator

CPU = torch.device("cpu")


def clips(rng, n=4, frames=32, joints=15, dimensions=2):
    return torch.from_numpy(rng.normal(size=(n, frames, joints, dimensions)).astype(np.float32))


# distances


@given(st.integers(2, 8), st.integers(1, 4), st.integers(0, 99))
def test_distances_are_scipys(joints, dimensions, seed):
    x = clips(np.random.default_rng(seed), 2, 3, joints, dimensions)
    found = joint_collection_distances(x)
    assert found.shape == (2, 3, joints * (joints - 1) // 2)
    for clip, frame in np.ndindex(2, 3):
        np.testing.assert_allclose(found[clip, frame], pdist(x[clip, frame].numpy()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_distances_ignore_where_a_skeleton_stands_and_how_it_is_turned(rng, dimensions):
    x = clips(rng, dimensions=dimensions).double()
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0])
    way = torch.from_numpy(rng.normal(size=(4, 32, 1, dimensions))).cumsum(1)  # global motion
    torch.testing.assert_close(joint_collection_distances(x @ turn + way), joint_collection_distances(x))
    still = joint_collection_distances(x[:, :1] + way)
    torch.testing.assert_close(still, still[:, :1].expand_as(still))


def test_coinciding_joints_have_finite_gradients():
    x = torch.zeros(1, 2, 3, 2)
    x[0, 1, 0, 0] = 3.0
    x.requires_grad_()
    joint_collection_distances(x).sum().backward()
    assert torch.equal(x.grad[0, 0], torch.zeros(3, 2))  # all three joints in one place
    assert torch.equal(x.grad[0, 1], torch.tensor([[2.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]))


# motion


def motion_by_definition(x, step):
    """Differences of every `step`-th frame, stretched with the first and last in their places."""
    n, frames = x.shape[:2]
    taken = [x[:, k].reshape(n, -1) for k in range(0, frames, step)]
    moved = [b - a for a, b in itertools.pairwise(taken)]
    out = []
    for k in range(len(taken)):
        place = k * (len(moved) - 1) / (len(taken) - 1)
        i = min(math.floor(place), max(len(moved) - 2, 0))
        j = min(i + 1, len(moved) - 1)
        out.append(moved[i] + (place - i) * (moved[j] - moved[i]))
    return np.stack(out, 1)


@given(st.integers(3, 40), st.integers(1, 3), st.integers(0, 99))
def test_motions_are_their_definition(frames, dimensions, seed):
    x = clips(np.random.default_rng(seed), 2, frames, 3, dimensions).double()
    slow, fast = two_scale_motion(x)
    assert slow.shape == (2, frames, 3 * dimensions)
    assert fast.shape == (2, (frames + 1) // 2, 3 * dimensions)
    np.testing.assert_allclose(slow, motion_by_definition(x.numpy(), 1), atol=1e-12)
    np.testing.assert_allclose(fast, motion_by_definition(x.numpy(), 2), atol=1e-12)


def test_motion_of_a_still_clip_is_zero_and_does_not_depend_on_the_place(rng):
    x = clips(rng).double()
    assert all(not m.any() for m in two_scale_motion(x[:, :1].expand_as(x)))
    for here, there in zip(two_scale_motion(x), two_scale_motion(x + 5.0), strict=True):
        torch.testing.assert_close(here, there)


# the network


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_network_has_its_published_size():
    assert parameters(DDNet(22, 3, 14)) == 1_819_278
    assert parameters(DDNet(15, 2, 21)) == 1_794_837
    assert [round(parameters(DDNet(22, 3, 14, f)) / 1e6, 2) for f in (16, 32)] == [0.15, 0.50]


def test_batch_norm_is_over_channels(rng):
    model = DDNet(5, 2, 3, filters=4)
    sizes = [m.num_features for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert sizes == [8, 4, 4] * 3 + [8, 8, 16, 16, 32, 32, 128, 128]
    model.eval()
    x = clips(rng, 3, 20, 5, 2)
    torch.testing.assert_close(model(x)[1:], model(x[1:]))  # in evaluation no clip sees another


@pytest.mark.parametrize(("frames", "joints", "dimensions"), [(3, 2, 1), (7, 5, 2), (32, 22, 3), (45, 15, 2)])
def test_any_joints_dimensions_and_length(rng, frames, joints, dimensions):
    model = DDNet(joints, dimensions, 6, filters=4)
    x = clips(rng, 4, frames, joints, dimensions)
    loss = model(x).square().mean()
    loss.backward()
    assert model(x).shape == (4, 6)
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())


def test_a_layer_is_torchs_convolution_norm_and_activation(rng):
    layer = ddnet._Layer(6, 4, 3)
    x = torch.from_numpy(rng.normal(size=(5, 9, 6)).astype(np.float32))
    kernel = layer.weight.detach().view(4, 3, 6).transpose(1, 2)
    y = torch.nn.functional.conv1d(x.transpose(1, 2), kernel, padding=1)
    y = torch.nn.functional.batch_norm(y, None, None, training=True)
    y = torch.nn.functional.leaky_relu(y, 0.2).transpose(1, 2)
    torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_clip_can_be_trained_on(rng):
    model = DDNet(5, 2, 3, filters=4)
    model(clips(rng, 1, 8, 5, 2)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_dropout_takes_whole_channels():
    dropped = ddnet._DropChannels(0.5)(torch.ones(8, 10, 50))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert len(dropped[:, 0].unique(dim=0)) == 8


# temporal augmentation


@given(st.integers(3, 60), st.integers(0, 999))
def test_nine_tenths_of_the_frames_or_more_are_kept_in_order(length, seed):
    frames, kept = keep_frames(20, length, torch.Generator().manual_seed(seed))
    assert frames.shape == (20, length)
    assert kept.min() >= 0.9 * length
    assert kept.max() <= length
    for row, n in zip(frames, kept, strict=True):
        assert (row[: n - 1] < row[1:n]).all()
        assert row[0] >= 0
        assert row[n - 1] < length


def test_both_ways_of_keeping_frames_occur():
    frames, kept = keep_frames(2000, 32, torch.Generator().manual_seed(0))
    whole = kept == 32
    inside = torch.stack([row[n - 1] - row[0] + 1 == n for row, n in zip(frames, kept, strict=True)])
    assert set(kept.tolist()) == {29, 30, 31, 32}
    assert 0.4 < inside[~whole].double().mean() < 0.7  # gaps only at the ends look like a row
    assert (frames[:, 0] > 0).any()


def test_a_clip_is_played_over_its_whole_length(rng):
    x = clips(rng, 3, 10, 4, 3)
    all_frames = torch.arange(10).expand(3, 10)
    torch.testing.assert_close(play(x, all_frames, torch.full((3,), 10)), x)
    frames = torch.tensor([[0, 1, 3, 4, 6, 7, 8, 9, 9, 9]] * 3)
    by_numpy = np.stack(
        [np.interp(np.linspace(0, 7, 10), np.arange(8), c) for c in x[1, frames[1, :8]].flatten(1).T.numpy()]
    )
    found = play(x, frames, torch.tensor([10, 8, 2]))
    np.testing.assert_allclose(found[1].flatten(1).T, by_numpy, atol=1e-6)
    torch.testing.assert_close(
        found[2], torch.lerp(x[2, 0], x[2, 1], torch.linspace(0, 1, 10)[:, None, None])
    )


# another view, another body


@given(st.integers(1, 4), st.integers(0, 999))
def test_another_view_turns_mirrors_and_stretches_within_bounds(dimensions, seed):
    maps, moves = change_view(50, 6, dimensions, torch.Generator().manual_seed(seed))
    assert maps.shape == (50, dimensions, dimensions)
    assert moves.shape == (50, 6, dimensions)
    stretch = torch.linalg.norm(maps, dim=1)  # of each new coordinate: turning and mirroring keep lengths
    assert 0.8 <= stretch.min() <= stretch.max() <= 1.2
    turned = maps / stretch[:, None]
    torch.testing.assert_close(turned @ turned.mT, torch.eye(dimensions).expand_as(turned))
    mirrored = torch.linalg.det(turned)
    torch.testing.assert_close(mirrored.abs(), torch.ones(50))
    assert 10 < (mirrored < 0).sum() < 40
    if dimensions > 1:
        assert turned[:, 1, 1].min() >= math.cos(math.radians(15)) - 1e-6
        assert turned[:, 1, 0].std() > 0.1
    assert 0.04 < moves.std() < 0.06


def test_the_skeleton_augmentation_is_a_map_and_a_move_of_played_clips(waves):
    varied, straight = (
        torch.cat([x for x, _ in TrainingData(recipe(augmentation=name), waves, CPU).batches(1)])
        for name in ("skeleton", "temporal")
    )
    for one, other in zip(varied, straight, strict=True):
        # motion forgets the move and keeps the map: one map explains every joint and frame
        before, after = (x.diff(dim=0).flatten(0, 1) for x in (other, one))
        found = torch.linalg.lstsq(before, after).solution
        torch.testing.assert_close(before @ found, after, rtol=1e-3, atol=1e-4)
        moved = one - other @ found
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=1e-3, atol=1e-4)
        assert moved.abs().max() < 0.5 * waves.train.inputs.std()


# in the loop


@pytest.fixture(scope="module")
def waves():
    """Three classes of clips whose joints swing at their own speed; 12 training and 8 test clips each."""
    rng = np.random.default_rng(5)

    def split(each):
        targets = np.repeat(np.arange(3), each)
        time = np.linspace(0, 6, 16)[None, :, None, None] * (1 + targets[:, None, None, None])
        phase = rng.uniform(0, 6, (len(targets), 1, 5, 2))
        return Split(np.sin(time + phase).astype(np.float32), targets)

    return Dataset("waves", split(12), split(8), ("slow", "middle", "fast"), kind="skeletons")


def recipe(**changes):
    short = {"epochs": 20, "batch_size": 12, "learning_rate": 5e-3, "augmentation": "temporal"}
    return recipes.ddnet("waves", 16).replace(**(short | changes))


def test_a_run_learns_resumes_exactly_and_is_read_back(waves, tmp_path):
    result = train(recipe(), tmp_path / "run", dataset=waves, checkpoint_every=8)
    assert result.evaluation.error < 0.3  # by chance 0.67
    for name in ("evaluation.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()  # as if killed on the way, after epoch 16
    again = train(recipe(), tmp_path / "run", dataset=waves)
    for one, other in zip(result.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    model = load_run(tmp_path / "run").model
    assert isinstance(model, DDNet)
    logits = model(torch.from_numpy(waves.test.inputs))
    assert (logits.argmax(1).numpy() != waves.test.targets).mean() == result.evaluation.error


@pytest.mark.parametrize("loss", ["softmax", "focal"])
def test_the_tail_and_the_losses_apply_to_skeletons(waves, loss):
    result = train(
        recipe(epochs=2, imbalance_factor=4.0, loss=loss, scheme="effective", beta=0.9), dataset=waves
    )
    assert result.evaluation.class_counts == (12, 6, 3)
    bias = result.model.head.bias.mean()
    assert (bias < -0.5) == (loss == "focal")  # focal starts at the prior of one in three


def test_batches_are_a_function_of_seed_and_epoch(waves):
    data = TrainingData(recipe(), waves, CPU)
    first, again, other = (torch.cat([x for x, _ in data.batches(epoch)]) for epoch in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    plain = TrainingData(recipe(augmentation="none"), waves, CPU)
    (x, y), *_ = plain.batches(3)
    order = torch.randperm(36, generator=generator(0, 3, "order"))[:12]
    assert torch.equal(x, torch.from_numpy(waves.train.inputs)[order])
    assert torch.equal(y, torch.from_numpy(waves.train.targets)[order])
    assert torch.equal(torch.cat(list(data.test_batches())), torch.from_numpy(waves.test.inputs))


# bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: joint_collection_distances(torch.ones(4, 1, 2)), r"2 joints or more, got \(4, 1, 2\)"),
        (lambda: two_scale_motion(torch.ones(4, 2, 3, 2)), r"3 frames or more, got \(4, 2, 3, 2\)"),
        (lambda: two_scale_motion(torch.ones(4, 3, 2)), r"clips must have shape \(batch, frames"),
        (lambda: DDNet(1, 2, 3), r"joints must be in \[2, inf\], got 1"),
        (lambda: DDNet(2, 0, 3), r"dimensions must be in \[1, inf\], got 0"),
        (lambda: DDNet(2, 2, 0), r"num_classes must be in \[1, inf\], got 0"),
        (lambda: DDNet(2, 2, 2, filters=0), r"filters must be in \[1, inf\], got 0"),
        (
            lambda: DDNet(5, 2, 3, 4)(torch.ones(1, 8, 4, 2)),
            r"input must have shape \(N, T, 5, 2\), got \(1, 8, 4, 2\)",
        ),
        (
            lambda: models.build("ddnet16", in_channels=2, num_classes=3),
            "model 'ddnet16' is not for images; choose one of small_cnn",
        ),
        (
            lambda: models.build("resnet32", in_channels=2, num_classes=3, joints=5),
            "model 'resnet32' is not for skeletons; choose one of ddnet16, ddnet32, ddnet64",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_networks_and_augmentations_belong_to_a_kind_of_data(waves):
    with pytest.raises(ValueError, match=r"augmentation='shift' needs images, got skeletons of shape"):
        train(recipe(augmentation="shift"), dataset=waves)
    with pytest.raises(ValueError, match=r"augmentation='temporal' needs skeletons, got images"):
        train(recipe(dataset="digits"))
    with pytest.raises(ValueError, match="model 'small_cnn' is not for skeletons"):
        train(recipe(model="small_cnn"), dataset=waves)
    flat = Split(np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"kind='skeletons' needs inputs of shape \(N, T, J, D\)"):
        Dataset("flat", flat, flat, ("a", "b"), kind="skeletons")
    with pytest.raises(ValueError, match="kind must be one of"):
        Dataset("waves", waves.train, waves.test, waves.class_names, kind="skeleton")


# figures


def test_figures_are_drawn(waves, tmp_path):
    evaluation = evaluate(waves.test.targets, waves.test.targets, [12, 12, 12])
    files = [
        draw_confusion([evaluation, evaluation], waves.class_names, tmp_path / "confusion.png"),
        draw_skeleton(waves.test.inputs[0], tmp_path / "clip.svg", bones=[(0, 1), (1, 2)], title="slow"),
    ]
    assert all(file.stat().st_size > 5000 for file in files)
    with pytest.raises(ValueError, match="class_names must be 3 names, got 2"):
        draw_confusion([evaluation], ["a", "b"], tmp_path / "x.png")
    with pytest.raises(ValueError, match="one or more with a confusion matrix"):
        draw_confusion([], ["a", "b"], tmp_path / "x.png")
    with pytest.raises(
        ValueError, match=r"clip must have shape \(T, J, D\) with T at least 5, got \(4, 5, 2\)"
    ):
        draw_skeleton(waves.test.inputs[0, :4], tmp_path / "x.png")
