"""Tokens and pixels: classes are where the shape of the labels says, and a step divides by its labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from longtail import ClassBalancedLoss, class_weights, evaluate
from longtail.adapters.transformers import TrainerMetrics, trainer_loss

COUNTS = [900, 90, 30, 5]


def by_hand(logits, labels, counts=COUNTS):
    """Equation 12 in NumPy's float64; logits (..., C), labels (...)."""
    z, y = np.asarray(logits, np.float64).reshape(-1, len(counts)), np.asarray(labels).reshape(-1)
    z, y = z[y != -100], y[y != -100]
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    return float((np.asarray(class_weights(counts))[y] * -log_p[np.arange(len(y)), y]).mean())


def draw(rng, *shape):
    logits = torch.from_numpy(rng.normal(size=shape))
    labels = torch.from_numpy(rng.integers(0, 4, shape[:-1]))
    labels[0, :2] = -100
    return logits, labels


# ---- the loss


@pytest.mark.parametrize("length", [1, 3, 4, 7])  # 4 is the number of classes
def test_tokens_are_read_with_their_classes_last(length, rng):
    logits, labels = draw(rng, 5, length, 4)
    compute_loss, wanted = trainer_loss(ClassBalancedLoss(COUNTS)), by_hand(logits, labels)
    valid = int((labels != -100).sum())
    assert float(compute_loss({"logits": logits}, labels)) == pytest.approx(wanted, rel=1e-6)
    step = compute_loss((logits,), labels, num_items_in_batch=torch.tensor(3 * valid))
    assert 3 * float(step) == pytest.approx(wanted, rel=1e-6)
    soft = nn.functional.one_hot(labels.clamp(min=0), 4).double()
    whole = compute_loss(logits, soft, num_items_in_batch=soft.numel())
    assert float(whole) == pytest.approx(by_hand(logits, labels.clamp(min=0)), rel=1e-6)


@pytest.mark.parametrize("sides", [(6, 5), (4, 4), (3, 4)])
def test_pixels_are_read_with_their_classes_second_and_last_where_the_shape_says_so(sides, rng):
    logits, labels = draw(rng, 2, *sides, 4)
    compute_loss, wanted = trainer_loss(ClassBalancedLoss(COUNTS)), by_hand(logits, labels)
    assert float(compute_loss(logits.movedim(-1, 1), labels)) == pytest.approx(wanted, rel=1e-6)
    if sides != (4, 4):
        assert float(compute_loss(logits, labels)) == pytest.approx(wanted, rel=1e-6)


def test_the_plain_criterion_says_where_classes_are_wanted(rng):
    criterion = ClassBalancedLoss(COUNTS)
    for shape in ((2, 5, 4), (2, 5, 6, 4), (2, 4, 5, 4)):
        logits, labels = draw(rng, *shape)
        with pytest.raises(ValueError, match=r"last dimension, give logits\.movedim\(-1, 1\)"):
            criterion(logits, labels)
        assert float(criterion(logits.movedim(-1, 1), labels)) == pytest.approx(by_hand(logits, labels))
    with pytest.raises(ValueError, match=r"classes are in dimension 1; give logits\.movedim\(-1, 1\)"):
        criterion(torch.zeros(2, 5, 4), torch.zeros(2, 5, 4))
    logits, labels = draw(rng, 3, 4, 4)
    with pytest.warns(UserWarning, match=r"read as \(N, C, d1\).*give logits\.movedim\(-1, 1\)"):
        assert float(criterion(logits, labels)) == pytest.approx(by_hand(logits.mT, labels))


