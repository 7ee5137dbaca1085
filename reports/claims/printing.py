"""The ledger on standard output: text for a terminal, Markdown, JSON, CSV; with verdicts, or as it stands before any
run."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.system import tables
from reports import terms
from reports.claims import shown
from reports.claims.claim import Claim, Comparison
from reports.claims.verdict import (
    CONTRADICTED,
    NOT_MEASURED,
    SUPPORTED,
    UNDECIDED,
    Finding,
    Judged,
)
from reports.results import NoCellsError, Results

FORMATS = ("text", "markdown", "json", "csv")
_COLOURS = {SUPPORTED: "green", CONTRADICTED: "red", UNDECIDED: "yellow", NOT_MEASURED: "dim"}
Parts = Mapping[str, Sequence[Claim]]


# --- with verdicts ----------------------------------------------------------------------------------------------------


def print_ledger(ledger: Sequence[Judged], parts: Parts, size: int, form: str, console: Console) -> None:
    """Prints the verdicts."""
    if form == "csv":
        console.file.write(shown.numbers(ledger, size).to_csv(index=False))
    elif form == "json":
        console.file.write(as_json(ledger, size) + "\n")
    elif form == "markdown":
        console.file.write(markdown(ledger, parts, size))
    else:
        _text(ledger, parts, size, console)


def _text(ledger: Sequence[Judged], parts: Parts, size: int, console: Console) -> None:
    measured = [judged for judged in ledger if judged.verdict != NOT_MEASURED]
    for name, claims in parts.items():
        own = [judged for judged in measured if judged.claim in claims]
        if own:
            table = Table(title=name, title_justify="left", show_lines=True)
            for heading in ("claim", "verdict", "found", "holds if", "seeds"):
                table.add_column(heading)
            for judged in own:
                one = judged.deciding
                cells = (
                    Text(f"{judged.claim.id}: {judged.claim.says}"),
                    Text(judged.verdict, _COLOURS[judged.verdict]),
                    Text(found(judged)),
                    Text(one.comparison.region),
                    Text(shown.seeds(judged)),
                )
                table.add_row(*cells)
            tables.show(console, table)
    if measured:
        tables.say(console, shown.level(size))
    undecided = [judged for judged in measured if judged.verdict == UNDECIDED]
    if undecided:
        console.print("\nWhat would decide:", highlight=False)
        for judged in undecided:
            for one in shown.wanting(judged):
                text = f"{judged.claim.id}: {shown.what(judged.claim, one.comparison)}: {shown.would_decide(one)}"
                tables.say(console, text, 2, bold=judged.claim.id)
            if line := shown.more_seeds(judged):
                console.print(f"      {line}", markup=False, highlight=False, soft_wrap=True)
    _commands(ledger, console)
    console.print()
    tables.say(console, shown.counts(ledger))


def _commands(ledger: Sequence[Judged], console: Console) -> None:
    todo = shown.commands(ledger)
    if todo:
        console.print("\nNot measured, and the commands that would measure it:", highlight=False)
    for _, line, claims, needs in todo:
        tables.say(console, f"{', '.join(claims)}{f' (needs {needs})' if needs else ''}", 2)
        console.print(f"      {line}", markup=False, highlight=False, soft_wrap=True)


def none_measured(claims: Sequence[Claim], store: Results) -> str:
    """Why a store measures none of these claims: what it has, and what of theirs it has not."""
    there = [(suite, preset) for suite in store.suites for preset in store.presets(suite)]
    asked = [one for claim in claims for one in claim.comparisons]
    known = [one for one in asked if (one.at.suite, one.at.preset) in there]
    said = f"it has {_presets(there) or 'no preset'}, and"
    if not known:
        return f"{said} they need {_presets((one.at.suite, one.at.preset) for one in asked)}"
    if _of_other_iterations(known, store):
        return f"{said} runs of other iterations than a preset's do not count"
    return f"{said} of no claim all of the variants that it compares, with the metrics that it looks at"


def _presets(named: Iterable[tuple[str, str]]) -> str:
    return ", ".join(dict.fromkeys(f"{suite} {preset}" for suite, preset in named))


def _of_other_iterations(comparisons: Sequence[Comparison], store: Results) -> bool:
    """Whether a compared variant was run, but not for the iterations of its preset."""
    for suite, preset in dict.fromkeys((one.at.suite, one.at.preset) for one in comparisons):
        compared = {
            (one.at.task, _plain(variant)): one.at.steps
            for one in comparisons
            if (one.at.suite, one.at.preset) == (suite, preset)
            for variant in one.variants
        }
        try:
            cells = store.cells(suite, preset)
        except NoCellsError:
            continue
        for task, variant, steps in zip(cells["task"], cells["variant"], cells["steps"], strict=True):
            if compared.get((task, _plain(str(variant))), steps) != steps:
                return True
    return False


def _plain(variant: str) -> str:
    """Without its settings: "CD-1" of "CD-1 [steps=5]"."""
    return variant.partition(" [")[0]


def found(judged: Judged) -> str:
    """The comparison that the verdict hangs on, with its effect and interval, and how many others there are."""
    one, others = judged.deciding, len(judged.findings) - 1
    text = f"{shown.what(judged.claim, one.comparison)}: {shown.effect(one) or one.state}"
    if not others:
        return text
    kind = "strongest" if judged.claim.some else "weakest"
    return f"{text} ({kind} of {others + 1})"


def markdown(ledger: Sequence[Judged], parts: Parts, size: int) -> str:
    """A table for each part, and the commands."""
    lines = [shown.counts(ledger) + ".", "", shown.level(size), ""]
    for name, claims in parts.items():
        own = [judged for judged in ledger if judged.claim in claims]
        if own:
            rows = [
                {
                    "claim": f"`{judged.claim.id}` {judged.claim.says}",
                    "verdict": f"**{judged.verdict}**" if judged.verdict != NOT_MEASURED else judged.verdict,
                    "found": found(judged) if judged.verdict != NOT_MEASURED else "",
                    "holds if": judged.deciding.comparison.region,
                    "seeds": shown.seeds(judged),
                    "what would decide": "; ".join(_would_decide(judged)),
                }
                for judged in own
            ]
            lines += [f"## {name}", "", _pipes(rows), ""]
    todo = shown.commands(ledger)
    if todo:
        lines += ["## What would measure the rest", ""]
        for _, line, whose, needs in todo:
            lines.append(f"- {', '.join(f'`{one}`' for one in whose)}{f' (needs {needs})' if needs else ''}: `{line}`")
        lines.append("")
    return "\n".join(lines)


def _would_decide(judged: Judged) -> list[str]:
    """What would decide each comparison that has to be. What is said of all is said once; else each is named."""
    wanting = shown.wanting(judged)
    said = list(dict.fromkeys(shown.would_decide(one) for one in wanting))
    if len(said) < 2:
        return said
    return [f"{shown.what(judged.claim, one.comparison)}: {shown.would_decide(one)}" for one in wanting]


def as_json(ledger: Sequence[Judged], size: int) -> str:
    """All that a verdict was made from: whoever has this can make it again."""
    content = {
        "claims_in_ledger": size,
        "claims": [
            {
                **_described(judged.claim),
                "verdict": judged.verdict,
                "would_decide": [
                    {
                        "what": shown.what(judged.claim, one.comparison),
                        "text": shown.would_decide(one),
                        "command": _command(one),
                    }
                    for one in shown.wanting(judged)
                ],
                "comparisons": [
                    {**_compared(one.comparison, size * len(judged.findings)), **_as_found(one)}
                    for one in judged.findings
                ],
            }
            for judged in ledger
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _command(finding: Finding) -> str:
    if finding.state == NOT_MEASURED:
        return shown.command([finding.comparison.at], finding.lacking)
    return shown.command([finding.comparison.at], finding.comparison.variants, finding.total) if finding.total else ""


def _as_found(finding: Finding) -> dict[str, Any]:
    one = finding.comparison
    return {
        "state": finding.state,
        "effect": _number(finding.effect),
        "interval": [_number(finding.low), _number(finding.high)],
        "effect_shown": _number(one.shown(finding.effect)),
        "seeds": list(finding.seeds),
        "per_seed": [_number(value) for value in finding.values],
        "in_region": finding.inside,
        "diverged": dict(finding.diverged),
        "below_start": dict(finding.fallen),
        "missing_cells": finding.missing,
        "cells_without_value": finding.valueless,
        "seeds_needed": finding.total or None,
        "reason": finding.reason,
        "runs": list(finding.runs),
    }


def _number(value: float) -> float | str | None:
    """JSON has no infinities."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


