"""Your own data as a problem: a table, features, a folder of pictures, or a data set that is known."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from longtail import _arrays, _checks
from longtail.compare import many_labels
from longtail.compare.folds import label_folds, most_folds, small_classes, thin_labels
from longtail.datasets import DATASETS, Dataset, load, long_tail_counts, long_tail_subset
from longtail.evaluation.reading import group_numbers
from longtail.labels import encode
from longtail.sources.arrays import read_arrays
from longtail.sources.frames import Column, Frame, check_label, classes_of, matrix, read_frame

if TYPE_CHECKING:
    from longtail.training.recipe import Recipe

__all__ = ["Problem"]

Array = npt.NDArray[Any]
_LOOK = 10_000  # rows that are looked at before a column is sorted
_FEW = 20  # rows below which values that are all distinct say nothing
# amounts with signs, and days, that nothing reads as numbers
_AMOUNT = re.compile(r"[-+(\u2212]?[$€£¥]?\s*[-+]?[0-9][0-9.,'/: -]*\s*[%$€£¥]?\)?")


@dataclass(frozen=True, eq=False)
class Problem:
    """What methods are compared on. Made by one of the four functions below, not by hand.

    Attributes:
        name: what to call it in tables and folders.
        kind: "table" | "features" | "dataset".
        inputs: floats of shape (N, D); of a category of a table its place in `columns`. None for a data set.
        targets: class indices, int64 of shape (N,); of many labels a sample 0, 1 and -100 where not known,
            int64 of shape (N, L); None for a data set.
        class_names: one a class, in the order of the targets; of many labels one a column.
        columns: of a table, name and kind of each input; empty for features.
        groups: one a sample, int64 of shape (N,), or None: what shares a group is never split.
        test: inputs and targets of a given test set, or None: then the data are cut into folds.
        notes: what was left out, and what to know, a line each.
        tail: of features with a test set, the imbalance and the size of the largest class of the tail that
            each seed cuts out of the training samples; None takes them as they are.
        dataset: the pictures of a folder, or None.
        preset: the recipe of a data set that is known, or None.
        test_groups: one a sample of the given test set, int64, or None: groups count in its intervals, in
            place of samples.

    Example:
        >>> problem = Problem.from_table({"x": [0.1, 0.2, 0.9, 0.8], "y": ["a", "a", "b", "b"]}, label="y")
        >>> problem.class_names, problem.inputs.shape
        (('a', 'b'), (4, 1))
    """

    name: str
    kind: Literal["table", "features", "dataset"]
    inputs: Array | None = None
    targets: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    groups: npt.NDArray[np.int64] | None = None
    test: tuple[Array, npt.NDArray[np.int64]] | None = None
    notes: tuple[str, ...] = ()
    tail: tuple[float, int | None] | None = None
    dataset: Dataset | None = field(default=None, repr=False)
    preset: Recipe | None = field(default=None, repr=False)
    test_groups: npt.NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        if self.dataset is not None or self.targets is None or self.inputs is None:
            return f"Problem({self.name!r}, {self.kind})"
        size = f"{len(self.targets)} rows, {self.inputs.shape[1]} columns"
        labels = f"{len(self.class_names)} {'labels' if self.many_labels else 'classes'}"
        tested = "" if self.test is None else f", {len(self.test[1])} test rows"
        return f"Problem({self.name!r}, {self.kind}: {size}, {labels}{tested})"

    @classmethod
    def from_table(
        cls,
        table: Any,
        label: str | None = None,
        *,
        labels: str | Sequence[str] = (),
        separator: str | None = None,
        groups: str | None = None,
        test: object = None,
        drop: Sequence[str] = (),
        keep: Sequence[str] = (),
        name: str | None = None,
    ) -> Problem:
        """Make a problem of a table.

        Columns that tell rows apart (all values distinct) and columns that repeat the label are left out, and
        named in `notes`; so is a column of one value.

        Args:
            table: a .csv, .tsv or Parquet file, a data frame of pandas or polars, a table of pyarrow, or a
                mapping of columns. pandas Series in a mapping must have their rows in one order.
            label: the column of the class. A column of lists, in memory or in Parquet, holds several labels
                a row, or none.
            labels: in its place, where a row may have several labels or none, their columns of 0 and 1: a
                list, ``"A,B,C"``, or patterns such as ``"is_*"``. An empty field, or -100, is not known.
            separator: what parts several labels in the column `label`, such as ``"|"``. A label with one row
                is left out where folds are cut, and named in `notes`.
            groups: a column whose equal values are never split between training and test, such as a customer.
            test: another such table, which is then the test set; None cuts folds. If it has the groups, too,
                they count in its intervals.
            drop: columns to leave out.
            keep: columns to take in whatever they look like.
            name: what to call it; default: that of the file.

        Returns:
            The problem.

        Raises:
            ValueError: no such column; a label that is constant, continuous or tells rows apart; a class with
                one sample; a test table with other columns or unseen classes; no column left to learn from;
                of many labels, values other than 0 and 1, a label with one value, a separator in no row.
            TypeError: missing labels, or columns of mixed types.
            OSError: a disk without room for a table of more than 2 GiB, which lies in a file below TMPDIR.
        """
        if groups is not None and not isinstance(groups, str):
            raise TypeError(
                f"groups must be the name of a column, got {_checks.describe(groups)}; put them into the "
                "table, as table.assign(group=groups) does, and give that name"
            )
        drop, keep = ([x] if isinstance(x, str) else list(x) for x in (drop, keep))
        where = _Labels.of(label, labels, separator)
        read = read_frame(table, **where.asked, groups=groups, drop=drop, keep=keep)
        source = _called(table)
        together = _numbered("groups", read.groups, len(read))
        more: list[str] = []
        if read.labels.ndim == 2:
            names: Sequence[Any] = read.classes or ()
            targets, _ = many_labels.read("labels", read.labels, names)
            if not where.labels and test is None:
                targets, names, more = _learnable(targets, names, together)
        else:
            classes = classes_of(read.labels, source)
            check_label(str(label), classes, source)
            names = encode(_distinct(classes))[0] if read.classes is None else read.classes
            targets = _known(classes, names)
        _refuse_parts(read, keep, source, tested=test is not None)
        columns, notes = _usable(read, targets, keep, names)
        if not columns:
            raise ValueError(f"{source} has no column to learn {where.called} from; keep=NAME takes one in")
        tested, test_groups = None, None
        if test is not None:
            tested, test_groups = _test_table(test, where, groups, drop, read, columns, names)
            more += _shared(read.groups, test_groups)
        return cls(
            name or _title(table, "table"),
            "table",
            read.of(columns),
            targets,
            tuple(map(str, names)),
            tuple((c.name, c.kind) for c in columns),
            together,
            tested,
            (*notes, *more),
            test_groups=None if tested is None else _numbered("groups", test_groups, len(tested[1])),
        )._checked(source)

    @classmethod
    def from_features(
        cls,
        features: object,
        labels: Any = None,
        *,
        groups: object = None,
        test: tuple[Any, Any] | None = None,
        test_groups: object = None,
        label: str = "y",
        name: str | None = None,
    ) -> Problem:
        """Make a problem of features, such as a pretrained network gives.

        Args:
            features: floats of shape (N, D); or a .npz file with ``X``, ``y`` and, if there are any,
                ``class_names``, ``groups``, ``X_test``, ``y_test`` and ``groups_test``, as ``longtail embed``
                writes it; or a Parquet file with a column of labels and columns of numbers.
            labels: one a sample, of any kind, where `features` is an array; or of many labels a sample rows
                of 0 and 1, shape (N, L), NaN or -100 where not known: an array, a frame, a sparse matrix.
            groups: one a sample: samples of one group are never split between training and test.
            test: features and labels of a test set; None takes that of the file, or cuts folds.
            test_groups: one a sample of the test set: its intervals then count groups, not samples.
            label: the column of the labels in a Parquet file.
            name: what to call it; default: that of the file.

        Returns:
            The problem.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: NaN or infinite features, features and labels of different lengths, a label that is
                constant, continuous or tells samples apart, a class with one sample, unseen classes in the
                test set, a file without these arrays; of many labels, as `from_table`.
            TypeError: features that are no numbers; missing or mixed labels.
        """
        names_given: tuple[str, ...] = ()
        called = "features", "labels"  # in messages; the command line has options of these names
        if isinstance(features, str | os.PathLike):
            if labels is not None:
                raise ValueError(
                    "labels= is given beside a file of features, which holds them; leave one out"
                )
            called = "X", label
            arrays = read_arrays(os.fspath(features), label)
            name = name or _title(features, "features")
            features, labels = arrays["X"], arrays["y"]
            groups = arrays.get("groups") if groups is None else groups
            names_given = tuple(_arrays.one_form(str(n)) for n in arrays.get("class_names", ()))
            if test is None and "X_test" in arrays:
                test = (arrays["X_test"], arrays["y_test"])
                test_groups = arrays.get("groups_test") if test_groups is None else test_groups
        elif labels is None:
            raise ValueError("labels are missing; give one a sample: Problem.from_features(features, labels)")
        _arrays.check_index({"features": features, "labels": labels, "groups": groups})
        inputs = _features(called[0], features)
        y = _array(called[1], labels)
        if y.shape[:1] != (len(inputs),):
            raise ValueError(
                f"{called[1]} must be one a sample, {len(inputs)} as {called[0]} has, got {(*y.shape, 0)[0]}"
            )
        places: Sequence[Any] | None = None  # of the classes that test labels name; of many labels none
        if len(y.shape) == 2:
            targets, names = many_labels.read(called[1], y)
            if names_given and len(names_given) != len(names):
                raise ValueError(
                    f"class_names must be {len(names)}, one a column of labels, got {len(names_given)}"
                )
            names = names_given or names
        else:
            y = classes_of(np.asarray(y), "the labels")
            check_label("y", y, "the features")
            places, codes = encode(y)
            if names_given:
                names, places = names_given, _places(y, places, names_given)
                targets = _known(y, places)
                used = np.bincount(targets, minlength=len(names))
                if empty := [n for n, size in zip(names, used, strict=True) if not size]:
                    raise ValueError(
                        f"classes {_checks.shorten(empty)} have no training sample; leave them out"
                    )
            else:
                names, targets = tuple(map(str, places)), codes.astype(np.int64)
        tested = None
        if test is not None:
            beside = {"test features": test[0], "test labels": test[1], "test_groups": test_groups}
            _arrays.check_index(beside)
            x = _features("test features" if called[0] == "features" else "X_test", test[0])
            if x.shape[1] != inputs.shape[1]:
                raise ValueError(
                    f"test features have {x.shape[1]} columns and features {inputs.shape[1]}; make both alike"
                )
            if places is None:
                t = many_labels.read("test labels", _array("test labels", test[1]))[0]
                if t.shape[1] != len(names):
                    raise ValueError(
                        f"test labels have {t.shape[1]} columns and labels {len(names)}; make both alike"
                    )
            else:
                t = np.asarray(_array("test labels", test[1]))
                if t.ndim != 1:
                    raise ValueError(f"test labels must be one a sample, as labels are, got shape {t.shape}")
                t = _known(classes_of(t, "the test labels"), places)
            if len(t) != len(x):
                raise ValueError(f"test labels must be one a sample, {len(x)}, got {len(t)}")
            tested = (x, t)
        if tested is None and test_groups is not None:
            raise ValueError("test_groups is given without a test set; give test=, or leave it out")
        together = _numbered("groups", groups, len(inputs))
        held = None if tested is None else _numbered("test_groups", test_groups, len(tested[1]))
        notes = tuple(_shared(groups, test_groups))
        return cls(
            *(name or "features", "features", inputs, targets, names, (), together, tested, notes),
            test_groups=held,
        )._checked("the features")

    @classmethod
    def from_images(
        cls,
        source: Any,
        features: Any = None,
        *,
        image: str | None = None,
        label: str | None = None,
        root: str | os.PathLike[str] | None = None,
        groups: str | None = None,
        groups_from: str | None = None,
        name: str | None = None,
        on_error: str = "raise",
        **options: Any,
    ) -> Problem:
        """Make a problem of pictures.

        Args:
            source: a folder with a folder a class, a list, a table of files and labels, or a Hugging Face
                data set, as for `longtail.datasets.load_images`; train and test parts are found as
                everywhere.
            features: a model whose features of the pictures are compared, as for ``longtail embed``; None
                takes the pictures themselves at 32 x 32 pixels.
            image: of a table or data set, the column of the pictures; None takes one of a usual name.
            label: the column of the class, likewise.
            root: of a table or list, the folder below which the pictures lie; None is the file's own.
            groups: of a table or data set, a column whose equal values are never split, such as a patient;
                intervals of the test error count groups.
            groups_from: in its place a regular expression that finds the group in a picture's path.
            name: what to call it; default: that of the folder or file.
            on_error: "skip" leaves out pictures that cannot be read, in place of naming them all.
            **options: further arguments of `longtail.embed`, such as ``pooling``.

        Returns:
            The problem.

        Raises:
            ValueError: as the reader of folders, and `from_features`.
        """
        title = name or _of_pictures(source)
        columns: dict[str, Any] = {"image": image, "label": label, "root": root}
        columns |= {"groups": groups, "groups_from": groups_from}
        if features is None:
            from longtail.datasets.images import in_memory, load_images
            from longtail.training import recipes

            if told := [key for key, value in options.items() if value is not None]:
                raise ValueError(f"{told[0]} is for features of pictures; name a model by features=")
            title += "-folder" * (title in DATASETS)  # not to be taken for the data set of that name
            data = in_memory(*load_images(source, **columns), 32, name=title, on_error=on_error)
            preset = recipes.small_images(title)
            # where the test data have a tail, plain error rises by design with what lifts the rare classes
            tested = np.bincount(data.test.targets, minlength=data.num_classes)
            if tested.min() != tested.max():
                preset = preset.replace(metric="balanced_error")
            return cls(title, "dataset", dataset=data, preset=preset)
        from longtail.training.embedding import embed

        made = embed(source, features, on_error=on_error, **columns, **options)
        test = None if made.X_test is None else (made.X_test, made.y_test)
        found = cls.from_features(
            made.X, made.y, groups=made.groups, test=test, test_groups=made.groups_test, name=title
        )
        return replace(found, class_names=tuple(made.class_names))

    @classmethod
    def from_dataset(cls, name: str, imbalance_factor: float | None = 50.0, **changes: Any) -> Problem:
        """Make a problem of a data set that longtail knows, with the recipe that its name stands for.

        Args:
            name: "digits", "cifar10", "cifar20", "cifar100", "gtsrb", or what an application adds.
            imbalance_factor: largest over smallest class of the tail that is cut; None takes all samples.
            **changes: other fields of the recipe, such as ``epochs``.

        Returns:
            The problem.

        Raises:
            ValueError: no such data set, or a field that recipes do not have.
        """
        from longtail.training import recipes

        preset = recipes.default(_checks.choice("dataset", name, DATASETS.names))
        if "epochs" in changes:
            preset = preset.with_epochs(changes.pop("epochs"))
        preset = preset.replace(imbalance_factor=imbalance_factor, **changes)
        return cls(name, "dataset", preset=preset)

    # ---- what it is asked for

    @property
    def many_labels(self) -> bool:
        """Whether a sample may have several labels or none."""
        return self.targets is not None and self.targets.ndim == 2

    @cached_property
    def strata(self) -> npt.NDArray[np.int64]:
        """What folds are stratified by: the class, or the rarest label of each sample; int64 (N,)."""
        assert self.targets is not None
        return many_labels.strata(self.targets) if self.many_labels else self.targets

    @property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Samples of every class, the test set not counted; of many labels those that have each."""
        if self.targets is None:
            return (self.dataset or load(self.name)).class_counts
        if self.many_labels:
            return np.asarray((self.targets == 1).sum(axis=0), dtype=np.int64)
        return np.bincount(self.targets, minlength=len(self.class_names)).astype(np.int64)

    @cached_property
    def about(self) -> dict[str, object]:
        """What tells these data from others, as a run's environment.json keeps it."""
        assert self.inputs is not None
        assert self.targets is not None
        test = (self.inputs[:0], self.targets[:0]) if self.test is None else self.test
        shape = list(self.inputs.shape[1:])
        found: dict[str, object] = {
            "inputs": {"kind": "vectors", "shape": shape, "dtype": self.inputs.dtype.name},
            "class_names": list(self.class_names),
            "class_counts": self.class_counts.tolist(),
            "train_sha256": sha256(self.inputs, self.targets.astype("<i8")),
            "test_sha256": sha256(test[0], test[1].astype("<i8")),
        }
        if self.many_labels:
            found["num_samples"] = len(self.targets)
        if self.columns:
            found["columns"] = [list(column) for column in self.columns]
        if self.test_groups is not None:
            found["test_groups_sha256"] = sha256(self.test_groups.astype("<i8"))
        return found

    def long_tailed(self, imbalance_factor: float, max_count: int | None = None) -> Problem:
        """Return these features with a long tail cut out of the training samples, another one for each seed.

        Args:
            imbalance_factor: largest over smallest class.
            max_count: samples of the largest class; default: as many as the smallest class has.

        Raises:
            ValueError: no test set, or a class with fewer samples than the tail has.
        """
        if self.kind != "features" or self.test is None:
            raise ValueError(
                "a long tail is cut out of features with a test set, or of a data set"
                "; leave imbalance_factor out, or give features with a test set"
            )
        if self.many_labels:
            raise ValueError(
                "a long tail is cut out of classes, and these samples have many labels; leave "
                "imbalance_factor out"
            )
        assert self.targets is not None
        largest = int(self.class_counts.min()) if max_count is None else max_count
        long_tail_subset(
            self.targets, long_tail_counts(len(self.class_names), largest, imbalance_factor), seed=0
        )
        return replace(self, tail=(imbalance_factor, max_count))

    def folds(self, folds: int | None = None) -> int:
        """Return into how many folds the data are cut; 0 where a test set is given.

        Raises:
            ValueError: more than the smallest class has samples or groups, or any beside a test set.
        """
        assert self.targets is not None
        if self.test is not None:
            if folds is not None:
                raise ValueError(
                    f"folds={folds} is given beside a test set, which is used as it is"
                    "; leave one of the two out"
                )
            return 0
        if self.many_labels:
            return label_folds(self.strata, self.groups, folds)
        return most_folds(self.targets, self.groups, self.class_names, folds)

    def _checked(self, source: str) -> Problem:
        """Find what would end a comparison later; note what is good to know."""
        assert self.targets is not None
        more: list[str] = []
        if self.many_labels:
            more = many_labels.check(
                self.targets,
                self.class_names,
                kind=self.kind,
                source=source,
                groups=self.groups,
                tested=self.test is not None,
            )
        if self.test is not None:
            classes = self.test[1]
            tested = (classes == 1).any(axis=0)
            if not self.many_labels:
                tested = np.bincount(classes, minlength=len(self.class_names)) > 0
            away = [n for n, there in zip(self.class_names, tested, strict=True) if not there]
            what = "positive" if self.many_labels else "sample"
            more += [f"the test set has no {what} of {_checks.shorten(away)}: n/a"] * bool(away)
        elif self.many_labels:
            more += thin_labels(self.targets == 1, self.strata, self.groups, self.class_names, self.folds())
        else:
            more = small_classes(self.targets, self.groups, self.class_names, self.folds())
        return replace(self, notes=(*self.notes, *more))


