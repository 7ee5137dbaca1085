"""One look for all figures: a colour, a marker and a line style per method, sizes, fonts.

The colours have a contrast of at least 3 : 1 on white and on the dark page. No eleven colours are told apart by
everybody: a method's marker is its own too, and its variants differ in dashes and markers. Beside one's own variants
those of others are thin, dashed and hollow. Curves of one method that differ in K or N have colours of their own.
"""

import math
import re
import textwrap
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    Locator,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)
from matplotlib.transforms import ScaledTranslation

from reports import terms
from reports.methods import BEFORE, Method
from reports.variants import own_name

COLUMN_WIDTH = 3.25  # inches
TEXT_WIDTH = 6.75
PANEL = 7  # size of the name above one of several panels
_PANEL_LETTERS = 17  # of that in an inch
PNG_DPI = 200
POINT = "#7c8491"  # of the data's points: seen on both pages where they are pixels, whose colour stays
INK, GROUND = "#010203", "#fdfefc"  # of text and axes, and behind them; what a page replaces by its own
ALARM, GRID = "#dc143c", "#80808040"
_SERIES = (  # no method's: for what differs in K, N or its place alone
    ("#2470c0", "o"), ("#c8641a", "s"), ("#2e8b57", "^"), ("#a050b0", "D"), ("#c43c55", "v"), ("#6f7b16", "P"),
    ("#0e8690", "X"), ("#7a70c8", "*"),
)  # fmt: skip
_OWN = ("h", (4, 1, 0), "8", (6, 1, 0), (3, 1, 0), (5, 0, 180))  # markers
_STEPS = (0, 5, 20, 10, 1, 2, 50, 40)  # K and N of the suites, each with a look of the same place above
_THIN = 0.7  # width of lines
_POWER = re.compile(r"\$\\mathdefault\{-?(?:[\d.]+\\times)?[\d.]+(?:\^\{-?[\d.]+\})?\}\$")  # along a logarithmic axis
_DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
_SETTINGS: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 6.5, "legend.frameon": False, "legend.handlelength": 3.2,
    "axes.spines.top": False, "axes.spines.right": False,
    "lines.linewidth": 1.1, "lines.markersize": 3.5, "pdf.fonttype": 42, "savefig.dpi": PNG_DPI, "svg.fonttype": "path",
    "svg.hashsalt": "bism", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.4, "axes.axisbelow": True,
}  # fmt: skip


def in_lines(name: str, inches: float) -> str:
    """A variant's name in lines that fit above a panel; they may break after a = sign."""
    lines = textwrap.fill(name.replace("=", "=\0 "), max(int(_PANEL_LETTERS * inches), 1), break_long_words=False)
    return lines.replace("\0 ", "").replace("\0", "")


@contextmanager
def look() -> Iterator[None]:
    """Context in which figures are drawn and saved."""
    with rc_context(_SETTINGS):
        yield


def as_written(figure: Figure) -> None:
    """Has every text of a figure drawn letter by letter, but for the powers along logarithmic axes.

    Whatever holds somebody's words (labels, names of variants, of files and of hyper-parameters) may have two '$', and
    matplotlib would read a formula between them, or fail to. To be called before anything is measured or drawn.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if "$" in text.get_text() and not _POWER.fullmatch(text.get_text()):
            text.set_parse_math(False)


def mark(figure: Figure, missing: int) -> Figure:
    """Says on the figure's face that cells are missing from it, if they are."""
    if missing:
        say(figure, terms.missing(missing))
    return figure


def say(figure: Figure, text: str) -> None:
    """Writes a line above a figure, below what stands there already."""
    above = [line for line in (figure.get_suptitle(), text) if line]
    figure.suptitle("\n".join(above), color=ALARM, fontsize=8, fontweight="bold")


_ROW, _LETTER, _NAME = 0.19, 0.055, 40  # inches of a row and of a letter beside it, and letters in a line
_HANDLE, _SMALL_LETTER = 0.5, 0.048  # inches of a line of a legend, and of a letter behind it
_LEGEND_LINE = 0.135  # inches from one line of a legend to the next
_LINES = 16  # of a legend at most: a longer one is larger than what it explains
_TICKS = 3  # of a short axis, at least
_UNDER_LABEL = 24  # points from the axes to under their label
_WORST = 3  # of many that leave a panel, those that it names
MANY = 60  # variants that a figure names or maps; tables and CSV files have all of them


