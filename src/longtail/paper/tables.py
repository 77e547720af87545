"""The papers' tables: for the terminal, the page and documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from longtail.evaluation import interval_text
from longtail.paper.large_scale import Plan
from longtail.paper.settings import MeasuredSetting
from longtail.report.tables import Cell, Sheet


@dataclass(frozen=True)
class Column:
    """A column of a table of settings.

    Attributes:
        head: its name.
        make: the entry of a setting.
        short: its name on a terminal, where it has another.
        narrow: the entry's text on a terminal, where it has another.
    """

    head: str
    make: Callable[[MeasuredSetting], Cell]
    short: str | None = None
    narrow: Callable[[Cell], str] | None = None


def sheet(measured: Sequence[MeasuredSetting]) -> Sheet:
    """Return settings of one table, with what was published and measured, as a sheet."""
    columns, _ = _layout(measured)
    rows = [[column.make(setting) for column in columns] for setting in measured]
    return Sheet([column.head for column in columns], rows)


def table(measured: Sequence[MeasuredSetting]) -> Table:
    """Return settings of one table, with what was published and measured, within 80 columns."""
    columns, caption = _layout(measured)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, caption=caption)
    for column in columns:
        left = column.head in ("data", "network", "loss", "weights", "method")
        shown.add_column(column.short or column.head, justify="left" if left else "right", no_wrap=True)
    for setting in measured:
        cells = [(column, column.make(setting)) for column in columns]
        shown.add_row(*(column.narrow(cell) if column.narrow else cell.text for column, cell in cells))
    return shown


def plan_table(plan: Plan) -> Table:
    """Return what a run on image files will take, for the terminal."""
    recipe, giga = plan.recipe, 1e9
    weighting = "" if recipe.scheme == "none" else f", {recipe.scheme} weights, beta {recipe.beta:g}"
    focal = f", gamma {recipe.gamma:g}" if "focal" in recipe.loss else ""
    marks = ", ".join(map(str, recipe.milestones))
    rate = f"learning rate {recipe.learning_rate:g} after {recipe.warmup_epochs} epochs"
    needed = f"{plan.memory / giga:.1f} GB a process, and the kernels' workspace"
    length = f"{plan.step_seconds:.3g} s an update, {plan.hours:,.0f} hours in all"
    how = f"from measured steps of this network on this device in {recipe.precision}"
    speed = f"{1 / plan.decode_seconds:,.0f} images a second and core, measured"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    lines = {
        "data": f"{recipe.dataset}, {recipe.size} x {recipe.size}",
        "network": f"{recipe.model}, {plan.parameters:,} parameters",
        "loss": f"{recipe.loss}{weighting or ', no weights'}{focal}",
        "schedule": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {rate}, "
        f"x {recipe.decay_factor:g} at {marks}",
        "optimizer": f"SGD, momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}",
        "updates": f"{plan.steps:,} an epoch, {plan.steps * recipe.epochs:,} in all",
        "division": f"{plan.processes} x {plan.device_batch} samples, {plan.accumulated} times accumulated",
        "memory": needed,
        "time": f"{length}, {how}, if there are {plan.processes} such",
        "decoding": f"{speed}; {plan.cores:.2g} cores keep up with training",
    }
    for name, text in lines.items():
        table.add_row(name, text)
    return table


# ---- columns


def _layout(measured: Sequence[MeasuredSetting]) -> tuple[tuple[Column, ...], str]:
    layouts = {
        "ddnet": (_SKELETONS, _OF_SKELETONS),
        "gtsrb": (_SIGNS, _OF_SIGNS),
        "table3": (_LARGE, _OF_LARGE),
        "rivals": (_RIVALS, _OF_RIVALS),
    }
    return layouts.get(measured[0].setting.table if measured else "", (_CIFAR, _OF_CIFAR))


def _number(value: float | None, text: str, missing: str = "") -> Cell:
    return Cell(missing) if value is None else Cell(f"{value:{text}}", float(value))


def _measured(digits: int, name: str | None = None) -> Callable[[MeasuredSetting], Cell]:
    def make(m: MeasuredSetting) -> Cell:
        summary = m.summary(name)
        if summary is None:
            return Cell("not run")
        spread = "" if summary.sd is None else f" ± {summary.sd:.{digits}f}"
        return Cell(f"{summary.mean:.{digits}f}{spread}", summary.mean)

    return make


def _published(digits: int, name: str | None = None) -> Callable[[MeasuredSetting], Cell]:
    return lambda m: _number(m.published(name), f".{digits}f", "-")


def _gain(digits: int, name: str | None = None) -> Callable[[MeasuredSetting], Cell]:
    def make(m: MeasuredSetting) -> Cell:
        d = m.gain(name)
        return Cell("") if d is None else Cell(interval_text(d, scale=1, digits=digits), d.mean)

    return make


def _difference_or_gain(m: MeasuredSetting) -> Cell:
    return _number(m.difference(), "+.1f") if m.gain() is None else _gain(1)(m)


def _seeds(m: MeasuredSetting) -> Cell:
    summary = m.summary()
    return _number(0 if summary is None else summary.n, "d")


def _text(of: Callable[[MeasuredSetting], object]) -> Callable[[MeasuredSetting], Cell]:
    return lambda m: Cell(str(of(m)))


def _mean_alone(cell: Cell) -> str:
    return "" if cell.value is None else f"{cell.value:+.2f}"  # its interval is too wide


def _two_lines(cell: Cell) -> str:
    return cell.text.replace(" [", "\n[")


def _clips(m: MeasuredSetting) -> str:
    factor = m.setting.imbalance_factor
    return m.setting.dataset + ("" if factor == 1 else f"-lt{factor}")


def _images(m: MeasuredSetting) -> str:
    return m.setting.dataset.replace("inaturalist", "iNat ").replace("ilsvrc2012", "ILSVRC")


_LOSS = Column("loss", _text(lambda m: m.setting.recipe.loss))
_WEIGHTS = Column("weights", _text(lambda m: m.setting.weights))

_OF_CIFAR = (
    "test error in %, paper and measured (mean ± standard deviation over n seeds); IF: imbalance factor; "
    "vs plain: to softmax without weights, over the seeds that both have"
)
_CIFAR = (
    Column("data", _text(lambda m: m.setting.dataset)),
    Column("imbalance", lambda m: _number(m.setting.imbalance_factor, "d"), "IF"),
    _LOSS,
    Column("gamma", lambda m: _number(m.setting.gamma, "g")),
    Column("beta", lambda m: _number(m.setting.beta, "g")),
    Column("paper", _published(2)),
    Column("measured", _measured(2)),
    Column("seeds", _seeds, "n"),
    Column("difference", lambda m: _number(m.difference(), "+.2f"), "diff"),
    Column("vs plain", _gain(2), narrow=_mean_alone),
)
_OF_SKELETONS = (
    "test accuracy in %, mean of three splits; lt: long tail; f: filters; measured: mean ± standard "
    "deviation over seeds; difference: to the paper, or on a long tail to the same loss without weights, "
    "paired, with its 95 % interval"
)
_SKELETONS = (
    Column("data", _text(_clips)),
    Column("f", lambda m: _number(int(m.setting.recipe.model.removeprefix("ddnet")), "d")),
    _LOSS,
    _WEIGHTS,
    Column("paper", _published(1)),
    Column("measured", _measured(1)),
    Column("seeds", _seeds),
    Column("difference", _difference_or_gain),
)
_OF_SIGNS = (
    "test error in %, over images and as the mean over classes: mean ± standard deviation over n seeds; "
    "vs plain: difference to softmax without weights, paired by seed, with its 95 % interval"
)
_SIGNS = (
    _LOSS,
    _WEIGHTS,
    Column("error", _measured(1)),
    Column("vs plain", _gain(1), narrow=_two_lines),
    Column("balanced error", _measured(1, "balanced_error"), "balanced"),
    Column("vs plain (balanced)", _gain(1, "balanced_error"), "vs plain", _two_lines),
    Column("seeds", _seeds, "n"),
)
_OF_RIVALS = (
    "test error in %, ResNet-32 with the recipe of Cui et al., Table 2 (mean ± standard deviation over n "
    "seeds); published: by the methods' papers or re-runs, whose recipes differ; vs plain: over the seeds "
    "that both have"
)
_RIVALS = (
    Column("data", _text(lambda m: m.setting.dataset)),
    Column("imbalance", lambda m: _number(m.setting.imbalance_factor, "d"), "IF"),
    Column("method", _text(lambda m: m.setting.method)),
    Column("published", _published(2)),
    Column("measured", _measured(2)),
    Column("seeds", _seeds, "n"),
    Column("vs plain", _gain(2), narrow=_mean_alone),
)
_OF_LARGE = "top-1 and top-5 error in %, paper and measured (mean ± standard deviation over seeds)"
_LARGE = (
    Column("data", _text(_images)),
    Column("network", _text(lambda m: m.setting.recipe.model)),
    Column("size", _text(lambda m: getattr(m.setting.recipe, "size", ""))),
    Column("loss", _text(lambda m: "softmax" if m.setting.recipe.loss == "softmax" else "CB focal")),
    Column("paper", _published(2)),
    Column("measured", _measured(2)),
    Column("top-5", _published(2, "top5_error")),
    Column("measured", _measured(2, "top5_error")),
    Column("seeds", _seeds),
)
