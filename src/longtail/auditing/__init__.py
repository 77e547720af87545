"""The audit: what is wrong with the data, and what its test set can show, before anyone trains.

One file a step: `samples` (what is compared), `facts` (formulas), `duplicates`, `findings` (what is said).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from longtail import _checks
from longtail.auditing import duplicates, facts, samples
from longtail.auditing.facts import BETAS, ClassGroups, EffectiveShare, TestSet
from longtail.auditing.findings import (
    Audit,
    Duplicate,
    Finding,
    Groups,
    Need,
    Pair,
    Sample,
    SharedGroup,
    repeated,
)
from longtail.auditing.samples import Samples
from longtail.auditing.sources import read
from longtail.datasets.images import group_pattern, groups_in_paths, numbering_restarts
from longtail.sources.counted import Wanted

__all__ = [
    "Audit",
    "ClassGroups",
    "Duplicate",
    "EffectiveShare",
    "Finding",
    "Groups",
    "Need",
    "Pair",
    "Sample",
    "SharedGroup",
    "TestSet",
    "audit",
]

_PAIRS = 10_000  # probable pairs that are kept
_NEEDS = 10  # classes named


def audit(
    source: object,
    *,
    label: str | None = None,
    test: object = None,
    drop: Sequence[str] = (),
    header: bool = True,
    missing_as_class: bool = False,
    group: str | None = None,
    groups: object = None,
    groups_from: str | None = None,
    group_scope: str = "auto",
    features: object = None,
    similarity: float = 0.98,
    betas: Sequence[float] = BETAS,
    seeds: int = 3,
    recall: float | Sequence[float] = 0.8,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Look at data before anyone trains: its tail, its test set, duplicates, leaks, groups.

    Nothing that is found changes a weight.

    Args:
        source: One of

            - a folder of images, list files or a Hugging Face data set, as `longtail.datasets.load_images`
              takes them;
            - a table with a label column: a path as `longtail.class_counts` takes it, or a DataFrame;
            - an .npz file of features, as `longtail embed` writes it;
            - the name of a data set of `longtail.datasets`, or a `longtail.datasets.Dataset`;
            - labels alone, one a sample: duplicates are not looked for.
        label: The label column of a table or a Hugging Face data set.
        test: The test part of a table or of labels: another of the same kind.
        drop: Columns of a table in which rows are not compared. Label, group and columns that only number or
            name the rows are left out, too; `notes` says which.
        header: Whether the first line of a table of text names its columns; without, a label is a number.
        missing_as_class: Whether rows without a label are a class, called missing.
        group: The column of the group: the patient, the track, the source.
        groups: Or the group of each sample, training samples first.
        groups_from: Or a regular expression that finds the group in each image's path below its part's
            folder, such as ``00/00007_00012.jpg``, as `longtail.datasets.ImageList.with_groups` says: what
            its parentheses match, or all of it where there are none.
        group_scope: "all": one name is one group wherever it stands; "class": in every class another one;
            "auto": the latter only if groups are numbers that plainly start again in every class.
        features: One vector a sample, training samples first: an array, or a file as
            `longtail embed` writes it. Pairs of high cosine are probable duplicates.
        similarity: From which on two samples are probable duplicates, above 0 and below 1.
        betas: Of the effective number, each from 0 to 1.
        seeds: Runs of a method, for what the test set can show.
        recall: What to assume of every class there, or one number a class.
        jobs: Threads that read; None for one a core.
        progress: Called as ``progress(done, total)`` while samples are read.

    Returns:
        What was found; `print` shows it in plain words.

    Raises:
        FileNotFoundError: The source is not there.
        TypeError: A source of another kind.
        ValueError: One class only, an unknown column, a group that some sample lacks, no regular expression
            or one that finds no group, features of another number of rows, an option out of range.
        ModuleNotFoundError: SciPy, or what reads this kind of source, is not installed.

    Example:
        >>> found = audit(["cat"] * 90 + ["lynx"] * 10)
        >>> found.imbalance_factor, round(found.gini, 2)
        (9.0, 0.4)
    """
    alike = _checks.number("similarity", similarity, low=0, high=1, open_low=True, open_high=True)
    given = [name for name, value in (("group", group), ("groups", groups), ("groups_from", groups_from))
             if value is not None]  # fmt: skip
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(f'{name}=' for name in given)} are given; they say the same thing, give one"
        )
    for beta in betas:
        _checks.number("beta", beta, low=0, high=1)
    _checks.choice("group_scope", group_scope, ("auto", "all", "class"))
    threads = os.cpu_count() or 1 if jobs is None else _checks.integer("jobs", jobs, low=1)
    pattern = None if groups_from is None else group_pattern(groups_from)
    wanted = Wanted(label=label, header=header, missing_as_class=missing_as_class)
    left_out = [drop] if isinstance(drop, str) else list(drop)
    found = read(source, wanted, test=test, drop=left_out, group=group)
    if len(found.class_names) < 2:
        raise ValueError(f"{found.title} has one class, {found.class_names[0]!r}; an audit needs two or more")
    vectors = found.vectors
    if features is not None:
        vectors = samples.beside(features, found)
    if not given and "groups" in found.columns and isinstance(found.content, samples.Arrays):
        group = "groups"  # a features file names its own
    names, codes = _group_codes(found, group, groups, pattern)

    counts = found.counts(0)
    test_counts = found.counts(1) if len(found.parts) > 1 else None
    seen = None if found.content is None else duplicates.look(found.content, len(found), threads, progress)
    sample = _sample_maker(found)
    exact = [] if seen is None or found.content is None else [
        Duplicate(found.content.kinds[len(set(seen.fine[places])) > 1], tuple(map(sample, places.tolist())))
        for places in duplicates.alike(seen.coarse)
    ]  # fmt: skip
    pairs, total = _probable(found, seen, vectors, codes, alike, threads, sample)
    grouped, tests_by_group = (None, None) if codes is None else _grouped(found, names, codes, group_scope)
    shown = None if test_counts is None else facts.resolution(
        test_counts, seeds=seeds, recall=recall, groups=tests_by_group
    )  # fmt: skip
    return Audit(
        source=found.title,
        counts=counts,
        test_counts=test_counts,
        imbalance_factor=counts.imbalance_factor,
        gini=facts.gini(counts.counts),
        effective_shares=facts.effective_shares(counts.counts, betas),
        test=shown,
        exact_duplicates=tuple(exact),
        probable_duplicates=pairs,
        probable_total=total,
        groups=grouped,
        collect=_needs(counts, test_counts, grouped, exact),
        unreadable=()
        if seen is None
        else tuple((sample(i), why) for i, why in sorted(seen.unreadable.items())),
        compared=() if found.content is None else tuple(dict.fromkeys(found.content.kinds)),
        notes=found.notes,
        samples=found,
    )