# --- as it stands before any run --------------------------------------------------------------------------------------


def print_claims(claims: Sequence[Claim], parts: Parts, size: int, form: str, console: Console) -> None:
    """Prints the claims with their tests and margins; no store is needed."""
    if form == "csv":
        console.file.write(_comparisons(claims, size).to_csv(index=False))
    elif form == "json":
        content = [
            {**_described(claim),
             "comparisons": [_compared(one, size * len(claim.comparisons)) for one in claim.comparisons]}
            for claim in claims
        ]  # fmt: skip
        console.file.write(
            json.dumps({"claims_in_ledger": size, "claims": content}, indent=1, ensure_ascii=False) + "\n"
        )
    elif form == "markdown":
        console.file.write("\n\n".join(list_markdown(claims, parts)) + "\n")
    else:
        _list_text(claims, parts, console)


def _list_text(claims: Sequence[Claim], parts: Parts, console: Console) -> None:
    for name, own in parts.items():
        chosen = [claim for claim in own if claim in claims]
        if not chosen:
            continue
        console.print(Text(name, "bold"))
        for claim in chosen:
            tables.say(console, f"{claim.id} ({claim.where}): {claim.says}", 2, bold=claim.id)
            tables.say(console, f"{claim.test}: {' and '.join(tests(claim))}", 6)
            tables.say(console, f"margin: {claim.margin}", 6)
            if claim.note:
                tables.say(console, claim.note, 6)
    console.print(terms.counted(len(claims), "claim"), highlight=False)


