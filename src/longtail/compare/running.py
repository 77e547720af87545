"""The main job: train with and without class balancing over several seeds, and say honestly what it did."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longtail import _checks
from longtail.compare.columns import GROUPS, every_column, named, usual_metric
from longtail.compare.learners import DEFAULT, learner, missing_part
from longtail.compare.many_labels import without_form
from longtail.compare.outcome import Outcome
from longtail.compare.problem import Problem
from longtail.compare.row import Row
from longtail.compare.table import LOSSES, ComparisonTable
from longtail.compare.trials import WAIT, jobs_for, run_training, versions
from longtail.datasets import DATASETS, Dataset, load, long_tail_counts
from longtail.evaluation.reading import Classes
from longtail.methods import Method, catalogue
from longtail.methods.synthesis import needs_imbalanced_learn
from longtail.training.files import InUseError, in_parallel, locked, write_atomic
from longtail.training.recipe import Recipe
from longtail.weights import SCHEMES

__all__ = [
    *("LABELS", "LABEL_HEADS", "MAIN", "TABLES", "AfterRun", "compare", "estimate", "key"),
    *("left_out", "prepare", "usual_methods", "with_betas"),
]

AfterRun = Callable[[int, int, Outcome], None]

_SEEDS = 5
# parts of a seed's heads: how many at most, multiplications a sample of each at least, and what a tuned
# adjustment trains more, in heads
_PARTS, _PART, _INNER = 4, 1 << 17, 4
_LARGE = 1 << 30  # bytes of features from which it matters who holds them all
_MANY = 100_000  # steps of training from which their time is worth a word
# of features
HEADS = ("linear", "mlp")
# of a table: what a learner without epochs can do
TABLES = (
    *("plain", "inverse_sqrt", "inverse", "effective", "oversampling", "undersampling"),
    *("posthoc_logit_adjusted", "tuned_adjustment"),
)
# of many labels a sample, whatever is compared on: the plain loss, and weights of the positives
LABELS = (
    *("plain", "inverse_sqrt:weighting=positive", "inverse:weighting=positive"),
    *("effective:weighting=positive", "effective"),
)
# and of heads on features the losses that are made for many labels
LABEL_HEADS = (*LABELS, "plain:loss=focal", "asymmetric", "distribution_balanced")
# of the main job: no balancing, the paper's weights, and the simplest of what has been published since
MAIN = (
    *("plain", "inverse", "effective", "plain:loss=focal", "inverse:loss=focal", "effective:loss=focal"),
    *("deferred_effective", "logit_adjusted", "posthoc_logit_adjusted", "ldam_drw", "class_aware"),
)


def compare(
    recipe: Recipe | Problem,
    methods: Sequence[Method | str] | None = None,
    *,
    losses: Sequence[str] | None = None,
    schemes: Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    learners: str | Sequence[str] | None = None,
    metric: str | None = None,
    folds: int | None = None,
    repeats: int = 5,
    dataset: Dataset | None = None,
    out: str | os.PathLike[str] = "runs/compare",
    jobs: int | None = None,
    device: str = "auto",
    progress: AfterRun | None = None,
) -> ComparisonTable:
    """Train methods over several seeds, and set them side by side.

    The seed chooses the long-tailed subset, the initial weights and the order of the batches, the same
    for all methods, so that differences between methods are paired. Finished runs are kept: the same call
    goes on where it was stopped. A run that fails is reported and the others go on.

    Args:
        recipe: what all runs share; its method and seed are replaced. Or a `Problem`: your own table or
            features.
        methods: names of `longtail.methods.NAMES`, such as "effective:loss=focal", or methods of your own;
            default: `MAIN`, and of a problem `usual_methods`. Of many labels a sample, names are taken with
            the sigmoid loss. Where a name says no beta or gamma, the recipe's counts. Methods that differ in
            what they do after training share one run of it.
        losses: in place of methods, every loss of these with every scheme: any of "softmax", "sigmoid",
            "focal", "softmax_focal"; None with schemes: the first three.
        schemes: any of "none", "inverse", "inverse_sqrt", "effective"; None with losses: all.
        seeds: how many (0, 1, ...), or which; None: five. Of a problem that is cut into folds, repeats take
            their place, and of a table with a test set one run.
        learners: of a table: names of `longtail.compare.LEARNERS`; default "hist_gradient_boosting". Of
            features: "linear" (the default) or "mlp". Of a table of many labels, where each learns one label
            at a time, "logistic_regression" is the default.
        metric: what decides: a column of the table; default: "error" of a recipe, "balanced_error" of a
            problem, "macro_average_precision" of many labels.
        folds: of a problem without a test set; default: min(5, samples of the smallest class), of many labels
            five.
        repeats: how often the folds are shuffled and run.
        dataset: the data that the recipe names, if they are none of longtail's own.
        out: folder for the runs and for compare.json and compare.csv.
        jobs: runs at a time, in processes; default: one per available core on a CPU, and of a large table
            as many as memory holds. A joblib backend chosen by the caller (``joblib.parallel_config``), such
            as Dask's or Ray's, is used.
        device: "auto" | "cpu" | "cuda".
        progress: called after each run as ``progress(done, total, outcome)``.

    Returns:
        The table, with everything computed.

    Raises:
        ValueError: no method, loss, scheme or seed, or unknown ones; a folder with runs of another recipe;
            data that are unknown or too few for the recipe's tail.
        OSError: ``out`` cannot be written, or the data are not there.

    Source: the comparison of Cui et al. (CVPR 2019), Table 2, with the seeds and spread that it lacks.
    """
    shared, chosen = prepare(
        recipe,
        methods,
        losses=losses,
        schemes=schemes,
        seeds=seeds,
        device=device,
        learners=learners,
        metric=metric,
        folds=folds,
        repeats=repeats,
    )
    problem = recipe if isinstance(recipe, Problem) else None
    if problem is not None and problem.kind == "dataset":
        dataset = problem.dataset
    folder = Path(out)
    runs = [(one, one.replace(seed=seed)) for seed in chosen for one in shared]
    slugs = Counter(m.slug for m in {one.method for one in shared})
    # methods that differ in a number alone have one slug
    names = [
        m.slug if slugs[m.slug] == 1 else f"{m.slug}-{m.short_hash}" for m in (one.method for one, _ in runs)
    ]
    recipes = [r for _, r in runs]
    several = len({r.model for r in recipes}) > 1
    places = [
        folder / Path(*[r.model] * several) / name / f"{'fold' if r.folds else 'seed'}{r.seed}"
        for name, r in zip(names, recipes, strict=True)
    ]
    for r, place in zip(recipes, places, strict=True):
        _refuse_other_recipe(r, place, folder)
    if problem is not None and _own(problem):
        problem.about  # noqa: B018  (its hash is computed here, once, and goes to the workers)
    if not all((place / "evaluation.json").is_file() for place in places) and not _own(problem):
        _check_data(shared[0], dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"out={str(out)!r} cannot be made a folder ({error.strerror}); choose another"
        ) from error
    if problem is not None and problem.kind == "table":
        outcomes = list(_run_table(problem, recipes, places, jobs, progress))
    elif problem is not None and problem.kind == "features":
        outcomes = list(_run_features(problem, recipes, places, jobs, device, progress))
    else:
        outcomes = list(_run_all(recipes, places, dataset, jobs, device, progress))
    order = {place: i for i, place in enumerate(places)}
    outcomes.sort(key=lambda o: order[o.folder])
    rows = []
    for one in shared:
        mine = [
            o
            for o in outcomes
            if o.evaluation and o.recipe.method == one.method and o.recipe.model == one.model
        ]
        rows.append(Row(one, tuple(sorted(mine, key=lambda o: o.recipe.seed))))
    failures = tuple(o for o in outcomes if o.failure)
    table = ComparisonTable(recipes[0], tuple(rows), failures, folder)
    write_atomic(folder / "compare.json", (json.dumps(table.to_dict(), indent=2) + "\n").encode())
    write_atomic(folder / "compare.csv", table.to_csv().encode())
    if failures and not any(row.outcomes for row in rows):
        raise RuntimeError(
            f"all {len(failures)} runs failed, the first in {failures[0].folder}: {failures[0].failure}"
            "; mend that and start again: finished runs are kept"
        )
    return table


def prepare(
    recipe: Recipe | Problem,
    methods: Sequence[Method | str] | None = None,
    *,
    losses: Sequence[str] | None = None,
    schemes: Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    device: str = "auto",
    learners: str | Sequence[str] | None = None,
    metric: str | None = None,
    folds: int | None = None,
    repeats: int = 5,
) -> tuple[list[Recipe], list[int]]:
    """Check what `compare` is asked for, before anything starts; return one recipe a method, and the seeds.

    Raises:
        ValueError: no method, loss, scheme or seed, an unknown one, one named twice, or an unknown device.
        TypeError: a name in place of a list of names, or what is no method.
    """
    if not isinstance(recipe, Problem | Recipe):
        raise TypeError(
            f"recipe must be a Problem or a Recipe, got {_checks.describe(recipe)}; Problem.from_table, "
            "from_features, from_images and from_dataset make one of your data"
        )
    if device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        _checks.choice("device", device, ("auto", "cpu", "cuda"))
    if metric is not None:
        named(metric, isinstance(recipe, Problem) and recipe.many_labels)
    if isinstance(recipe, Problem) and recipe.kind != "dataset":
        if losses is not None or schemes is not None:
            raise ValueError("losses= and schemes= are axes of a training by epochs; give methods=")
        metric = metric or (usual_metric(True) if recipe.many_labels else "balanced_error")
        _refuse_empty(metric, recipe)
        return _prepared(recipe, methods, seeds, learners, metric, folds, repeats)
    if isinstance(recipe, Problem):
        assert recipe.preset is not None
        recipe = recipe.preset
    for name, value in (("learners", learners), ("folds", folds)):
        if value is not None:
            raise ValueError(
                f"{name}={value!r} is for tables and features; leave it out for {recipe.dataset!r}"
            )
    if metric is not None:
        recipe = recipe.replace(metric=metric)
    if losses is not None or schemes is not None:
        if methods is not None:
            raise ValueError("methods= is given beside losses= or schemes=; leave one of the two out")
        axes = (
            ("losses", LOSSES if losses is None else losses),
            ("schemes", SCHEMES if schemes is None else schemes),
        )
        pairs = itertools.product(*(_distinct(name, values) for name, values in axes))
        return [recipe.replace(loss=loss, scheme=scheme) for loss, scheme in pairs], _seeds(seeds)
    chosen = _chosen(MAIN if methods is None else methods, recipe)
    recipes = [recipe.replace(method=method) for method in chosen]
    for method in (made.method for made in recipes):
        method.refuse_synthesis(f"dataset {recipe.dataset!r}")
        if method.is_tuned:
            raise ValueError(
                f"method {method.label!r} chooses by held-out predictions, which this training does not "
                "make; compare it on a table or on features, or use longtail.tune_adjustment"
            )
    return recipes, _seeds(seeds)


def _chosen(methods: Sequence[Method | str], recipe: Recipe) -> list[Method]:
    if isinstance(methods, str):
        raise TypeError(f"methods must be a list, got {methods!r}; write [{methods!r}]")
    chosen = [_named(method, recipe) if isinstance(method, str) else method for method in methods]
    if not chosen or len(set(chosen)) != len(chosen):
        names = [getattr(method, "label", method) for method in chosen]
        twice = [str(name) for name, method in zip(names, chosen, strict=True) if chosen.count(method) > 1]
        which = f": {', '.join(twice)} do the same" if twice else ""
        raise ValueError(f"methods must name at least one, each once, got {names}{which}")
    return chosen


def _prepared(
    problem: Problem,
    methods: Sequence[Method | str] | None,
    seeds: int | Sequence[int] | None,
    learners: str | Sequence[str] | None,
    metric: str,
    folds: int | None,
    repeats: int,
) -> tuple[list[Recipe], list[int]]:
    """What `prepare` returns of a table: a recipe a learner and method, and the numbers of the runs."""
    many = problem.many_labels
    usual = HEADS[0] if problem.kind == "features" else "logistic_regression" if many else DEFAULT
    names = [usual] if learners is None else [learners] if isinstance(learners, str) else list(learners)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"learners must name at least one, each once, got {names}")
    cut = problem.folds(folds)
    if seeds is not None and (cut or problem.kind == "table"):
        remedy = (
            "give repeats=N in their place" if cut else "a table is learned once where a test set is given"
        )
        raise ValueError(f"seeds={seeds!r} is given for {cut or 'no'} folds; leave it out: {remedy}")
    repeats = _checks.integer("repeats", repeats, low=1, remedy="five are usual")
    if problem.kind == "features":
        for name in names:
            _checks.choice("learner of features", name, HEADS)
        starts = [_head_recipe(problem, name, metric, cut) for name in names]
        chosen = _of_problem(problem, methods, starts[0])
        for m in chosen:
            if (m.is_tuned or m.synthesis) and (m.mixing or m.reweighting or m.label_smoothing):
                raise ValueError(
                    f"method {m.label!r} mixes, weighs or smooths the samples of a batch beside "
                    f"{m.synthesis.name if m.synthesis else 'a tuned adjustment'}; leave one out"
                )
        _check_synthesis(chosen)
        shared = [start.replace(method=method) for start in starts for method in chosen]
        assert problem.inputs is not None
        if 4 * problem.inputs.size > _LARGE:
            from longtail.compare.heads import check_memory  # which needs torch

            check_memory(problem, shared)
        return shared, list(range(cut * repeats)) if cut else _seeds(seeds)
    classes = len(problem.class_names)
    for name in names:
        most = learner(name).classes
        if most is not None and classes > most and not many:
            raise ValueError(
                f"learner {name!r} grows trees for each of {classes:,} classes in every round, and takes at "
                f"most {most}; choose 'logistic_regression'"
            )
    start = Recipe(
        dataset=problem.name,
        model=names[0],
        epochs=1,
        metric=metric,
        folds=problem.folds(folds),
        many_labels=many,
        input_scale=None,
    )
    chosen = _of_problem(problem, methods, start)
    if many:
        shared = [start.replace(model=name, method=method) for name in names for method in chosen]
        return shared, list(range(start.folds * repeats)) if start.folds else [0]
    able = [method for method in chosen if not missing_part(method)]
    _check_synthesis(able)
    if not able:
        why = "; ".join(f"{m.label} needs {missing_part(m)}" for m in chosen)
        raise ValueError(
            f"methods must be those that a table's learner can do, and none of these is ({why}); "
            f"{', '.join(TABLES)} are"
        )
    shared = [start.replace(model=name, method=method) for name in names for method in able]
    return shared, list(range(start.folds * repeats)) if start.folds else [0]


def usual_methods(problem: Problem) -> tuple[str, ...]:
    """Return the methods that are compared on a problem where none are named."""
    if problem.many_labels:
        return LABELS if problem.kind == "table" else LABEL_HEADS
    return TABLES if problem.kind == "table" else MAIN


def _of_problem(problem: Problem, methods: Sequence[Method | str] | None, start: Recipe) -> list[Method]:
    """Choose methods; of many labels those with a form for them, the others are refused by name.

    Raises:
        ValueError: one has no form for many labels.
    """
    chosen = _chosen(usual_methods(problem) if methods is None else methods, start)
    if not problem.many_labels:
        return chosen
    unfit = [f"{m.label} ({why})" for m in chosen if (why := without_form(m, problem.kind))]
    if unfit:
        forms = [n for n in catalogue.CATALOGUE.names if not without_form(_named(n, start), problem.kind)]
        raise ValueError(
            f"methods must have a form for many labels on "
            f"{'a table' if problem.kind == 'table' else 'features'}, and {'; '.join(unfit)} "
            f"{'has' if len(unfit) == 1 else 'have'} none; {', '.join(forms)} have one, each that weighs "
            "also with :weighting=positive"
        )
    return chosen


def _check_synthesis(chosen: Sequence[Method]) -> None:
    for method in chosen:
        if method.synthesis is not None:
            needs_imbalanced_learn(f"method {method.label!r}")


def few_neighbours(problem: Problem, methods: Sequence[Method | str] | None = None) -> list[str]:
    """Return a line on the classes that have fewer neighbours than a method asks for; none where all do."""
    start = Recipe(dataset=problem.name, model=DEFAULT, epochs=1)
    lines = []
    if problem.many_labels:
        return []
    for method in _chosen(MAIN if methods is None else methods, start):
        if method.synthesis is None or problem.kind == "dataset":
            continue
        near, folds = int(dict(method.synthesis.settings).get("k_neighbors", 0)), problem.folds()
        sizes = problem.class_counts
        if problem.tail is not None:
            factor, largest = problem.tail
            sizes = np.asarray(long_tail_counts(len(sizes), largest or int(sizes.min()), factor))
        if folds:
            sizes = sizes - -(-sizes // folds)  # what the largest fold leaves
        if few := [f"{problem.class_names[c]} ({sizes[c]})" for c in np.flatnonzero(sizes <= near)]:
            lines.append(
                f"{method.label}: {_checks.shorten(few)} {'has' if len(few) == 1 else 'have'} no {near} "
                "neighbours among the training samples; the new samples lie between fewer, those of a class "
                "of one are copies"
            )
    return lines


def _refuse_empty(metric: str, problem: Problem) -> None:
    """Refuse a column that no run of these data has: of a group without classes, or of two classes."""
    if problem.tail is not None:  # each seed cuts its own
        return
    counts, columns = problem.class_counts, [c.name for c in every_column(problem.many_labels) if c.measured]
    classes = Classes(np.asarray(counts))
    there = {*classes.groups(classes.shots(None, None)).tolist()}
    empty = {
        name
        for name in columns
        for i, group in enumerate(GROUPS)
        if i not in there and name.startswith(group)
    }
    empty |= {"rare_average_precision"} if len(counts) != 2 and not problem.many_labels else set()
    if metric in empty:
        why = "it is of two classes" if metric.startswith("rare") else "no class is in that group"
        kept = ", ".join(repr(name) for name in columns if name not in empty)
        raise ValueError(f"metric must be one of {kept}, got {metric!r}: {why}")


def _head_recipe(problem: Problem, model: str, metric: str, folds: int) -> Recipe:
    """Return the recipe of heads.

    The linear one's rate and decay are the best of nine pairs on training images of CIFAR-10, searched after
    a first setting was seen to do badly on the test images; the other's are a start.
    """
    factor, largest = problem.tail or (None, None)
    return Recipe(
        dataset=problem.name,
        imbalance_factor=factor,
        max_count=largest,
        input_scale=None,
        model=model,
        learning_rate=4.0 if model == "linear" else 0.05,
        weight_decay=1e-4 if model == "linear" else 1e-3,
        schedule="cosine",
        warmup_epochs=1,
        epochs=30,
        batch_size=128,
        eval_every=30,
        metric=metric,
        folds=folds,
        many_labels=problem.many_labels,
    )


def left_out(problem: Problem, methods: Sequence[Method | str] | None = None) -> list[str]:
    """Return the methods that a table's learners cannot do, each with what it needs, in a line."""
    if problem.kind != "table" or problem.many_labels:
        return []
    start = Recipe(dataset=problem.name, model=DEFAULT, epochs=1)
    chosen = _chosen(MAIN if methods is None else methods, start)
    return [f"{m.label} (needs {why})" for m in chosen if (why := missing_part(m))]


