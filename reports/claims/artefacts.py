"""The ledger in a report: the effects against their margins, all verdicts, and what would decide the rest."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from reports import style, terms
from reports.artefact import Artefact, Table
from reports.claims import shown
from reports.claims.claim import Claim
from reports.claims.verdict import (
    CONTRADICTED,
    FAILS,
    HOLDS,
    NOT_MEASURED,
    OPEN,
    SUPPORTED,
    UNDECIDED,
    Finding,
    Judged,
)

_LOOKS = {HOLDS: ("#138c5a", "o"), FAILS: ("#c43c55", "X"), OPEN: ("#8a6d1f", "D")}
_OF = {HOLDS: SUPPORTED, FAILS: CONTRADICTED, OPEN: UNDECIDED}
_REACH = 4.0  # margins to either side that the axis shows
_ROOM = "#80808030"
NOTE = (
    "What the paper, its reviews and its follow-up say, each with a test whose margin stands in the code with its "
    "reason. All of them: python -m reports claims --list."
)
_ROWS = 26  # of a figure, which then fits a page
_LONGEST = 72  # letters of a name: two lines


def build(ledger: Sequence[Judged], parts: Mapping[str, Sequence[Claim]], size: int) -> Iterator[Artefact]:
    """Of a ledger of which something is measured."""
    measured = [judged for judged in ledger if judged.verdict != NOT_MEASURED]
    runs = list(dict.fromkeys(run for judged in measured for one in judged.findings for run in one.runs))
    about, numbers = shown.counts(ledger), shown.numbers(ledger, size)
    yield Artefact(
        name="verdicts",
        title="Verdicts",
        caption=f"{about}. A claim is supported where its comparisons' intervals are inside the region in which it "
        "holds, contradicted where one is outside, undecided else; shown is the comparison that the verdict hangs on. "
        f"{shown.level(size)}",
        numbers=numbers,
        runs=runs,
        table=Table(_verdicts(measured), long="claim"),
    )
    for name, claims in parts.items():
        own = [judged for judged in measured if judged.claim in claims]
        yield from _effects(name, own, numbers)
    wanting = _wanting(measured)
    if len(wanting):
        yield Artefact(
            name="wanting",
            title="What would decide those that are undecided",
            caption="Numbers of seeds are those with which the interval would fit, were mean and spread to stay what "
            "they are.",
            numbers=wanting,
            runs=runs,
            table=Table(wanting, long="what would decide"),
        )
    lacking = _lacking(ledger)
    if len(lacking):
        yield Artefact(
            name="not-measured",
            title="What would measure the rest",
            caption="Claims that lack runs, and the commands that train them.",
            numbers=lacking,
            runs=[],
            table=Table(lacking, long="claims, command"),
        )


def _effects(part: str, ledger: Sequence[Judged], numbers: pd.DataFrame) -> Iterator[Artefact]:
    """The effects of a part of the ledger, in as many figures as pages need."""
    drawn = [(judged, one) for judged in ledger for one in judged.findings if one.state in _LOOKS]
    for number, start in enumerate(range(0, len(drawn), _ROWS)):
        rows, more = drawn[start : start + _ROWS], f" ({number + 1})" * (len(drawn) > _ROWS)
        yield Artefact(
            name=f"effects-{part.lower().replace(' ', '-')}{number or ''}",
            title=f"Effects against margins: {part}{more}",
            caption="Each comparison's effect with its interval, in units of its margin (of ratios the logarithm; of a "
            "region with two ends from its middle, so that it is from −1 to 1). Grey is where the claim holds. An "
            "interval inside it supports the claim, one outside contradicts it. Triangles are beyond the edge, at "
            f"{_REACH:g} margins.",
            alt="Effects in units of their margins: "
            + "; ".join(f"{_name(judged, one)} {one.state}" for judged, one in rows) + ".",
            numbers=numbers[numbers["claim"].isin([judged.claim.id for judged, _ in rows])],
            runs=list(dict.fromkeys(run for _, one in rows for run in one.runs)),
            figure=draw(rows),
        )  # fmt: skip


def _verdicts(ledger: Sequence[Judged]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "claim": "; ".join(
                    [f"{judged.claim.id}: {judged.claim.says} ({judged.claim.where})", *shown.remarks(judged)]
                ),
                "verdict": judged.verdict,
                "effect": shown.effect(judged.deciding),
                "holds if": judged.deciding.comparison.region,
                "seeds": str(len(judged.deciding.seeds) or ""),
            }
            for judged in ledger
        ]
    )


def _wanting(ledger: Sequence[Judged]) -> pd.DataFrame:
    rows = []
    for judged in ledger:
        for one in shown.wanting(judged):
            text = f"{shown.what(judged.claim, one.comparison)}: {shown.would_decide(one)}"
            rows.append({"claim": judged.claim.id, "what would decide": text})
    return pd.DataFrame(rows)


def _lacking(ledger: Sequence[Judged]) -> pd.DataFrame:
    rows = []
    for (suite, preset), line, claims, needs in shown.commands(ledger):
        also = f" (needs {needs})" if needs else ""
        rows.append({"suite, preset": f"{suite}, {preset}", "claims, command": f"{', '.join(claims)}{also}: {line}"})
    return pd.DataFrame(rows)


def _name(judged: Judged, finding: Finding) -> str:
    alone = len(judged.findings) == 1
    name = judged.claim.id if alone else f"{judged.claim.id}: {shown.what(judged.claim, finding.comparison)}"
    return textwrap.shorten(name, _LONGEST, placeholder=" …")


def draw(findings: Sequence[tuple[Judged, Finding]]) -> Figure:
    """A row for each comparison: the region in grey, the effect and its interval."""
    with style.look():
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        for place, (_, one) in enumerate(findings):
            colour, marker = _LOOKS[one.state]
            of = one.comparison
            low, high, left, right, x = (
                (value - of.middle) / of.margin for value in (of.low, of.high, one.low, one.high, one.effect)
            )
            ends = max(-_REACH, low), min(_REACH, high)
            axes.barh(place, ends[1] - ends[0], left=ends[0], height=0.8, color=_ROOM, linewidth=0)
            if not math.isnan(left):
                shown_ends = [min(max(end, -_REACH), _REACH) for end in (left, right)]
                axes.plot(shown_ends, [place, place], color=colour, linewidth=1.6, gid=f"_{one.state}")
            far = abs(x) > _REACH
            fill = "none" if far or one.state == OPEN else colour
            shape = marker if not far else ">" if x > 0 else "<"
            axes.plot([min(max(x, -_REACH), _REACH)], [place], marker=shape, color=colour, markerfacecolor=fill,
                      linestyle="", gid=one.state)  # fmt: skip
        axes.axvline(0, color=style.INK, linewidth=0.6)
        style.names(axes, [_name(judged, one) for judged, one in findings])
        axes.set(xlim=(-1.05 * _REACH, 1.05 * _REACH), xlabel="effect in units of the margin")
        present = [state for state in _LOOKS if any(one.state == state for _, one in findings)]
        handles = [
            axes.plot([], [], marker=_LOOKS[state][1], color=_LOOKS[state][0], linestyle="", label=f"_{state}",
                      markerfacecolor="none" if state == OPEN else _LOOKS[state][0])[0]
            for state in present
        ]  # fmt: skip
        figure.legend(handles, [f"{terms.capital(state)}" for state in present], loc="outside lower center",
                      ncols=len(present))  # fmt: skip
    return figure