def _sample_maker(found: Samples) -> Callable[[int], Sample]:
    def sample(index: int) -> Sample:
        part = found.parts[found.part[index]]
        return Sample(index, part, found.class_names[found.labels[index]], found.name(index))

    return sample


# ---- groups


def _group_codes(
    found: Samples, group: str | None, groups: Any, pattern: re.Pattern[str] | None
) -> tuple[list[str], Any]:
    """Return the groups' names and each sample's group, or None where no groups are named."""
    if pattern is not None:
        named = found.paths
        if named is None:
            raise ValueError(
                f"groups_from needs names of files, and {found.title} has none; name a column by group="
            )
        values = groups_in_paths(pattern, (len(found), named, found.name))
    elif group is not None:
        if group not in found.columns:
            if not found.columns:
                raise ValueError(
                    f"group={group!r}: {found.title} has no columns; for images give groups_from="
                )
            _checks.column("group", group, found.columns, found.title)
        values = list(found.columns[group])
    elif groups is not None:
        values = list(groups.tolist() if hasattr(groups, "tolist") else groups)
    else:
        return [], None
    if len(values) != len(found):
        raise ValueError(
            f"groups has {len(values)} entries for {len(found)} samples; give one a sample, training first"
        )
    missing = sum(value is None or value != value or value == "" for value in values)
    if missing:
        raise ValueError(f"the group is missing for {missing} samples; give each of these a group of its own")
    texts, codes = np.unique(np.array([str(value) for value in values], dtype=object), return_inverse=True)
    return list(texts), codes.reshape(-1)


