"""What a page is made of: panels of blocks. The template writes them, the script draws their charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from longtail._registry import Registry
from longtail.compare import ComparisonTable
from longtail.report.tables import Sheet

__all__ = [
    "PANELS",
    "Block",
    "Card",
    "Chart",
    "Choice",
    "Classes",
    "Code",
    "Explorer",
    "Fold",
    "Heading",
    "Panel",
    "Picture",
    "Pictures",
    "Side",
    "Spec",
    "Table",
    "Text",
]


class Block:
    """A part of a panel; `kind` says how the template writes it."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Spec:
    """A Plotly chart as JSON knows it.

    Colours may be "@fg", "@dim", "@grid", "@line" or "@bg", which follow the reader's theme. A trace with the
    key "row" is drawn while the reader has that row of the comparison chosen.

    Attributes:
        traces: Plotly's ``data``.
        layout: Plotly's ``layout``; the page adds fonts, colours and margins.
        note: what stands in place of the chart where no trace is chosen.
    """

    traces: Sequence[Mapping[str, object]] = ()
    layout: Mapping[str, object] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Text(Block):
    """A paragraph.

    Attributes:
        text: plain text.
        style: "" | "dim" | "verdict".
        lead: bold, before it.
        code: behind it.
    """

    kind: ClassVar = "text"
    text: str
    style: str = ""
    lead: str = ""
    code: str = ""


@dataclass(frozen=True)
class Heading(Block):
    """A heading inside a panel."""

    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Code(Block):
    """Text to be copied."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Table(Block):
    """A table that the reader can sort.

    Attributes:
        sheet: what stands in it.
        label: what it is, for those who do not see it.
    """

    kind: ClassVar = "table"
    sheet: Sheet
    label: str


@dataclass(frozen=True)
class Chart(Block):
    """A chart.

    Attributes:
        name: unique in its panel's set.
        label: its caption.
        spec: what is drawn; None where the page's own script draws it.
        choices: others to choose from, by name; `chosen` is one of them.
        chosen: what is drawn first.
        wide: whether it scrolls sideways rather than shrink below 740 pixels.
    """

    kind: ClassVar = "chart"
    name: str
    label: str
    spec: Spec | None = None
    choices: Mapping[str, Spec] = field(default_factory=dict)
    chosen: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Side(Block):
    """Blocks side by side where there is room."""

    kind: ClassVar = "side"
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card(Block):
    """Blocks in a frame."""

    kind: ClassVar = "card"
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Fold(Block):
    """Blocks that open at a click.

    Attributes:
        summary: what is seen before.
        blocks: what is seen after.
        is_open: whether they are seen at once.
    """

    kind: ClassVar = "fold"
    summary: str
    blocks: Sequence[Block]
    is_open: bool = False


@dataclass(frozen=True)
class Choice(Block):
    """Boxes that choose the rows drawn in the charts.

    Attributes:
        names: one a row.
        chosen: places of those drawn first.
    """

    kind: ClassVar = "choice"
    names: Sequence[str]
    chosen: Sequence[int]


@dataclass(frozen=True)
class Explorer(Block):
    """The beta explorer, which the page's script runs."""

    kind: ClassVar = "explorer"


@dataclass(frozen=True)
class Classes(Block):
    """The searchable table of all classes, which the page's script fills."""

    kind: ClassVar = "classes"


@dataclass(frozen=True)
class Picture:
    """A picture, or text in its place, and what it is.

    Attributes:
        name: below it.
        about: below that.
        source: a data: address; "" where there is no picture.
        text: in place of one.
    """

    name: str
    about: str
    source: str = ""
    text: str = ""


@dataclass(frozen=True)
class Pictures(Block):
    """Pictures side by side, to be compared.

    Attributes:
        pictures: two or more.
        title: above them.
        warn: whether they are set off.
    """

    kind: ClassVar = "pictures"
    pictures: Sequence[Picture]
    title: str = ""
    warn: bool = False


@dataclass(frozen=True)
class Panel:
    """One part of the page.

    Attributes:
        title: its heading; "" goes on under the one before.
        blocks: what it shows.
        question: of the summary at the top of the page; "" for none.
        answer: in a sentence or two.
        data: what the page's script needs beside the charts.
    """

    title: str
    blocks: Sequence[Block]
    question: str = ""
    answer: str = ""
    data: Mapping[str, object] = field(default_factory=dict)


# a panel is a function of a comparison with at least one finished run; None where it has nothing to say
PANELS: Final = Registry[Callable[[ComparisonTable], Panel | None]]("panel")