def key(problem: Problem, shared: Sequence[Recipe]) -> str:
    """Return a few letters that tell comparisons on other data, folds or learners apart, for folders."""
    told = [str(value) for value in problem.about.values()]
    told += sorted({f"{r.model} {r.folds} {r.metric}" for r in shared})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:6]


def _own(problem: Problem | None) -> bool:
    return problem is not None and problem.kind != "dataset"


def with_betas(names: Sequence[str], betas: Sequence[float]) -> list[str]:
    """Return names of methods, each that takes a beta and says none with every one of some."""
    found = []
    for name in names:
        told = {part.partition("=")[0] for part in name.split(":")[1:]}
        takes = not _is_own(name) and "beta" in dict(catalogue.get(name).weight.settings)
        found += [f"{name}:beta={beta!r}" for beta in betas] if takes and "beta" not in told else [name]
    if found == list(names):
        raise ValueError(f"beta= is given, but none of {', '.join(names)} takes one; add effective")
    return found


def estimate(
    recipe: Recipe, dataset: Dataset | None, runs: int, jobs: int | None, device: str
) -> float | None:
    """Return about how many seconds runs take, by a few steps of one; None where they are few."""
    data = dataset or load(recipe.dataset)
    size = len(data.train)
    if recipe.imbalance_factor is not None:
        largest = recipe.max_count or int(data.class_counts.min())
        size = int(sum(long_tail_counts(data.num_classes, largest, recipe.imbalance_factor, recipe.profile)))
    steps = runs * recipe.epochs * -(-size // recipe.batch_size)
    if steps < _MANY:
        return None
    from joblib import cpu_count

    from longtail.training.loop import seconds_a_step

    side = min(cpu_count() if jobs is None else jobs, runs)
    return steps * seconds_a_step(recipe, data, device, threads=1 if side > 1 else None) / side


def _is_own(text: str) -> bool:
    """Whether a name is module:name, of a method of the user's."""
    return ":" in text and "=" not in text and text.partition(":")[0] not in catalogue.CATALOGUE


def _own_method(text: str) -> Method:
    try:
        found = pkgutil.resolve_name(text)
        method = found() if callable(found) else found
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"method {text!r} is none of longtail's, and as module:name it cannot be imported ({error}); "
            "longtail methods lists those that there are"
        ) from error
    if not isinstance(method, Method):
        raise TypeError(f"method {text!r} is a {type(method).__name__}; it must be a longtail.methods.Method")
    return method if method.name else method.replace(name=text.partition(":")[2])


