"""What an audit answers: records of what was found, and the plain sentences that every view shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from longtail._checks import short
from longtail.auditing.facts import THIN, ClassGroups, EffectiveShare, TestSet
from longtail.auditing.samples import Samples
from longtail.counts import ClassCounts

_NAMED: Final = 3  # names in a sentence
_COMPARED: Final = {"row": "rows as they are", "text": "text after normalisation"}


def harmless(name: object) -> str:
    """Write a name so that no terminal obeys it: control characters, line ends, stray bytes as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample.

    Attributes:
        index: its place among all samples, the training part's first.
        part: "train", "test" or what the folder of the part is called.
        label: its class's name.
        name: its file, row or number.
    """

    index: int
    part: str
    label: str
    name: str

    def __str__(self) -> str:
        return f"{harmless(self.name)} ({self.part}, {harmless(self.label)})"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Samples that are one and the same.

    Attributes:
        kind: in what: "bytes" of the files; "pixels", where the files differ; "values"; "row"; "text" after
            normalisation.
        samples: two or more.
    """

    kind: str
    samples: tuple[Sample, ...]

    @property
    def is_leak(self) -> bool:
        """Whether they lie in more than one part."""
        return len({sample.part for sample in self.samples}) > 1

    @property
    def is_conflict(self) -> bool:
        """Whether their labels differ."""
        return len({sample.label for sample in self.samples}) > 1

    @property
    def within_parts(self) -> tuple[tuple[Sample, ...], ...]:
        """Those of each part that holds two or more of them."""
        parts = dict.fromkeys(sample.part for sample in self.samples)
        same = (tuple(sample for sample in self.samples if sample.part == part) for part in parts)
        return tuple(samples for samples in same if len(samples) > 1)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples that look alike: for people to look at, never counted as duplicates.

    Attributes:
        first: the one.
        second: the other.
        similarity: at most 1.
        by: "pixels" of the pictures made small, or "features".
    """

    first: Sample
    second: Sample
    similarity: float
    by: str

    @property
    def is_leak(self) -> bool:
        """Whether they lie in two parts."""
        return self.first.part != self.second.part

    @property
    def is_conflict(self) -> bool:
        """Whether their labels differ."""
        return self.first.label != self.second.label


@dataclass(frozen=True)
class SharedGroup:
    """A group with samples in more than one part.

    Attributes:
        name: of the group.
        samples: of each part, by the part's name.
    """

    name: str
    samples: dict[str, int]


@dataclass(frozen=True)
class Groups:
    """Tracks, patients, sources: samples that are not independent of one another.

    Attributes:
        total: distinct groups in all parts.
        by_class: whether a group is a name within a class, because numbering starts again in every class.
        shared: groups in more than one part.
        in_several_classes: how many groups have samples of more than one class.
        per_class: of every class.
    """

    total: int
    by_class: bool
    shared: tuple[SharedGroup, ...]
    in_several_classes: int
    per_class: tuple[ClassGroups, ...]


@dataclass(frozen=True)
class Need:
    """A class where collecting helps most.

    Attributes:
        name: the class.
        samples: of the training part.
        distinct: of these, without exact duplicates.
        groups: distinct groups among them, or None.
        new: the probability that the next sample is of a new group, or None.
        test: test samples; None without a test part.
        why: in words.
    """

    name: str
    samples: int
    distinct: int
    groups: int | None
    new: float | None
    test: int | None
    why: str


@dataclass(frozen=True)
class Finding:
    """One thing that the audit says.

    Attributes:
        level: "problem" for what makes results wrong, "look" for what a person should look at, "fine", or
            "note".
        title: what it is about.
        text: what was found.
        todo: what to do about it, or nothing.
    """

    level: str
    title: str
    text: str
    todo: str = ""


@dataclass(frozen=True)
class Audit:
    """What `longtail.audit` found; nothing in it changes a weight.

    Attributes:
        source: what was audited.
        counts: training samples by class.
        test_counts: test samples by class; None without a test part.
        imbalance_factor: largest count over smallest count above 0.
        gini: of the training counts: 0 where all are equal.
        effective_shares: what every weighting leaves of the sample, after Kish.
        test: what the test set can show; None without one.
        exact_duplicates: samples that are one and the same, all of them.
        probable_duplicates: pairs to look at, those across parts first, the most alike first.
        probable_total: how many such pairs there are; `probable_duplicates` holds 10,000 at most.
        groups: None unless groups were named.
        collect: classes where collecting helps most, the neediest first.
        unreadable: samples that could not be read, each with the reason.
        compared: in what samples were compared, such as ("bytes", "pixels"); empty for labels alone.
        notes: what was taken for something, or left out.
        samples: the samples themselves, for those who show them.
    """

    source: str
    counts: ClassCounts
    test_counts: ClassCounts | None
    imbalance_factor: float
    gini: float
    effective_shares: tuple[EffectiveShare, ...]
    test: TestSet | None
    exact_duplicates: tuple[Duplicate, ...]
    probable_duplicates: tuple[Pair, ...]
    probable_total: int
    groups: Groups | None
    collect: tuple[Need, ...]
    unreadable: tuple[tuple[Sample, str], ...]
    compared: tuple[str, ...]
    notes: tuple[str, ...] = ()
    samples: Samples | None = field(default=None, repr=False, compare=False)

    @property
    def leaks(self) -> tuple[Duplicate, ...]:
        """Exact duplicates in more than one part."""
        return tuple(d for d in self.exact_duplicates if d.is_leak)

    @property
    def label_conflicts(self) -> tuple[Duplicate, ...]:
        """Exact duplicates whose labels differ."""
        return tuple(d for d in self.exact_duplicates if d.is_conflict)

    @property
    def shared_groups(self) -> tuple[SharedGroup, ...]:
        """Groups in more than one part."""
        return () if self.groups is None else self.groups.shared

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is said, in order."""
        made = (
            _tail,
            _weightings,
            _test,
            _leaks,
            _duplicates,
            _conflicts,
            _probable,
            _groups,
            _coverage,
            _collect,
        )
        found = [finding for make in made if (finding := make(self)) is not None]
        if self.unreadable:
            number = len(self.unreadable)
            text = f"{_many(number, 'sample')} could not be read, and {_does(number, 'take')} part in no "
            text += f"comparison; the first: {harmless(self.unreadable[0][1])}."
            found.append(Finding("problem", "Unreadable", text))
        found += [Finding("note", "Note", harmless(note)) for note in self.notes]
        return tuple(found)

    def class_rows(self) -> list[list[str]]:
        """Return one row a class under a head: what is known of each."""
        tests, groups = self.test_counts, None if self.groups is None else self.groups.per_class
        again = self.repeated
        head = ["class", "training"]
        head += ["repeated"] if self.compared else []
        head += ["test"] if tests is not None else []
        head += ["groups", "new group"] if groups is not None else []
        rows = [head]
        for c, name in enumerate(map(str, self.counts.names)):
            row = [harmless(name), str(self.counts.counts[c])]
            row += [str(again.get(name, 0))] if self.compared else []
            row += [str(tests.counts[c])] if tests is not None else []
            if groups is not None:
                new = groups[c].new
                row += [str(groups[c].groups), "" if new is None else f"{100 * new:.1f} %"]
            rows.append(row)
        return rows

    @property
    def repeated(self) -> dict[str, int]:
        """How many training samples of a class repeat another one of it; classes without any are left out."""
        return repeated(self.exact_duplicates)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "samples"}
        values = {name: _plain(value) for name, value in values.items()}
        values["leaks"] = len(self.leaks)
        values["label_conflicts"] = len(self.label_conflicts)
        values["findings"] = [asdict(finding) for finding in self.findings]
        return values

    def __str__(self) -> str:
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.title}: {finding.text}")
            lines += [f"  -> {finding.todo}"] if finding.todo else []
        return "\n".join(lines)