@dataclass(frozen=True)
class _Labels:
    """Where a table has its labels: in one column, in one that is parted, or in several."""

    label: str | None
    labels: tuple[str, ...] = ()
    separator: str | None = None

    @classmethod
    def of(cls, label: object, labels: str | Sequence[str], separator: str | None) -> _Labels:
        """Check what is asked for.

        Raises:
            ValueError: nothing, or too much.
            TypeError: several columns as `label`.
        """
        if label is not None and not isinstance(label, str):
            remedy = "put it into the table, and give its name"
            told = _checks.describe(label)
            if isinstance(label, list | tuple) and len(label) < _FEW:
                told, remedy = repr(label), f"several are labels={[str(x) for x in label]!r}"
            elif isinstance(label, int):
                remedy = f"names are text here: label={str(label)!r}"
            raise TypeError(f"label must be the name of one column, got {told}; {remedy}")
        several = tuple(_checks.listed(labels) if labels and isinstance(labels, str) else map(str, labels))
        if several and (label is not None or separator is not None):
            other = "label" if label is not None else "separator"
            raise ValueError(f"labels={','.join(several)!r} and {other} are given; leave one of them out")
        if label is None and not several:
            what = "label" if separator is None else "separator"
            raise ValueError(
                f"{what} needs the column of the labels; give label='NAME', or labels='A,B' for columns of 0 "
                "and 1"
            )
        return cls(label, several, separator)

    @property
    def asked(self) -> dict[str, Any]:
        """The same as arguments of `read_frame`."""
        return {"label": self.label, "labels": self.labels, "separator": self.separator}

    @property
    def called(self) -> str:
        """The column, or columns, in a message."""
        return repr(self.label) if self.label is not None else _checks.shorten(self.labels)