def _named(text: str, recipe: Recipe) -> Method:
    """Return a method of the catalogue, with the recipe's own beta and gamma where the name says no other."""
    if _is_own(text):
        return _own_method(text)
    method = catalogue.get(text)
    told = {part.partition("=")[0] for part in text.split(":")[1:]}
    if recipe.many_labels and "loss" not in told and method.loss == "softmax" and not method.cosine:
        method = method.replace(loss="sigmoid")
    if method.is_focal and "gamma" not in told:
        method = method.replace(gamma=recipe.gamma)
    own = {"beta": recipe.beta} if "beta" in dict(method.weight.settings) and "beta" not in told else {}
    return method.with_settings(name=text, **own)


def _run_all(
    recipes: list[Recipe],
    places: list[Path],
    dataset: Dataset | None,
    jobs: int | None,
    device: str,
    progress: AfterRun | None,
) -> Iterator[Outcome]:
    from joblib import cpu_count

    jobs = _checks.integer("jobs", jobs, low=1) if jobs is not None else cpu_count()
    threads = 1 if min(jobs, len(recipes)) > 1 else None
    # methods that differ in what they do after training share a run, which therefore comes first
    sharing = _trained_already(recipes, places)
    first = [(r, p, None) for r, p in zip(recipes, places, strict=True) if p not in sharing]
    then = [(r, p, sharing[p]) for r, p in zip(recipes, places, strict=True) if p in sharing]
    done = 0
    for batch in (first, then):
        todo = ((r, p, dataset, device, threads, trained) for r, p, trained in batch)
        for outcome in in_parallel(_run_one, todo, min(jobs, len(batch)), lost=_lost) if batch else ():
            done += 1
            if progress is not None:
                progress(done, len(recipes), outcome)
            yield outcome