def repeated(duplicates: Sequence[Duplicate]) -> dict[str, int]:
    """Count the training samples of each class that repeat another one of it."""
    found: dict[str, int] = {}
    for duplicate in duplicates:
        of = Counter(sample.label for sample in duplicate.samples if sample.part == "train")
        for name, number in of.items():
            if number > 1:
                found[name] = found.get(name, 0) + number - 1
    return found


def _plain(value: object) -> Any:
    if isinstance(value, ClassCounts):
        return [{"class": str(name), "count": value[name]} for name in value.names]
    if isinstance(value, Duplicate | Pair):
        flags = {"is_leak": value.is_leak, "is_conflict": value.is_conflict}
        return {**{name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}, **flags}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value


# ---- the sentences


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def _does(number: int, verb: str, one: str = "") -> str:
    return (one or verb + "s") if number == 1 else verb


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _some(names: Sequence[object]) -> str:
    text = ", ".join(harmless(name) for name in names[:_NAMED])
    return text + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _tail(a: Audit) -> Finding:
    counts = a.counts.counts
    rare, often = (harmless(a.counts.names[int(i)]) for i in (counts.argmin(), counts.argmax()))
    text = (
        f"{_many(len(counts), 'class')}, {_many(a.counts.total, 'training sample')}, from "
        f"{counts.max():,} ({often}) down to {counts.min():,} ({rare}): imbalance factor "
        f"{short(a.imbalance_factor)}, Gini {a.gini:.2f}"
    )
    if a.imbalance_factor < 1.5:
        return Finding("fine", "The tail", text + ".", "There is no long tail: no re-weighting is needed.")
    todo = "Compare methods with longtail compare; none is best on all data."
    if a.imbalance_factor < 10:
        return Finding("note", "The tail", text + ", a short tail.", todo)
    return Finding("look", "The tail", text + ".", todo)


