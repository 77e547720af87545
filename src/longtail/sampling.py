"""Class-aware sampling: the order of an epoch as a function of (seed, epoch), for every process alike.

The re-sampling twin of the class weights: a scheme that weighs a class's samples by w draws the class w times
as often as its share of the data.

=================  =====================  =====================================================
scheme             class drawn            known as
=================  =====================  =====================================================
"none"             ~ n                    instance-balanced: a plain shuffle
"inverse"          ~ 1                    class-balanced sampling
"inverse_sqrt"     ~ sqrt(n)              square-root sampling
"effective"        ~ n / E_n              between "none" (beta 0) and "inverse" (beta 1)
"progressive"      from ~ n to ~ 1        progressively balanced; needs the number of `epochs`
"oversampling"     ~ 1                    random over-sampling: in an epoch of the same length as "inverse"
"undersampling"    ~ 1                    random under-sampling: of each class as many samples as the
                                          smallest has, the same ones in every epoch
=================  =====================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from longtail import _checks
from longtail._random import uniform, words
from longtail._registry import Registry
from longtail.labels import encode
from longtail.weights import DEFAULT_BETA, class_weights

__all__ = ["CUTS", "SAMPLING", "ClassAwareSampler", "Shares"]

Shares = Callable[..., npt.NDArray[np.float64]]

SAMPLING: Final = Registry[Shares]("scheme")

_CHUNK = 1 << 16  # indices turned into Python integers at a time
_NO_EPOCH = 2**62  # the stream that chooses samples for all epochs
_ROUNDING = 1e-9  # an expected number of draws this close below a whole number is that number


def none(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
    """Return the classes' own counts: a plain shuffle."""
    return cast("npt.NDArray[np.float64]", counts)  # these very ones, which tells it


