"""Sampling: the share of each class, one global order for all processes, exact resumption.

accelerate's dispatching loader needs real processes: test_finetune.py has it.
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from longtail import effective_number
from longtail.sampling import ClassAwareSampler

COUNTS = np.array([60, 25, 10, 1])
LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(4), COUNTS))  # 96 samples
SCHEMES = ("none", "inverse", "inverse_sqrt", "effective")


def drawn(order, labels=LABELS):
    return np.bincount(np.asarray(labels)[order], minlength=len(np.unique(labels)))


@pytest.mark.parametrize(
    ("scheme", "share"),
    [
        ("none", COUNTS),
        ("inverse", np.ones(4)),
        ("inverse_sqrt", np.sqrt(COUNTS)),
        ("effective", COUNTS / effective_number(COUNTS, 0.9)),
    ],
)
def test_classes_are_drawn_as_the_table_says(scheme, share):
    sampler = ClassAwareSampler(LABELS, scheme, beta=0.9, num_samples=1000)
    expected = 1000 * share / share.sum()
    np.testing.assert_allclose(1000 * sampler.class_shares, expected, rtol=1e-12)
    epochs = np.array([drawn(sampler.order(e)) for e in range(40)])
    assert (epochs.sum(1) == 1000).all()
    assert (abs(epochs - expected) < 1).all()  # to the last draw, in every epoch
    assert (abs(epochs.mean(0) - expected) < 0.3).all()  # fractions are rounded both ways
    loose = ClassAwareSampler(LABELS, scheme, beta=0.9, num_samples=20_000, replacement=True)
    deviation = np.sqrt(20_000 * loose.class_shares)
    assert (abs(drawn(loose.order(0)) - 20_000 * loose.class_shares) < 4 * deviation).all()


def test_between_no_balance_and_full_balance():
    for beta, scheme in ((0.0, "none"), (1.0, "inverse")):
        np.testing.assert_allclose(
            ClassAwareSampler(LABELS, "effective", beta=beta).class_shares,
            ClassAwareSampler(LABELS, scheme).class_shares,
            rtol=1e-12,
        )


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    scheme=st.sampled_from(SCHEMES),
    num_samples=st.one_of(st.none(), st.integers(1, 200)),
    seed=st.integers(0, 2**70),
)
def test_no_sample_comes_twice_before_all_of_its_class_came_once(counts, scheme, num_samples, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    sampler = ClassAwareSampler(labels, scheme, num_samples=num_samples, seed=seed)
    order = sampler.order(5)
    assert len(order) == len(sampler) == (num_samples or len(labels))
    times = np.bincount(order, minlength=len(labels))
    for c in np.unique(labels):
        assert np.ptp(times[labels == c]) <= 1
    if scheme == "none" and num_samples is None:
        assert (times == 1).all()


def test_with_replacement_samples_repeat():
    order = ClassAwareSampler(LABELS, "none", replacement=True).order(0)
    assert len(np.unique(order)) < len(order)


def test_the_order_is_a_function_of_seed_and_epoch():
    sampler = ClassAwareSampler(LABELS, seed=1)
    first = list(sampler)
    assert list(sampler) == first  # nobody moved the epoch
    sampler.set_epoch(3)
    third = list(sampler)
    assert sorted(third) != third != first
    assert list(ClassAwareSampler(LABELS.tolist(), seed=1).order(3)) == third  # any kind of labels
    assert list(ClassAwareSampler([f"class {y}" for y in LABELS], seed=1).order(3)) == third
    assert list(ClassAwareSampler(LABELS, seed=2).order(3)) != third


def test_the_order_never_changes():
    # computed once; a change breaks the exact resumption of everybody's runs
    assert ClassAwareSampler([0, 0, 0, 0, 1, 1], "inverse", seed=7).order(2).tolist() == GOLDEN[0]
    assert ClassAwareSampler(range(6), "none", seed=7).order(2).tolist() == GOLDEN[1]
    loose = ClassAwareSampler([0, 0, 0, 0, 1, 1], "inverse", replacement=True, seed=7)
    assert loose.order(2).tolist() == GOLDEN[2]


GOLDEN = ([3, 0, 4, 5, 1, 4], [4, 0, 5, 1, 3, 2], [0, 1, 4, 5, 0, 0])


def test_more_samples_than_multinomial_takes():
    size = 2**24 + 50
    with pytest.raises(RuntimeError, match=r"2\^24|categories"):
        torch.multinomial(torch.ones(size), 1)
    labels = np.zeros(size, dtype=np.uint8)
    labels[-40:] = 1  # the tail lies beyond 2^24
    order = ClassAwareSampler(labels, "inverse", num_samples=100, replacement=True).order(0)
    assert (order[labels[order] == 1] > 2**24).all()
    assert 30 <= labels[order].sum() <= 70
    dealt = ClassAwareSampler(np.arange(size) // 512, "inverse", num_samples=100).order(0)
    assert len(np.unique(dealt // 512)) == 100  # of 32,769 classes of the same size
    assert dealt.max() > 0.9 * size


# ---- resumption


@pytest.mark.parametrize("consumed", [0, 1, 37, 95, 96])
def test_a_killed_epoch_goes_on_at_the_next_index(consumed):
    whole = ClassAwareSampler(LABELS, "inverse", seed=4)
    killed = ClassAwareSampler(LABELS, "inverse", seed=4)
    killed.set_epoch(2)
    iterator = iter(killed)
    seen = [next(iterator) for _ in range(consumed)]
    state = json.loads(json.dumps(killed.state_dict()))
    resumed = ClassAwareSampler(LABELS, "inverse", seed=4)
    resumed.load_state_dict(state)
    if consumed < 96:
        resumed.set_epoch(2)  # as every loop does at the start of an epoch
        assert len(resumed) == 96 - consumed
        assert seen + list(resumed) == whole.order(2).tolist()
        resumed.set_epoch(3)
    assert resumed.epoch == 3
    assert list(resumed) == whole.order(3).tolist()


def test_a_loader_that_reads_ahead_says_what_was_consumed():
    sampler = ClassAwareSampler(LABELS, seed=4)
    iterator = iter(DataLoader(torch.arange(96), batch_size=8, sampler=sampler))
    seen = [next(iterator) for _ in range(3)]
    assert sampler.state_dict(24) == {"seed": 4, "epoch": 0, "position": 24, "num_samples": 96}
    resumed = ClassAwareSampler(LABELS, seed=4)
    resumed.load_state_dict(sampler.state_dict(24))
    rest = list(DataLoader(torch.arange(96), batch_size=8, sampler=resumed))
    assert torch.cat(seen + rest).tolist() == sampler.order(0).tolist()


# ---- wrappers that cut the order: together, all processes see every index of it once


class Rows(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        return index


def seen_by(loaders):
    return sorted(i for loader in loaders for batch in loader for i in batch.tolist())


@pytest.mark.parametrize("scheme", ["none", "inverse"])
def test_accelerates_shards_are_the_order(scheme):
    data_loader = pytest.importorskip("accelerate.data_loader")
    for split in (False, True):
        loaders = []
        for rank in range(2):
            loader = DataLoader(Rows(), batch_size=8, sampler=ClassAwareSampler(LABELS, scheme, seed=5))
            loaders.append(
                data_loader.prepare_data_loader(
                    loader, num_processes=2, process_index=rank, split_batches=split, put_on_device=False
                )
            )
        for epoch in range(2):
            for loader in loaders:
                loader.set_epoch(epoch)  # reaches the sampler through accelerate's wrappers
            order = ClassAwareSampler(LABELS, scheme, seed=5).order(epoch)
            assert seen_by(loaders) == sorted(order.tolist())
        for loader in loaders:
            loader.set_epoch(1)
        first = [next(iter(loader)).tolist() for loader in loaders]
        assert first[0] + first[1] == order[: len(first[0]) * 2].tolist()  # a step is a slice of the order


def test_lightnings_wrapper_sees_every_index():
    world = 3
    distributed = pytest.importorskip("lightning.fabric.utilities.distributed")
    wrapped = [
        distributed.DistributedSamplerWrapper(
            ClassAwareSampler(LABELS, "inverse", seed=5), num_replicas=world, rank=rank, shuffle=False
        )
        for rank in range(world)
    ]
    for epoch in range(2):
        for sampler in wrapped:
            sampler.set_epoch(epoch)
        order = ClassAwareSampler(LABELS, "inverse", seed=5).order(epoch)
        assert sorted(i for sampler in wrapped for i in sampler) == sorted(order.tolist())


def test_a_wrapper_in_the_style_of_distributed_sampler_sees_every_index():
    class Wrapper(DistributedSampler):  # what people write by hand
        def __init__(self, sampler, rank):
            self.sampler = sampler
            super().__init__(sampler, num_replicas=2, rank=rank, shuffle=False)

        def __iter__(self):
            self.sampler.set_epoch(self.epoch)
            order = list(self.sampler)
            return iter([order[i] for i in super().__iter__()])

    wrapped = [Wrapper(ClassAwareSampler(LABELS, "inverse", seed=5), rank) for rank in range(2)]
    for epoch in range(2):
        for sampler in wrapped:
            sampler.set_epoch(epoch)
        order = ClassAwareSampler(LABELS, "inverse", seed=5).order(epoch)
        assert sorted(i for sampler in wrapped for i in sampler) == sorted(order.tolist())


# ---- what is refused


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        ([], {}, ValueError, "labels must not be empty"),
        (np.zeros((2, 2)), {}, TypeError, "labels must be one-dimensional"),
        ([0, None], {}, TypeError, "labels"),
        ([0, 1], {"scheme": "class_balanced"}, ValueError, "scheme must be one of 'none', 'inverse'"),
        ([0, 1], {"beta": 2}, ValueError, r"beta must be in \[0, 1\], got 2"),
        ([0, 1], {"num_samples": 0}, ValueError, r"num_samples must be in \[1, inf\], got 0"),
        ([0, 1], {"seed": -1}, ValueError, r"seed must be in \[0, inf\], got -1"),
    ],
)
def test_bad_arguments(labels, options, error, message):
    with pytest.raises(error, match=message):
        ClassAwareSampler(labels, **options)


def test_foreign_states_are_refused():
    sampler = ClassAwareSampler(LABELS, seed=4)
    with pytest.raises(ValueError, match="the state is of a sampler with seed=4, this one has 5"):
        ClassAwareSampler(LABELS, seed=5).load_state_dict(sampler.state_dict())
    with pytest.raises(ValueError, match="num_samples=96, this one has 3"):
        ClassAwareSampler([0, 1, 2], seed=4).load_state_dict(sampler.state_dict())
    with pytest.raises(ValueError, match="consumed must be at most num_samples=96, got 97"):
        sampler.state_dict(97)
    with pytest.raises(ValueError, match=r"epoch must be in \[0, inf\], got -1"):
        sampler.set_epoch(-1)


def test_equal_classes_are_dealt_as_they_were():
    # orders of the first version: that a rule's shares equal the counts makes no plain shuffle of it
    assert list(ClassAwareSampler([0] * 6, "inverse", seed=3)) == [5, 4, 3, 0, 2, 1]
    assert list(ClassAwareSampler([0] * 6, "none", seed=3)) != [5, 4, 3, 0, 2, 1]