def test_void_maps_of_another_size_and_shifted_labels_are_told():
    with pytest.raises(ValueError, match=r"ignore_index=-100; in the labels, labels\.masked_fill"):
        trainer_loss(ClassBalancedLoss(COUNTS, ignore_index=255))
    compute_loss = trainer_loss(ClassBalancedLoss(COUNTS))
    masks = torch.full((1, 8, 8), 255)
    with pytest.raises(ValueError, match=r"got 255 \(64 such\); if it marks pixels of no class, pass"):
        compute_loss(torch.zeros(1, 4, 8, 8), masks)
    with pytest.raises(ValueError, match=r"maps of 2 x 2 and the labels of 8 x 8; upsample .*interpolate"):
        compute_loss(torch.zeros(1, 4, 2, 2), masks)

    class CausalLMOutput(dict):
        pass

    with pytest.raises(ValueError, match=r"shift both .*logits\[:, :-1\], labels\[:, 1:\]"):
        compute_loss(CausalLMOutput(logits=torch.zeros(1, 8, 4)), torch.zeros(1, 8).long())


def test_an_evaluation_has_the_loss_of_the_bare_logits(rng):
    shifted = ClassBalancedLoss(COUNTS, scheme="none", offset=np.log(COUNTS))
    compute_loss = trainer_loss(shifted)
    logits, labels = torch.from_numpy(rng.normal(size=(6, 4))), torch.tensor([0, 1, 2, 3, 0, 0])
    plain = nn.functional.cross_entropy(logits, labels)
    with torch.no_grad():
        torch.testing.assert_close(compute_loss(logits, labels), plain)
    shift = torch.tensor(COUNTS).log()
    wanted = nn.functional.cross_entropy(logits + shift, labels)
    torch.testing.assert_close(compute_loss(logits, labels), wanted, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "focal", "softmax_focal"])
def test_soft_labels_are_at_most_1_but_for_rounding(loss):
    criterion = ClassBalancedLoss(COUNTS, loss=loss)
    for highest in (1.5, 1.01, -0.01):
        labels = torch.eye(4)
        labels[2, 2] = highest
        with pytest.raises(ValueError, match=r"target must be in \[0, 1\]"):
            criterion(torch.zeros(4, 4), labels)
    labels[2, 2] = 1 + 1e-6
    assert torch.isfinite(criterion(torch.zeros(4, 4), labels))


# ---- the Trainer


class Words(nn.Module):
    def __init__(self, maps):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.maps = nn.Linear(6, 4).double(), maps

    def forward(self, x):
        logits = self.layer(x)
        return {"logits": logits.movedim(-1, 1) if self.maps else logits}


class Samples(torch.utils.data.Dataset):
    """Twelve samples of very different numbers of labels that count, so that a mean of means is wrong."""

    def __init__(self, maps):
        generator = torch.Generator().manual_seed(3)
        place = (3, 4) if maps else (4,)  # as many tokens as classes
        self.x = torch.randn(12, *place, 6, generator=generator, dtype=torch.float64)
        self.y = torch.randint(4, (12, *place), generator=generator)
        left_out = torch.linspace(0, 0.9, 12).view(-1, *[1] * len(place))
        self.y[torch.rand(12, *place, generator=generator) < left_out] = -100

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.y[i]}


def whole_gradient(maps):
    data, network = Samples(maps), Words(maps)
    ClassBalancedLoss(COUNTS)(network.layer(data.x).flatten(0, -2), data.y.flatten()).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()]).numpy()


def trainers_step(maps, batch, folder, accumulated=1):
    """What a step of SGD with rate 1 takes from the parameters, and the Trainer."""
    from transformers import Trainer, TrainingArguments

    data, network = Samples(maps), Words(maps)
    before = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    sgd = torch.optim.SGD(network.parameters(), lr=1.0)
    trainer = Trainer(
        network,
        TrainingArguments(
            str(folder),
            max_steps=1,
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=5,
            gradient_accumulation_steps=accumulated,
            train_sampling_strategy="sequential",
            max_grad_norm=0.0,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            label_names=["labels"],
            dataloader_pin_memory=False,
            logging_strategy="no",
            log_level="error",
        ),
        train_dataset=data,
        eval_dataset=data,
        compute_loss_func=trainer_loss(ClassBalancedLoss(COUNTS)),
        compute_metrics=TrainerMetrics(COUNTS),
        optimizers=(sgd, torch.optim.lr_scheduler.ConstantLR(sgd, 1.0)),
    )
    trainer.train()
    return (before - nn.utils.parameters_to_vector(network.parameters()).detach()).numpy(), trainer