def _learnable(
    targets: npt.NDArray[np.int64], names: Sequence[Any], groups: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.int64], Sequence[Any], list[str]]:
    """Leave out the labels that folds cannot both learn and test; their rows stay."""
    alone = many_labels.alone(targets, groups)
    if not alone.any() or (~alone).sum() < 2:
        return targets, names, []  # what is left is refused with its reason
    left = [n for n, out in zip(names, alone, strict=True) if out]
    where = "one row" if groups is None else "one row, or all rows in one group"
    note = (
        f"left out: {len(left)} of {len(names)} labels with {where}, {_checks.shorten(left)}; their rows stay"
    )
    return targets[:, ~alone], [n for n, out in zip(names, alone, strict=True) if not out], [note]


def _array(name: str, labels: Any) -> Any:
    """Return labels as something with a shape."""
    if hasattr(labels, "shape"):
        return labels
    try:
        return np.asarray(labels)
    except ValueError as error:
        raise ValueError(
            f"{name} are rows of different lengths; one column a label, of 0 and 1, is made by "
            "sklearn.preprocessing.MultiLabelBinarizer().fit_transform(labels)"
        ) from error


def sha256(*arrays: Array) -> str:
    """Return the hash of some arrays' bytes; large ones are read in parts."""
    digest = hashlib.sha256()
    for array in arrays:
        rows = max(1, (1 << 24) // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).data)
    return digest.hexdigest()


def _title(source: object, default: str) -> str:
    if not isinstance(source, str | os.PathLike):
        return default
    title = Path(source).name.removesuffix(".gz").rpartition(".")[0] or default
    return title + f"-{default}" * (title in DATASETS)  # not to be taken for the data set of that name


def _of_pictures(source: Any) -> str:
    """Return the name of a folder, a file or a data set of pictures."""
    if not isinstance(source, str | os.PathLike):
        return "pictures"
    name = os.fspath(source)
    if name.startswith("hf:"):
        return name[3:].replace("/", "-")
    path = Path(name).resolve()
    return path.name if path.is_dir() else _title(path, "pictures")


def _called(source: Any) -> str:
    return repr(str(source)) if isinstance(source, str | os.PathLike) else "the table"


def _features(name: str, given: object) -> Array:
    if hasattr(given, "toarray"):
        raise TypeError(f"{name} must be dense, got {type(given).__name__}; give {name}.toarray()")
    array = given if isinstance(given, np.ndarray) else _arrays.as_numpy(name, given)
    if array.dtype.kind not in "biuf" or array.ndim != 2:
        many = "; give a row a sample, X.reshape(len(X), -1)" if array.ndim > 2 else ""
        raise TypeError(f"{name} must be numbers of shape (N, D), got {_checks.describe(array)}{many}")
    rows = max(1, (1 << 24) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):  # a file larger than memory is looked at in parts
        part = array[start : start + rows]
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            at = start + int(np.argmin(np.isfinite(part).all(axis=1)))
            raise ValueError(f"{name} hold NaN or infinity, first in row {at}; mend or leave out such rows")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _repeated(codes: npt.NDArray[Any], truth: npt.NDArray[np.int64]) -> int | None:
    """Return the first label that two values of a column tell, wherever it is known."""
    known = truth != many_labels.LEFT_OUT
    for wanted in (codes, 1 - codes):
        if (same := ((truth == wanted[:, np.newaxis]) | ~known).all(axis=0)).any():
            return int(same.argmax())
    return None


def _usable(
    read: Frame, targets: npt.NDArray[np.int64], keep: Sequence[str], names: Sequence[Any]
) -> tuple[list[Column], list[str]]:
    """Leave out what tells rows apart, repeats the label or says nothing."""
    columns, notes = [], []
    each = targets
    if targets.ndim == 2:  # a column may repeat all labels of its rows, or one of them
        targets = np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)
    classes = len(np.unique(targets))
    for column in read.columns:
        if column.index and column.name not in keep:
            notes.append(
                f"left out: {column.name!r} is the numbering of rows that pandas writes "
                f"(keep={column.name!r} takes it in)"
            )
            continue
        start = column.values[:_LOOK]
        seen = len(np.unique(start))  # NaN once
        if seen > max(classes, 2) and (not column.whole or seen < len(start)):
            columns.append(column)  # more values than classes, and a value twice, or fractions
            continue
        values = np.where(np.isnan(column.values), np.inf, column.values)  # missing is a value here
        distinct, codes = np.unique(values, return_inverse=True)
        pairs = len(np.unique(codes.reshape(-1) * np.int64(classes) + targets))
        why = ""
        if len(distinct) == 1:
            why = "has one value"
        elif column.whole and len(distinct) == len(targets) >= _FEW:
            why = "is an identifier: every row has another value"
            if _like_numbers(column):
                why = f"is text in which every row has another value, such as {_odd_one(column)!r}"
        elif pairs == len(distinct) == classes:
            why = "repeats the label: each of its values goes with one class"
        elif (
            each.ndim == 2 and len(distinct) == 2 and (same := _repeated(codes.reshape(-1), each)) is not None
        ):
            why = f"repeats label {names[same]!r}"
        if why and column.name not in keep:
            notes.append(f"left out: {column.name!r} {why} (keep={column.name!r} takes it in)")
        else:
            columns.append(column)
    if odd := [c for c in columns if c.name not in keep and _like_numbers(c)]:
        shown = ", ".join(f"{c.name!r} ({_odd_one(c)!r})" for c in odd[:3])
        several = len(odd) > 1
        shown += ", ..." * (len(odd) > 3)
        notes.append(
            f"{shown} {'are' if several else 'is'} text and taken as categories; of "
            "amounts write plain numbers (1234.5), of days 2020-01-31, and nothing where there is none; "
            f"keep={odd[0].name!r}{' and so on' * several} if categories are meant"
        )
    return columns, notes