def _run_table(
    problem: Problem, recipes: list[Recipe], places: list[Path], jobs: int | None, progress: AfterRun | None
) -> Iterator[Outcome]:
    """Run a table's trainings side by side, each with the methods that share it."""
    sharing: dict[tuple[str, int, Method], list[tuple[Recipe, Path]]] = {}
    for r, place in zip(recipes, places, strict=True):
        sharing.setdefault((r.model, r.seed, r.method.training), []).append((r, place))
    made_with = versions()
    todo = []
    for (model, _, _), group in sharing.items():
        mine = sorted(group, key=lambda pair: pair[0].method != pair[0].method.training)
        one = made_with | {"learner": model}
        todo.append((problem, learner(model), [r for r, _ in mine], [p for _, p in mine], one))
    left = sum(not all((p / "evaluation.json").is_file() for p in mine) for _, _, _, mine, _ in todo)
    groups = in_parallel(
        run_training,
        todo,
        min(jobs_for(problem, jobs, left), len(todo)),
        lost=lambda why, _, how, rs, ps, *more: _all_lost(why, rs, ps),
    )
    yield from _told(groups, len(recipes), progress)


def _run_features(
    problem: Problem,
    recipes: list[Recipe],
    places: list[Path],
    jobs: int | None,
    device: str,
    progress: AfterRun | None,
) -> Iterator[Outcome]:
    """Train heads: the methods of a seed or fold at once, or in a few parts, and these side by side."""
    from joblib import cpu_count

    jobs = _checks.integer("jobs", jobs, low=1) if jobs is not None else cpu_count()
    sharing: dict[tuple[str, int], list[tuple[Recipe, Path]]] = {}
    for r, place in zip(recipes, places, strict=True):
        sharing.setdefault((r.model, r.seed), []).append((r, place))
    parts = [part for group in sharing.values() for part in _in_parts(problem, group)]
    threads = 1 if min(jobs, len(parts)) > 1 else None
    todo = ((problem, [r for r, _ in part], [p for _, p in part], device, threads) for part in parts)
    groups = in_parallel(
        _run_heads, todo, min(jobs, len(parts)), lost=lambda why, _, rs, ps, *more: _all_lost(why, rs, ps)
    )
    yield from _told(groups, len(recipes), progress)