def inverse(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
    """Return equal shares."""
    return _weighed(counts, "inverse")


def inverse_sqrt(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
    """Return shares proportional to sqrt(n)."""
    return _weighed(counts, "inverse_sqrt")


def effective(
    counts: npt.NDArray[np.int64], progress: float, *, beta: float = float(DEFAULT_BETA)
) -> npt.NDArray[np.float64]:
    """Return shares proportional to n / E_n."""
    return _weighed(counts, "effective", beta=beta)


def progressive(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
    """Return shares that go from the data's own to equal ones, in proportion to the training that is over.

    Source: Kang et al. (ICLR 2020), "progressively-balanced sampling".
    """
    present = counts > 0
    mixed: npt.NDArray[np.float64] = (
        1 - progress
    ) * counts / counts.sum() + progress * present / present.sum()
    return mixed


def oversampling(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
    """Return equal shares: copies of the small classes' samples until all are as large as the largest."""
    return _weighed(counts, "inverse")


def undersampling(counts: npt.NDArray[np.int64], progress: float) -> npt.NDArray[np.float64]:
    """Return equal shares; what is drawn at all is cut to the smallest class, see `CUTS`."""
    return _weighed(counts, "inverse")


def _weighed(counts: npt.NDArray[np.int64], scheme: str, **settings: Any) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = class_weights(counts, scheme, normalize="samples", **settings) * counts
    return shares


for _rule in (none, inverse, inverse_sqrt, effective, progressive, oversampling, undersampling):
    SAMPLING.register(_rule.__name__, _rule)

# schemes that leave samples out: how many of each class are ever drawn
CUTS: Final[dict[str, Callable[[npt.NDArray[np.int64]], int]]] = {
    "undersampling": lambda counts: int(counts[counts > 0].min())
}


class ClassAwareSampler:
    """Draws sample indices class by class, for the ``sampler`` of a torch ``DataLoader``.

    It yields the whole epoch's order in every process and never takes a part of it: accelerate, Lightning and
    ``DistributedSampler``-style wrappers each cut that order themselves, and a sampler that did so too would
    leave most of it unseen.

    Args:
        labels: one label a sample, of any kind that :func:`longtail.class_counts` takes as a list, array,
            Series or tensor.
        scheme: "none" | "inverse" | "inverse_sqrt" | "effective": see the module's table; another name
            registered in `SAMPLING`; or a function ``(counts, progress) -> shares`` of the samples per class
            and of the share of the training that is over, in [0, 1), which need not sum to 1.
        beta: of the effective number, in [0, 1].
        epochs: of the whole training, for shares that change from epoch to epoch.
        num_samples: indices in an epoch; default: the number of labels.
        cut: so many samples of a class, chosen by the seed, are ever drawn; None: all, but for schemes in
            `CUTS`, which say it themselves.
        replacement: False deals each class's samples out like a deck of cards, none of them again before all
            were drawn, and gives each class its share to the last draw; True draws each index independently.
        seed: of the order, >= 0.

    Attributes:
        num_samples: indices in an epoch.
        epoch: the epoch whose order comes next; see :meth:`set_epoch`.
        class_shares: float64 of shape (C,), the share of the draws that each class with samples has in this
            epoch, in the order of :func:`longtail.class_counts`.
        class_rates: float64, one a class of :func:`longtail.class_counts`: how many times as often as in the
            labels it is drawn in this epoch, as `longtail.adjust_logits` takes it as ``sampling``.

    Raises:
        TypeError: labels that are no labels, or an argument of the wrong type.
        ValueError: no labels, an unknown scheme, or a number out of range.

    Example:
        >>> sampler = ClassAwareSampler(["cat"] * 6 + ["lynx"] * 2, "inverse")
        >>> sorted(sampler)
        [0, 1, 2, 3, 6, 6, 7, 7]

    Nothing here is limited to 2^24 samples, as ``torch.multinomial`` and so ``WeightedRandomSampler`` are.
    Memory is proportional to labels and draws. The order depends on neither machine nor library version.
    """

    def __init__(
        self,
        labels: Any,
        scheme: str | Shares = "effective",
        *,
        beta: float = DEFAULT_BETA,
        epochs: int = 1,
        num_samples: int | None = None,
        cut: int | None = None,
        replacement: bool = False,
        seed: int = 0,
    ) -> None:
        codes = _codes(labels)
        counts = np.bincount(codes)
        present = np.flatnonzero(counts)
        if cut is None and isinstance(scheme, str) and scheme in CUTS:
            cut = CUTS[scheme](counts)
        self._shares = scheme if callable(scheme) else SAMPLING[scheme]
        self._settings = {"beta": beta} if scheme == "effective" else {}
        self._counts, self._present = counts, present
        self.epochs = _checks.integer("epochs", epochs, low=1)
        small = codes.astype(np.uint16) if len(counts) <= 1 << 16 else codes  # what NumPy sorts by radix
        self._members = np.argsort(small, kind="stable")  # class after class
        self._sizes = counts[present].astype(np.int64)
        size = len(codes) if num_samples is None else num_samples
        self.num_samples = _checks.integer("num_samples", size, low=1)
        self.replacement = bool(replacement)
        self.seed = _checks.integer("seed", seed, low=0)
        if cut is not None:
            self._cut(_checks.integer("cut", cut, low=1, remedy="leave it out for all samples"))
        self.epoch = 0
        self._start = self._position = 0
        self._shares_at(0)  # refuses what no epoch can use

    @property
    def class_shares(self) -> npt.NDArray[np.float64]:
        """The share of the draws that each class with samples has in this epoch."""
        return self._shares_at(self.epoch)[0]

    @property
    def class_rates(self) -> npt.NDArray[np.float64]:
        """How many times as often as in the labels each class is drawn in this epoch; 1 without samples."""
        rates = np.ones(len(self._counts))
        seen = self._counts[self._present]
        rates[self._present] = self.class_shares / (seen / seen.sum())
        return rates

    def _shares_at(self, epoch: int) -> tuple[npt.NDArray[np.float64], bool]:
        """Return an epoch's shares, and whether they are the counts themselves: a plain shuffle."""
        progress = min(epoch, self.epochs - 1) / self.epochs
        answer: object = self._shares(self._counts, progress, **self._settings)
        given = np.asarray(answer, dtype=np.float64)
        if given.shape != self._counts.shape or not np.isfinite(given).all() or (given < 0).any():
            raise ValueError(
                f"scheme must give {len(self._counts)} shares, each >= 0, got {_checks.describe(given)}"
            )
        shares: npt.NDArray[np.float64] = given[self._present]
        if not shares.sum() > 0:
            raise ValueError("scheme gives no class with samples a share above 0; give one to some class")
        return shares / shares.sum(), answer is self._counts

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration yields; the wrappers call it, or you do.

        Raises:
            ValueError: a negative epoch.
        """
        epoch = _checks.integer("epoch", epoch, low=0)
        if epoch != self.epoch:
            self.epoch, self._start, self._position = epoch, 0, 0

    def __len__(self) -> int:
        """Return how many indices the next iteration yields."""
        return self.num_samples - self._start

    def __iter__(self) -> Iterator[int]:
        self._position = start = self._start
        order = self.order(self.epoch)
        for first in range(start, self.num_samples, _CHUNK):
            for index in order[first : first + _CHUNK].tolist():
                self._position += 1
                yield index
        self._start = 0  # what was resumed is done; the next epoch is whole

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return an epoch's order, int64 of shape (num_samples,), the same in every process."""
        bits = words(self.seed, epoch)
        shares, plain = self._shares_at(epoch)
        if self.replacement:
            cumulative = np.cumsum(shares)
            drawn = np.searchsorted(cumulative[:-1], uniform(bits, self.num_samples), side="right")
            place = (uniform(bits, self.num_samples) * self._sizes[drawn]).astype(np.int64)
            picked: npt.NDArray[np.int64] = self._members[self._firsts()[drawn] + place]
            return picked
        if plain and self.num_samples == len(self._members):
            return np.argsort(bits.random_raw(self.num_samples), kind="stable")
        dealt = self._deal(self._draws(shares, bits), bits)
        return dealt[np.argsort(bits.random_raw(len(dealt)), kind="stable")]

    def state_dict(self, consumed: int | None = None) -> dict[str, int]:
        """Return what an exact resume needs.

        Args:
            consumed: indices of this epoch that training has used; default: those yielded so far. Loaders
                that read ahead (worker processes, accelerate) have taken more than was trained on, and then
                only the training loop knows: steps in this epoch times the global batch.

        Raises:
            ValueError: more than an epoch has.
        """
        position = self._position if consumed is None else _checks.integer("consumed", consumed, low=0)
        if position > self.num_samples:
            raise ValueError(f"consumed must be at most num_samples={self.num_samples}, got {consumed}")
        return {"seed": self.seed, "epoch": self.epoch, "position": position, "num_samples": self.num_samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a state was taken: the next iteration yields the rest of that epoch.

        Raises:
            ValueError: a state of another seed or another number of samples.
        """
        for name in ("seed", "num_samples"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the state is of a sampler with {name}={state[name]}, this one has "
                    f"{getattr(self, name)}; build it as the one that was saved"
                )
        self.epoch, self._start = state["epoch"], state["position"]
        self._position = self._start
        if self._start == self.num_samples:  # that epoch is over
            self.epoch, self._start, self._position = self.epoch + 1, 0, 0

    def _cut(self, most: int) -> None:
        """Keep at most so many samples of each class, chosen by the seed."""
        parts = np.split(self._members, self._firsts()[1:])
        keys = np.split(words(self.seed, _NO_EPOCH).random_raw(len(self._members)), self._firsts()[1:])
        kept = [
            np.sort(part[np.argsort(key, kind="stable")[:most]])
            for part, key in zip(parts, keys, strict=True)
        ]
        self._members, self._sizes = np.concatenate(kept), np.minimum(self._sizes, most)

    def _firsts(self) -> npt.NDArray[np.int64]:
        firsts: npt.NDArray[np.int64] = np.cumsum(self._sizes) - self._sizes
        return firsts

    def _draws(self, shares: npt.NDArray[np.float64], bits: np.random.PCG64) -> npt.NDArray[np.int64]:
        """How often each class is drawn: its share, fractions rounded up as often as they are large."""
        expected = shares * self.num_samples
        draws = np.floor(expected + _ROUNDING).astype(np.int64)
        rest = self.num_samples - int(draws.sum())
        if rest > 0:
            fractions = np.cumsum(np.maximum(expected - draws, 0.0))
            marks = (uniform(bits, 1) + np.arange(rest)) * (fractions[-1] / rest)
            np.add.at(draws, np.minimum(np.searchsorted(fractions, marks, side="right"), len(draws) - 1), 1)
        return draws

    def _deal(self, draws: npt.NDArray[np.int64], bits: np.random.PCG64) -> npt.NDArray[np.int64]:
        """Draw so many of each class: its samples shuffled, and shuffled anew whenever they run out."""
        decks = -(-draws // self._sizes)
        sizes = np.repeat(self._sizes, decks)
        deck = np.repeat(np.arange(len(sizes)), sizes)
        within = np.arange(len(deck)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        cards = self._members[np.repeat(np.repeat(self._firsts(), decks), sizes) + within]
        # one key to sort by: the deck in its first bits, random ones in the others
        free = np.uint64(64 - len(sizes).bit_length())
        key = (deck.astype(np.uint64) << free) | (bits.random_raw(len(deck)) >> (np.uint64(64) - free))
        cards = cards[np.argsort(key, kind="stable")]
        of_class = decks * self._sizes
        rank = np.arange(len(cards)) - np.repeat(np.cumsum(of_class) - of_class, of_class)
        dealt: npt.NDArray[np.int64] = cards[rank < np.repeat(draws, of_class)]
        return dealt


def _codes(labels: Any) -> npt.NDArray[np.integer[Any]]:
    """Class numbers from 0; integer labels of a usual size are taken as they are, without sorting them."""
    plain = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu" and labels.size
    if plain and labels.min() >= 0 and labels.max() <= max(1 << 16, labels.size):
        given: npt.NDArray[np.integer[Any]] = labels
        return given
    codes = encode(labels)[1]
    if not len(codes):
        raise ValueError("labels must not be empty; pass the training set's labels")
    return codes