def _refuse_parts(read: Frame, keep: Sequence[str], source: str, tested: bool) -> None:
    """Refuse a column that says which rows are for testing: folds would mix them, and learn from it."""
    for column in read.columns:
        if column.name not in keep and (said := column.parts) is not None:
            ours, theirs = said
            how = "" if tested else "write the test rows into a table of their own, given by test=, and "
            raise ValueError(
                f"column {column.name!r} of {source} says which rows are for training and which for testing "
                f"({ours!r}, {theirs!r}), and is no input; {how}leave the column out by "
                f"drop={column.name!r}, or take it in by keep={column.name!r}"
            )


def _like_numbers(column: Column) -> bool:
    """Whether a category holds many texts that mostly look like amounts or days: '12.3 %', '31.01.2020'."""
    texts = column.categories
    alike = sum(map(bool, map(_AMOUNT.fullmatch, texts)))
    return len(texts) > _FEW and alike >= 0.8 * len(texts) and not all(map(str.isdigit, texts))


def _odd_one(column: Column) -> str:
    """Return the first text that is no number, which is why the column is a category."""
    return next((x for x in column.categories if not _arrays.NUMBER.fullmatch(x)), column.categories[0])


def _distinct(labels: Array) -> Array:
    """Return labels of text each once, where sorting all rows of a long table would take minutes."""
    if labels.dtype.kind != "O":
        return labels
    found = np.empty(len(once := {*labels.tolist()}), dtype=object)
    found[:] = list(once)
    return found