@pytest.mark.parametrize("maps", [False, True], ids=["tokens", "pixels"])
def test_a_trainers_three_accumulated_batches_of_4_are_one_of_12(maps, tmp_path):
    """Two processes are in test_finetune.py, whose test starts them anyway."""
    pytest.importorskip("transformers")
    for parts in (1, 3):
        found, trainer = trainers_step(maps, 12 // parts, tmp_path, parts)
        np.testing.assert_allclose(found, whole_gradient(maps), rtol=1e-6, atol=1e-6)
    trainer.evaluate()
    data, layer = trainer.eval_dataset, trainer.model.layer
    known = data.y != -100
    assert trainer.compute_metrics.last == evaluate(layer(data.x)[known], data.y[known], COUNTS)


# ---- metrics


@pytest.mark.parametrize("length", [3, 4])
@pytest.mark.parametrize("tensors", [False, True])
def test_metrics_of_tokens_and_pixels_are_those_of_the_flat_ones(length, tensors, rng):
    logits, labels = draw(rng, 5, length, 4)
    known = labels != -100
    wanted = evaluate(logits[known], labels[known], COUNTS)
    hard = evaluate(logits.argmax(-1)[known], labels[known], COUNTS)

    def result(scores, labels, **options):
        metrics = TrainerMetrics(COUNTS, **options)
        metrics((scores, labels) if tensors else (scores.numpy(), labels.numpy()))
        return metrics.last

    assert result(logits, labels) == wanted
    assert result(logits.argmax(-1), labels) == hard
    maps, masks = logits.reshape(5, length, 1, 4).movedim(-1, 1), labels.reshape(5, length, 1)
    void = masks.masked_fill(masks == -100, 255)
    assert result(maps, masks) == wanted
    assert result(maps, void, ignore_index=255) == wanted
    assert result(maps.argmax(1), masks) == hard
    if length != 4:
        assert result(logits.movedim(-1, 1), labels) == wanted


def test_metrics_tell_how_to_reach_the_size_of_the_labels():
    metrics = TrainerMetrics(COUNTS)
    with pytest.raises(ValueError, match=r"\(1, 4, 2, 2\) and the labels \(1, 8, 8\).*preprocess_logits"):
        metrics((np.zeros((1, 4, 2, 2)), np.zeros((1, 8, 8), int)))
    for unknown in (0.0, -100.0):
        labels = np.eye(4)
        labels[0, 1] = unknown
        with pytest.raises(ValueError, match=r"reads one label a sample, .* compute_metrics=lambda p"):
            metrics((np.zeros((4, 4)), labels))


def test_one_map_of_logits_is_evaluated():
    rng = np.random.default_rng(5)
    scores, labels = rng.normal(size=(3, 1, 4, 5)), rng.integers(0, 2, (3, 4, 5))
    labels[0, 0] = 255
    known = labels != 255
    for kind in (np.asarray, torch.as_tensor):
        found = TrainerMetrics([90, 10], ignore_index=255)((kind(scores), kind(labels)))
        assert found["error"] == pytest.approx(np.mean((scores[:, 0] > 0)[known] != labels[known]))


def test_logits_that_were_moved_are_not_asked_to_be_moved(recwarn):
    criterion, logits = ClassBalancedLoss([90, 9, 1]), torch.randn(4, 3, 3)
    labels = torch.randint(3, (4, 3))
    soft = torch.nn.functional.one_hot(labels, 3).float()
    criterion(logits.movedim(-1, 1), labels)
    criterion(logits.movedim(-1, 1), soft.movedim(-1, 1))
    assert not recwarn.list
    for target in (labels, soft):
        with pytest.warns(UserWarning, match=r"read as \(N, C, d1\).*give logits\.movedim\(-1, 1\)"):
            criterion(logits, target)