def thousands(axis: Any) -> None:
    """Writes 20,000 as 20k along an axis."""
    axis.set_major_formatter(EngFormatter(sep=""))


def plain(axis: Any) -> None:
    """Writes 20 and 50 along a logarithmic axis, as many of them as it has room for; powers alone over many decades."""
    low, high = axis.get_view_interval()
    few = high <= 1000 * low
    for subs in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)) if few else ((1,),):
        locator: Locator = LogLocator(subs=subs, numticks=7)
        shown = [place for place in locator.tick_values(low, high) if low <= place <= high]
        if len(shown) >= _TICKS or not few:
            break
    else:
        locator = FixedLocator(MaxNLocator(_TICKS, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high))
    axis.set_major_locator(locator)
    axis.set_major_formatter(StrMethodFormatter("{x:g}") if few else LogFormatterMathtext())
    axis.set_minor_formatter(NullFormatter())


def names(axes: Axes, variants: Sequence[str]) -> None:
    """Names the rows of a figure, the first above, which is made as wide and as high as the names need it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    lines = [textwrap.fill(name, _NAME) for name in variants]
    longest = max(len(line) for name in lines for line in name.splitlines())
    row = _ROW if all("\n" not in name for name in lines) else 1.5 * _ROW
    figure.set_size_inches(min(TEXT_WIDTH, 3.1 + _LETTER * longest), 0.85 + row * len(lines))
    axes.set_yticks(range(len(lines)), lines)
    axes.set_ylim(len(lines) - 0.4, -0.6)


def below_power(axes: Axes) -> None:
    """Puts the label of the horizontal axis under the power of ten that its numbers share, where they share one."""
    if max(map(abs, axes.get_xlim())) < 1e-4 or max(map(abs, axes.get_xlim())) >= 1e5:
        axes.xaxis.labelpad = 11


def leave(figure: Figure, panels: int, columns: int) -> None:
    """Hides what a grid of panels has too many; those above them get the numbers of their axis back."""
    for axes in figure.axes[panels:]:
        axes.set_axis_off()
    for axes in figure.axes[max(0, panels - columns) : panels]:
        axes.tick_params(labelbottom=True)


def legend_below(axes: Axes, columns: int = 3, beyond: Sequence[str] = ()) -> None:
    """A legend under the axes and their label, where no curve is.

    beyond: what leaves the axes, the farthest first; named where there are too many variants to name all.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    place, shown = axes.get_subplotspec(), axes.get_legend_handles_labels()[1]
    room = figure.get_figwidth() / (place.get_gridspec().ncols if place is not None else 1)
    columns = _legend_columns(shown, room, columns)
    under: Any = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, 0),
        "bbox_transform": axes.transAxes + ScaledTranslation(0, -_UNDER_LABEL / 72, figure.dpi_scale_trans),
    }
    if columns:
        axes.legend(ncols=columns, columnspacing=1.0, **under)
        return
    first, others = ", ".join(beyond[:_WORST]), len(beyond) - _WORST
    left = f"beyond the panel: {first}{f' and {others} more' * (others > 0)}"
    lines = [f"{len(shown)} variants: see the CSV file", *(textwrap.wrap(left, _NAME) if beyond else [])]
    axes.legend([], [], title="\n".join(lines), title_fontsize="small", **under)


def legend_height(names: Sequence[str], room: float, columns: int) -> float:
    """Inches that ``legend_below`` takes for these names in a panel of this width."""
    columns = _legend_columns(names, room, columns)
    return _LEGEND_LINE * (math.ceil(len(names) / columns) if columns else 1 + _WORST)


def _legend_columns(names: Sequence[str], room: float, most: int) -> int:
    """In how many columns all are named; 0 where there are too many to name."""
    longest = max(map(len, names), default=0)
    columns = max(1, min(most, int(room / (_HANDLE + _SMALL_LETTER * longest))))
    return columns if len(names) <= min(MANY, _LINES * columns) else 0