def _grouped(found: Samples, names: list[str], codes: Any, scope: str) -> tuple[Groups, Any]:
    by_class = scope == "class"
    if scope == "auto" and found.paths is not None:
        by_class = numbering_restarts(names, codes, found.labels, found.paths)
    keys = found.labels * len(names) + codes if by_class else codes
    _, keys = np.unique(keys, return_inverse=True)
    number = int(keys.max()) + 1
    title = [""] * number
    for key, code, c in zip(keys.tolist(), codes.tolist(), found.labels.tolist(), strict=True):
        title[key] = f"{found.class_names[c]}/{names[code]}" if by_class else names[code]
    in_part = np.stack(
        [np.bincount(keys[found.part == p], minlength=number) for p in range(len(found.parts))]
    )
    shared = tuple(
        SharedGroup(
            title[g], {part: int(in_part[p, g]) for p, part in enumerate(found.parts) if in_part[p, g]}
        )
        for g in np.flatnonzero((in_part > 0).sum(0) > 1).tolist()
    )
    classes = np.unique(np.stack([keys, found.labels]), axis=1)[0]
    several = int((np.bincount(classes) > 1).sum())

    def sizes(part: int) -> list[Any]:
        pairs, count = np.unique(
            np.stack([found.labels, keys])[:, found.part == part], axis=1, return_counts=True
        )
        return [count[pairs[0] == c] for c in range(len(found.class_names))]

    tests = [len(m) for m in sizes(1)] if len(found.parts) > 1 else None
    per_class = facts.groups_per_class(found.class_names, sizes(0), tests)
    return Groups(number, by_class, shared, several, per_class), tests


# ---- probable duplicates


def _probable(
    found: Samples,
    seen: duplicates.Seen | None,
    vectors: Any,
    codes: Any,
    similarity: float,
    jobs: int,
    sample: Callable[[int], Sample],
) -> tuple[tuple[Pair, ...], int]:
    """Pairs that look alike, by pixels and by features; of exact duplicates only the first takes part.

    Samples of one group in one part are expected to look alike and are left out.
    """
    places = np.arange(len(found))
    if seen is not None:
        places = np.sort(np.unique(seen.coarse, return_index=True)[1])
        places = places[seen.coarse[places] >= 0]
    kinds = []
    if seen is not None and seen.small is not None:
        small = seen.small
        kinds.append(("pixels", lambda at: samples.signature(small[at])))
    if vectors is not None:
        kinds.append(("features", lambda at: samples.unit(vectors[at])))
    best: dict[tuple[int, int], tuple[float, str]] = {}
    for by, of in kinds:
        pairs, values = duplicates.near_pairs(of, places, similarity, jobs)
        same = found.part[pairs[:, 0]] == found.part[pairs[:, 1]]
        if codes is not None:
            same &= codes[pairs[:, 0]] == codes[pairs[:, 1]]
            same &= found.labels[pairs[:, 0]] == found.labels[pairs[:, 1]]
            pairs, values = pairs[~same], values[~same]
        for (i, j), value in zip(pairs.tolist(), values.tolist(), strict=True):
            if (i, j) not in best or best[i, j][0] < value:
                best[i, j] = value, by
    order = sorted(
        best,
        key=lambda p: (
            found.part[p[0]] == found.part[p[1]], found.labels[p[0]] == found.labels[p[1]], -best[p][0], p,
        ),
    )  # fmt: skip
    kept = tuple(Pair(sample(i), sample(j), *best[i, j]) for i, j in order[:_PAIRS])
    return kept, len(best)


# ---- where collecting helps


def _needs(
    counts: Any, test_counts: Any, groups: Groups | None, exact: Sequence[Duplicate]
) -> tuple[Need, ...]:
    """Rank classes by what they have least of: distinct groups, then distinct samples.

    With an error that falls as a power of what is distinct, as learning curves do, one more helps most where
    there are fewest.
    """
    if counts.imbalance_factor < 1.5 and groups is None:
        return ()
    again = repeated(exact)
    needs = []
    for c, name in enumerate(map(str, counts.names)):
        n = int(counts.counts[c])
        of = None if groups is None else groups.per_class[c]
        extra = again.get(name, 0)
        tests = None if test_counts is None else int(test_counts.counts[c])
        why = f"{n:,} training sample{'' if n == 1 else 's'}"
        if of is not None:
            why += f" of {of.groups:,} group{'' if of.groups == 1 else 's'}"
        if extra:
            why += f", {extra:,} of them repeated"
        if tests is not None and tests < facts.THIN:
            why += f", {tests} in the test set"
        needs.append(
            Need(
                name,
                n,
                n - extra,
                None if of is None else of.groups,
                None if of is None else of.new,
                tests,
                why,
            )
        )
    needs.sort(key=lambda need: (need.distinct if need.groups is None else need.groups, need.distinct))
    return tuple(needs[: min(_NEEDS, max(1, len(needs) // 2))])