def _places(y: Array, found: Sequence[Any], names: Sequence[str]) -> Sequence[Any]:
    """Return what labels say for each of the class names: its number from 0 on, or the name itself."""
    if y.dtype.kind in "iu" and y.min() >= 0 and y.max() < len(names):
        return range(len(names))
    told = {str(label): label for label in found}
    if not told.keys() <= {*names}:
        raise ValueError(
            f"class_names {_checks.shorten(names)} do not fit the labels {_checks.shorten(found)}; number "
            "the classes from 0 as the names stand, or leave class_names out"
        )
    return [told.get(name) for name in names]


def _known(labels: Array, names: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return the places of test labels among the classes."""
    places = {name: i for i, name in enumerate(names)}
    values = labels.tolist()
    unseen = sorted({str(v) for v in {*values} if v not in places})
    if unseen and {*unseen} <= {*map(str, names)}:
        raise ValueError(
            f"the test set's labels are of another type than the training set's, such as {values[0]!r} "
            f"beside {names[0]!r}; make both alike"
        )
    if unseen:
        raise ValueError(
            f"the test set has classes without a training sample: {_checks.shorten(unseen)}"
            + (
                f"; those of training are {_checks.shorten(map(str, names))}: write them alike"
                if len(unseen) == len({*values})
                else "; leave these rows out of it"
            )
        )
    return np.fromiter((places[v] for v in values), np.int64, len(values))


def _test_table(
    test: Any,
    where: _Labels,
    groups: str | None,
    drop: Sequence[str],
    train: Frame,
    columns: Sequence[Column],
    names: Sequence[Any],
) -> tuple[tuple[Array, npt.NDArray[np.int64]], Array | None]:
    """Read the test table as the training table was read; its groups, too, if it has them."""
    source = _called(test)
    asked = where.asked | ({"labels": tuple(map(str, names))} if where.labels else {})
    read = read_frame(test, **asked, groups=groups, drop=drop, like=train)
    there = {c.name: c for c in read.columns}
    ours = {c.name for c in train.columns}
    if away := [c.name for c in columns if c.name not in there]:
        raise ValueError(f"{source} lacks columns of the training table: {_checks.shorten(away)}; add them")
    extra = [n for n, c in there.items() if n not in ours and n not in drop and not c.index]
    if extra:
        raise ValueError(
            f"{source} has columns that the training table has not: {_checks.shorten(extra)}; leave them out"
        )
    parts = matrix(len(read), len(columns))
    for at, column in enumerate(columns):
        other = there[column.name]
        if other.kind != column.kind and not np.isnan(other.values).all():
            raise ValueError(
                f"column {column.name!r} holds a {column.kind} in the training table and a {other.kind} in "
                f"{source}; make both alike"
            )
        if {column.mark, other.mark} == {",", "."}:
            named = {",": "commas", ".": "points"}
            raise ValueError(
                f"column {column.name!r} has decimal {named[column.mark]} in the training table and "
                f"{named[other.mark]} in {source}; write both alike"
            )
        values = other.values
        if column.kind == "category" and other.categories:
            places = {text: i for i, text in enumerate(column.categories)}
            new = len(places)  # what training has not seen; learners know what to do with it
            codes = np.asarray([places.get(text, new) for text in other.categories], dtype=np.float64)
            known = ~np.isnan(values)
            values = np.full(len(values), np.nan)
            values[known] = codes[other.values[known].astype(np.int64)]
        parts[:, at] = values
    if (read.labels.ndim == 2) != (train.labels.ndim == 2):
        raise ValueError(
            f"label {where.label!r} holds lists in one of the training table and {source}; make both alike"
        )
    if read.labels.ndim == 2:
        truth = many_labels.read("labels", read.labels, read.classes)[0]
        if not where.labels:
            truth = _in_order(truth, read.classes or (), names)
        return (parts, truth), read.groups
    labels = classes_of(read.labels, source)
    if train.labels.dtype.kind in "UO" and labels.dtype.kind in "iuf":
        labels = labels.astype(str)
    return (parts, _known(labels, names)), read.groups


def _numbered(name: str, groups: object, samples: int) -> npt.NDArray[np.int64] | None:
    return None if groups is None else group_numbers(groups, samples, name)


def _shared(groups: Any, tested: Any) -> list[str]:
    if groups is None or tested is None:
        return []
    ours, theirs = ({*map(str, _arrays.group_ids("groups", x, len(x)))} for x in (groups, tested))
    shared = ours & theirs
    if not shared:
        return []
    what = f"{len(shared)} groups are" if len(shared) > 1 else "1 group is"
    return [
        f"{what} in both training and test, such as {min(shared)!r}: test errors look better than they are"
    ]


def _in_order(
    truth: npt.NDArray[np.int64], theirs: Sequence[Any], names: Sequence[Any]
) -> npt.NDArray[np.int64]:
    """Return a test table's labels in the order of the training table's."""
    places = {name: i for i, name in enumerate(names)}
    if unseen := [name for name in theirs if name not in places]:
        raise ValueError(
            f"the test set has labels without a training row: {_checks.shorten(unseen)}; take them out of it"
        )
    found = np.zeros((len(truth), len(names)), dtype=np.int64)
    found[:, [places[name] for name in theirs]] = truth
    return found