def list_markdown(claims: Sequence[Claim], parts: Parts) -> list[str]:
    """A heading and a table for each part."""
    blocks = list[str]()
    for name, own in parts.items():
        rows = [
            {
                "claim": f"`{claim.id}`",
                "where": claim.where,
                "says": claim.says + (f". {claim.note}" if claim.note else ""),
                "holds if": "; ".join(tests(claim)),
                "margin": claim.margin,
            }
            for claim in own
            if claim in claims
        ]
        if rows:
            blocks += [f"### {name}", _pipes(rows)]
    return blocks


def tests(claim: Claim) -> list[str]:
    """What has to be seen, by measure, place and region: "BiSSM-5 − SSM: test log-likelihood within ±0.02 nats"."""
    groups = dict[tuple[str, str, str], list[str]]()
    for one in claim.comparisons:
        where = f"{one.at.suite}/{one.at.preset}/{one.at.task}"
        groups.setdefault((one.measure.name, one.region, where), []).append(one.what)
    some = "one of " if claim.some else ""
    return [
        f"{some}{', '.join(whose)}: {measure} {region} ({where})" for (measure, region, where), whose in groups.items()
    ]


def _described(claim: Claim) -> dict[str, Any]:
    return {
        "id": claim.id,
        "where": claim.where,
        "says": claim.says,
        "test": claim.test,
        "margin": claim.margin,
        "note": claim.note,
        "needs": "some" if claim.some else "all",
    }


def _compared(one: Comparison, family: int) -> dict[str, Any]:
    return {
        "what": one.what,
        "measure": one.measure.name,
        "metrics": list(one.measure.metrics),
        "unit": one.measure.unit,
        "logarithm": one.measure.log,
        "suite": one.at.suite,
        "preset": one.at.preset,
        "task": one.at.task,
        "weights": dict(one.weights),
        "region": [_number(one.low), _number(one.high)],
        "family": family,
        "command": shown.command([one.at], one.variants),
    }


def _comparisons(claims: Sequence[Claim], size: int) -> pd.DataFrame:
    rows = []
    for claim in claims:
        for one in claim.comparisons:
            own = _compared(one, size * len(claim.comparisons))
            rows.append(
                {"claim": claim.id, "where": claim.where, "says": claim.says, "test": claim.test}
                | {name: own[name] for name in ("what", "measure", "unit", "logarithm", "suite", "preset", "task")}
                | {"low": one.low, "high": one.high, "family": own["family"], "margin": claim.margin}
            )
    return pd.DataFrame(rows)


def _pipes(rows: Sequence[Mapping[str, str]]) -> str:
    """A table of pipes."""
    headings = list(rows[0])
    lines = [headings, ["---"] * len(headings), *([row[name].replace("|", "\\|") for name in headings] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