def _in_parts(problem: Problem, group: list[tuple[Recipe, Path]]) -> list[list[tuple[Recipe, Path]]]:
    """Cut the methods of a seed where each part is still work enough: five seeds do not fill two cores.

    What begins with the same training stays together. The cut says nothing of cores or of what is finished,
    so that a run has the same neighbours, and the same last bits, wherever and however often it is started.
    """
    assert problem.inputs is not None
    alike: dict[Method, list[tuple[Recipe, Path]]] = {}
    for r, place in group:
        first = r.method.at(1, r.epochs).training.replace(schedule=None)
        alike.setdefault(first, []).append((r, place))
    heads = {
        first: len({r.method.training for r, _ in mine}) + _INNER * any(r.method.is_tuned for r, _ in mine)
        for first, mine in alike.items()
    }
    work = sum(heads.values()) * len(problem.class_names) * problem.inputs.shape[1]
    parts: list[list[tuple[Recipe, Path]]] = [[] for _ in range(min(_PARTS, len(alike), work // _PART or 1))]
    filled = [0] * len(parts)
    for first in sorted(alike, key=lambda first: -heads[first]):  # the sort keeps the order of equals
        least = filled.index(min(filled))
        filled[least] += heads[first]
        parts[least] += alike[first]
    return parts


def _told(groups: Iterable[list[Outcome]], total: int, progress: AfterRun | None) -> Iterator[Outcome]:
    """Yield the outcomes of groups of runs, each told as it comes."""
    for done, outcome in enumerate(itertools.chain.from_iterable(groups), start=1):
        if progress is not None:
            progress(done, total, outcome)
        yield outcome


def _lost(why: str, recipe: Recipe, place: Path, *_: object) -> Outcome:
    return Outcome(recipe, None, 0.0, why, place)


def _all_lost(why: str, recipes: list[Recipe], places: list[Path]) -> list[Outcome]:
    return [_lost(why, r, p) for r, p in zip(recipes, places, strict=True)]


def _run_heads(*task: Any) -> list[Outcome]:
    from longtail.compare.heads import run_heads  # in the worker: the parent never needs torch

    return run_heads(*task)


def _trained_already(recipes: list[Recipe], places: list[Path]) -> dict[Path, Path]:
    """Return the run of this comparison that each place shares its training with, where there is one."""
    trained = {(r.method, r.seed): place for r, place in zip(recipes, places, strict=True)}
    return {
        place: trained[r.method.training, r.seed]
        for r, place in zip(recipes, places, strict=True)
        if r.method != r.method.training and (r.method.training, r.seed) in trained
    }


def _run_one(
    recipe: Recipe,
    place: Path,
    dataset: Dataset | None,
    device: str,
    threads: int | None,
    trained: Path | None = None,
) -> Outcome:
    from longtail.training.loop import train  # in the worker: the parent never needs torch

    try:
        if trained is not None and not (trained / "evaluation.json").is_file():
            trained = None  # that run failed; this one trains for itself
        options: dict[str, Any] = {"device": device, "threads": threads, "trained": trained}
        try:
            result = train(recipe, place, dataset=dataset, **options)
        except InUseError:  # another process makes it: what it made is read
            with locked(place, wait=WAIT):
                pass
            result = train(recipe, place, dataset=dataset, **options)
    except Exception as error:  # one failing cell must not cost the others
        return Outcome(recipe, None, 0.0, f"{type(error).__name__}: {error}", place)
    return Outcome(recipe, result.evaluation, result.seconds, None, place)


def _refuse_other_recipe(recipe: Recipe, place: Path, folder: Path) -> None:
    # found now rather than after an hour of other runs
    file = place / "recipe.json"
    if file.is_file() and Recipe.from_json(file.read_bytes()) != recipe:
        raise ValueError(f"out={str(folder)!r} holds runs of another recipe; choose another folder")


def _check_data(recipe: Recipe, dataset: Dataset | None) -> None:
    # found now rather than by every run
    if dataset is None:
        dataset = load(_checks.choice("dataset", recipe.dataset, DATASETS.names))
    if recipe.imbalance_factor is not None:
        dataset.long_tailed(recipe.imbalance_factor, profile=recipe.profile, max_count=recipe.max_count)


def _distinct(name: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of names, got {values!r}; write [{values!r}]")
    values = list(values)
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name} must name at least one, each once, got {values}")
    options = SCHEMES if name == "schemes" else (*LOSSES, "softmax_focal")
    return [_checks.choice(name, value, options) for value in values]


def _seeds(seeds: int | Sequence[int] | None) -> list[int]:
    seeds = _SEEDS if seeds is None else seeds
    if isinstance(seeds, int):
        return list(range(_checks.integer("seeds", seeds, low=1, remedy="five seeds give a usable interval")))
    chosen = [_checks.integer("seeds", s, low=0) for s in seeds]
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"seeds must name at least one, each once, got {chosen}")
    return chosen