def looks(method: Mapping[str, Method]) -> dict[str, "Look"]:
    """How each variant is drawn, the same in all figures of a task.

    A method that declares a colour and a marker has these: its variants have dashes of their own, and all but the
    first markers that no method of its family has. Variants of other methods have colours and markers of their own,
    too. Variants of others have the colour and the marker of one's own of that name beside them; dashes then tell the
    former from the latter.

    Args:
        method: of every variant of a task.
    """
    sources = sorted({of.source for of in method.values()})
    found, used, own = dict[tuple[str, str], Look](), Counter[Method](), 0
    names = {variant: (of.id, _name(variant, of, sources)) for variant, of in method.items()}
    for variant in sorted(method, key=natural):
        of, name = method[variant], names[variant]
        if name in found:
            continue
        if of.colour:  # methods of a family may lie on each other: a dashed curve on a whole one shows both
            place = used[of]
            found[name] = Look(of.colour, _marker(of, place, method.values()), dashes(_place(of) + place))
        else:
            found[name], own = Look(*_own(own), dashes(own // len(_SERIES))), own + 1
        used[of] += 1
    if not _beside(sources):
        return {variant: found[name] for variant, name in names.items()}
    return {
        variant: found[names[variant]]._replace(dashes=dashes(sources.index(of.source)), thin=bool(of.source))
        for variant, of in method.items()
    }


def whose(method: Mapping[str, Method], lines: bool = True) -> str:
    """How one's own variants and those of others are told apart, as a sentence that follows others; nothing where all
    are of one source.

    Args:
        method: of every variant of a task.
        lines: whether they are drawn as curves.
    """
    sources = sorted({of.source for of in method.values()})
    if not _beside(sources):
        return ""
    others = " and ".join(f"({source})" for source in sources if source)
    if lines:
        return f" Whole lines with full markers are one's own, thin dashed ones with hollow markers those of {others}."
    return f" Full markers are one's own, hollow ones those of {others}."


def _beside(sources: Sequence[str]) -> bool:
    """Whether there are one's own variants and others'."""
    return "" in sources and len(sources) > 1


def _name(variant: str, of: Method, sources: Sequence[str]) -> str:
    return own_name(variant, of.source) if _beside(sources) else variant


def _marker(of: Method, place: int, present: Iterable[Method]) -> Any:
    """Of a method's n-th variant: its own, then those that no method of its family has."""
    taken = {other.marker for other in present if other.family == of.family}
    return [of.marker, *(marker for _, marker in _SERIES if marker not in taken), *_OWN][place % (1 + len(_OWN))]


def _place(method: Method) -> int:
    """Of a method among those of its family, others after the package's."""
    family = [one for one, found in BEFORE.items() if found.family == method.family]
    return family.index(method.id) if method.id in family else len(family)


def _own(place: int) -> tuple[str, Any]:
    """Colour and marker of the n-th variant of methods that declare none: no marker of the package's."""
    return series(place + 1)[0], _OWN[place % len(_OWN)]


class Look(NamedTuple):
    """Of a variant.

    Attributes:
        thin: whether it is another's beside one's own: its lines are thin then, and its markers hollow.
    """

    colour: str
    marker: Any
    dashes: Any
    thin: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """For a curve with markers."""
        drawn = {"color": self.colour, "marker": self.marker, "linestyle": self.dashes}
        return {**drawn, "linewidth": _THIN, "markerfacecolor": "none"} if self.thin else drawn


def natural(variant: str) -> list[tuple[int, str]]:
    """Sorts "CD-5" before "CD-10"."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", variant)]


def colour(method: Method) -> str:
    """A method's colour, the same in every figure; of one that declares none by its id."""
    return method.colour or _SERIES[zlib.crc32(method.id.encode()) % len(_SERIES)][0]


def marker(method: Method) -> Any:
    """A method's marker, as its colour."""
    return method.marker or _OWN[zlib.crc32(method.id.encode()) % len(_OWN)]


def dashes(position: int) -> Any:
    """The line style of a method's n-th variant."""
    return _DASHES[position % len(_DASHES)]


def series(place: int) -> tuple[str, str]:
    """Colour and marker of the n-th of curves that belong to one method: the colours return, with other markers."""
    again, at = divmod(place, len(_SERIES))
    return _SERIES[at][0], _SERIES[(at + 3 * again) % len(_SERIES)][1]


def steps(number: int) -> tuple[str, str]:
    """Colour and marker of K or N, the same in every figure."""
    return series(_STEPS.index(number) if number in _STEPS else number)