def _weightings(a: Audit) -> Finding | None:
    shares = {share.name: share for share in a.effective_shares}
    idle = [f"{s.beta:g}" for s in a.effective_shares if s.does_nothing and s.beta is not None]
    same = [f"{s.beta:g}" for s in a.effective_shares if s.is_inverse and s.beta is not None]
    if a.imbalance_factor < 1.5:
        return None
    text = f"Inverse frequency leaves {_percent(shares['inverse'].share)} of the sample"
    kept = [f"{_percent(s.share)} at beta {s.beta:g}" for s in a.effective_shares if s.scheme == "effective"]
    text += f", the effective number {', '.join(kept)} (Kish)."
    if idle:
        text += f" Beta {', '.join(idle)} {_does(len(idle), 'do', 'does')} nothing here."
    if same:
        text += f" Beta {', '.join(same)} {_does(len(same), 'are', 'is')} as good as inverse frequency."
    return Finding(
        "note", "Weightings", text, "The less is left, the more the result depends on a few samples."
    )


def _test(a: Audit) -> Finding | None:
    test = a.test
    if test is None:
        if not a.compared:
            return None
        return Finding("problem", "The test set", "There is no test part, so nothing can be measured.",
                       "Hold samples out, by group where there are groups.")  # fmt: skip
    number = len(test.counts)
    parts = []
    if test.empty:
        parts.append(
            f"{_many(len(test.empty), 'class')} without a test sample ({_some(test.empty)}): nothing can be "
            "said of them."
        )
    if test.thin:
        has = "has" if len(test.thin) == 1 else "have"
        parts.append(
            f"{len(test.thin)} of {number} classes {has} fewer than {THIN} test samples ({_some(test.thin)})."
        )
    if test.visible is not None and test.error_margin is not None:
        seeds = _many(test.seeds, "seed")
        parts.append(
            f"One model's balanced error is known to ±{_points(test.error_margin)}; differences under "
            f"{_points(test.visible)} are invisible with {seeds}"
            + (f", under {_points(test.visible_by_group)} if a group's samples are right or wrong together"
               if test.visible_by_group is not None and test.visible_by_group > test.visible else "")
            + "."
        )  # fmt: skip
    level = "problem" if test.empty else "look" if test.thin or (test.visible or 1) > 0.02 else "fine"
    whose = " of these classes" if test.empty or test.thin else ""
    todo = "" if level == "fine" else f"Collect test samples{whose}, or claim no more than that."
    return Finding(level, "The test set", " ".join(parts), todo)


def _leaks(a: Audit) -> Finding | None:
    if not a.compared or a.test_counts is None:
        return None
    leaks = a.leaks
    if not leaks:
        return Finding("fine", "Leaks", f"No sample is in both training and test ({_in(a)}).")
    inside = sum(sample.part != "train" for d in leaks for sample in d.samples)
    parts = {sample.part for d in leaks for sample in d.samples}
    where = "in training, too" if len(parts) == 2 else "in another part, too"
    text = f"{_many(inside, 'test sample')} {_does(inside, 'are', 'is')} {where}, such as "
    text += f"{_first(leaks[0])}."
    return Finding(
        "problem", "Leaks", text, "Remove them from training: a test with them flatters every model."
    )


def _first(d: Duplicate) -> str:
    other = next((s for s in d.samples[1:] if s.part != d.samples[0].part), d.samples[1])
    return f"{d.samples[0]} = {other}"


def _in(a: Audit) -> str:
    return "compared in " + " and ".join(_COMPARED.get(kind, kind) for kind in dict.fromkeys(a.compared))


def _duplicates(a: Audit) -> Finding | None:
    if not a.compared:
        return None
    inside = [part for d in a.exact_duplicates for part in d.within_parts]
    if not inside:
        return Finding("fine", "Exact duplicates", f"None within a part ({_in(a)}).")
    extra = sum(len(same) - 1 for same in inside)
    first, second = inside[0][:2]
    text = f"{_many(extra, 'sample')} {_does(extra, 'repeat')} another of the same part, such as "
    text += f"{first} = {second}."
    return Finding(
        "look", "Exact duplicates", text, "Keep one of each: the counts of their classes are too high."
    )


def _conflicts(a: Audit) -> Finding | None:
    if not a.label_conflicts:
        return None
    number = len(a.label_conflicts)
    text = f"{_many(number, 'sample')} {_does(number, 'have', 'has')} several labels, such as "
    text += f"{_first_conflict(a)}."
    return Finding(
        "problem",
        "Labels that disagree",
        text,
        "One of the labels is wrong, or the sample has both: decide by hand.",
    )


def _first_conflict(a: Audit) -> str:
    d = a.label_conflicts[0]
    other = next(s for s in d.samples[1:] if s.label != d.samples[0].label)
    return f"{d.samples[0]} = {other}"


def _probable(a: Audit) -> Finding | None:
    pairs = a.probable_duplicates
    if not pairs:
        return None
    across, apart = sum(p.is_leak for p in pairs), sum(p.is_conflict for p in pairs)
    text = f"{_many(a.probable_total, 'pair')} {_does(a.probable_total, 'look')} alike"
    if across or apart:
        least = "at least " if a.probable_total > len(pairs) else ""
        text += f", {least}{across:,} across training and test, {least}{apart:,} under different labels"
    text += f"; the first: {pairs[0].first} ~ {pairs[0].second}."
    todo = "Look at the pairs; none of them is counted as a duplicate."
    if 10 * a.probable_total > a.counts.total:
        todo += " So many are alike by nature, or neighbours in films: name the groups, or raise similarity."
    return Finding("look", "Probable duplicates", text, todo)


def _groups(a: Audit) -> Finding | None:
    groups = a.groups
    if groups is None or a.test_counts is None:
        return None
    text = f"{_many(groups.total, 'group')}"
    if groups.by_class:
        text += " (numbers start again in every class, so a group is class and number)"
    elif groups.in_several_classes:
        text += f" ({groups.in_several_classes:,} with samples of several classes)"
    if not groups.shared:
        return Finding("fine", "Groups", f"{text}, none of them in both training and test.")
    first = groups.shared[0]
    parts = " and ".join(f"{number} in {part}" for part, number in first.samples.items())
    inside = sum(n for group in groups.shared for part, n in group.samples.items() if part != "train")
    text += (
        f", {len(groups.shared):,} of them in both training and test, such as {harmless(first.name)} "
        f"({parts}); "
        f"{_many(inside, 'test sample')} are of such groups."
    )
    return Finding(
        "problem", "Groups", text, "Split by group: what a model remembers of a group helps it in the test."
    )


def _coverage(a: Audit) -> Finding | None:
    if a.groups is None:
        return None
    known = [c for c in a.groups.per_class if c.new is not None and c.groups]
    few = min(a.groups.per_class, key=lambda c: c.groups)
    text = f"{harmless(few.name)} has the fewest distinct groups: {few.groups} among "
    text += f"{_many(few.samples, 'sample')}."
    if known:
        top = max(known, key=lambda c: c.new or 0)
        text += f" The next {harmless(top.name)} sample is of a new group with {_percent(top.new or 0)} "
        text += "(Good-Turing)."
    elif why := next((c.why for c in a.groups.per_class if "batches" in c.why), ""):
        text += f" {why[0].upper()}{why[1:]}, so the number of groups says more than that of samples."
    return Finding("note", "Distinct groups", text, "Collect new groups rather than more of those you have.")


def _collect(a: Audit) -> Finding | None:
    if not a.collect:
        return None
    text = "; ".join(f"{harmless(need.name)} ({need.why})" for need in a.collect[:_NAMED])
    return Finding("note", "Where collecting helps most", f"{text}.")
