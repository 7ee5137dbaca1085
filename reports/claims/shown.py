"""The ledger in words: what was found of a comparison, and what would decide one that is open."""

import math
import shlex
from collections.abc import Iterable, Sequence

import pandas as pd

from benchmark.measures import statistics
from benchmark.system.invocation import call
from benchmark.system.tables import counted, ranges
from reports.claims.claim import Claim, Comparison, Place
from reports.claims.verdict import MOST_SEEDS, NOT_MEASURED, OPEN, UNDECIDED, VERDICTS, Finding, Judged

_COMMANDED = 100  # seeds at most that a command asks for


def what(claim: Claim, one: Comparison) -> str:
    """A comparison by what tells it from the others of its claim: its variants, the task, the measure."""
    whose, tasks, measures = ({getattr(other, of) for other in claim.comparisons} for of in ("what", "at", "measure"))
    if len(whose) == 1 < len(measures):
        return one.measure.name
    text = one.what if len(tasks) == 1 else f"{one.what} ({one.at.task})"
    return text if len(measures) == 1 else f"{text}, {one.measure.name}"


def effect(finding: Finding) -> str:
    """ "+0.0037 ± 0.0086 nats", "×1.12 (0.98 to 1.28)"; nothing where nothing was measured."""
    one = finding.comparison
    if math.isnan(finding.effect):
        return ""
    if math.isinf(finding.effect):
        return f"{'−' if finding.effect < 0 else '+'}∞"
    half = (finding.high - finding.low) / 2
    if one.measure.log:
        low, middle, high = (
            statistics.number(one.shown(value)) for value in (finding.low, finding.effect, finding.high)
        )
        return f"×{middle}" if math.isnan(half) else f"×{middle} ({low} to {high})"
    text = statistics.written(finding.effect, half, "+" if len(one.weights) > 1 else "")
    spread = "" if math.isnan(half) else f" ± {statistics.number(half, 2)}"
    return f"{text}{spread}{f' {one.measure.unit}' if one.measure.unit else ''}".replace("-", "−")


def seeds(judged: Judged) -> str:
    """How many seeds the deciding comparison has, and what is to be known of them: "9, BiSSM-0 diverged in 1"."""
    count = len(judged.deciding.seeds)
    return ", ".join([*([str(count)] if count else []), *remarks(judged)])


def remarks(judged: Judged) -> list[str]:
    """What became of other seeds, in any comparison of the claim: "BiSSM-0 diverged in 1", "2 cells missing".

    Named, too, is what makes a mean say little: seeds that ended below their untrained model, and a mean in the region
    of seeds most of which are not.
    """
    finding, several = judged.deciding, len({one.comparison.at.task for one in judged.findings}) > 1
    told = list[str]()
    for one in judged.findings:
        where = f" ({one.comparison.at.task})" if several else ""
        told += [text + where for text in _diverged(one) + _fallen(one)]
    told += _apart(finding)
    told += [f"{counted(finding.missing, 'cell')} missing"] if finding.missing else []
    told += [f"{counted(finding.valueless, 'cell')} without a value"] if finding.valueless and finding.seeds else []
    return list(dict.fromkeys(told))


def wanting(judged: Judged) -> list[Finding]:
    """The comparisons that have to be decided for a verdict."""
    if judged.verdict not in (UNDECIDED, NOT_MEASURED):
        return []
    return [one for one in judged.findings if one.state in (OPEN, NOT_MEASURED)]


def would_decide(finding: Finding) -> str:
    """What would decide a comparison that is not, without the command."""
    if finding.state == NOT_MEASURED:
        needs = f"; needs {finding.comparison.at.needs}" if finding.comparison.at.needs else ""
        metrics = finding.comparison.measure.metrics
        named = metrics[0] if len(metrics) == 1 else f"{metrics[0]} and others"
        return f"runs of {', '.join(finding.lacking)} with {named}{needs}"
    if finding.reason:
        return finding.reason
    told = f"; {', '.join(_fallen(finding))}: other settings come first" if finding.fallen else ""
    if not finding.total:
        return f"more than {MOST_SEEDS:,} seeds: the effect is at the edge of the margin, or its spread is wide{told}"
    if math.isnan(finding.low):
        return f"{finding.total} seeds at least: of {counted(len(finding.seeds), 'seed')} no spread is known"
    return f"about {counted(finding.total, 'seed')} at the spread seen; there are {len(finding.seeds)}{told}"


def _diverged(finding: Finding) -> list[str]:
    return [f"{variant} diverged in {count}" for variant, count in finding.diverged.items()]


def _fallen(finding: Finding) -> list[str]:
    return [f"{variant} below its start in {count}" for variant, count in finding.fallen.items()]


def _apart(finding: Finding) -> list[str]:
    """That the mean is in the region and fewer than half of the seeds are."""
    inside = finding.inside
    return [f"{inside} of them in the region"] if finding.slack >= 0 and 2 * inside < len(finding.values) else []


def command(at: Sequence[Place], variants: Iterable[str], total: int = 0) -> str:
    """What would run them on these tasks of one preset: with the preset's seeds, or so many; nothing where nobody would
    run so many."""
    if total > _COMMANDED:
        return ""
    tasks, named = dict.fromkeys(one.task for one in at), map(shlex.quote, dict.fromkeys(variants))
    asked = f"0-{total - 1}" if total else at[0].seeds
    line = ["run", "--suite", at[0].suite, "--preset", at[0].preset, "--tasks", *tasks, "--variants", *named]
    return call("benchmark", *line, *(("--seeds", asked) if asked else ()))


def more_seeds(judged: Judged) -> str:
    """What would add the seeds that an undecided claim needs; nothing where that is no matter of seeds, or of more than
    anybody would run."""
    asking = [one for one in wanting(judged) if one.state == OPEN and 0 < one.total <= _COMMANDED]
    if not asking:
        return ""
    variants = [name for one in asking for name in one.comparison.variants]
    return command([one.comparison.at for one in asking], variants, max(one.total for one in asking))


def commands(ledger: Sequence[Judged]) -> list[tuple[tuple[str, str], str, list[str], str]]:
    """What would measure what is not measured: of each suite and preset a command, the claims that it is for, and what
    a machine needs."""
    groups = dict[tuple[str, str], list[tuple[str, Finding]]]()
    for judged in ledger:
        for finding in wanting(judged):
            if finding.state == NOT_MEASURED:
                at = finding.comparison.at
                groups.setdefault((at.suite, at.preset), []).append((judged.claim.id, finding))
    return [
        (
            preset,
            command([one.comparison.at for _, one in group], [name for _, one in group for name in one.lacking]),
            list(dict.fromkeys(claim for claim, _ in group)),
            group[0][1].comparison.at.needs,
        )
        for preset, group in groups.items()
    ]


def counts(ledger: Sequence[Judged]) -> str:
    """ "64 claims: 9 supported, 4 contradicted, 11 undecided, 40 not measured"."""
    found = [judged.verdict for judged in ledger]
    return f"{counted(len(found), 'claim')}: " + ", ".join(f"{found.count(one)} {one}" for one in VERDICTS)


def level(size: int) -> str:
    """How intervals are made, for a caption."""
    return (
        f"Intervals: Student's t over seeds, paired where variants are compared, each at 1 − 0.05 / ({size} c) for one "
        f"of the c comparisons of one of the ledger's {size} claims, so that all of them hold at once in at least "
        f"{statistics.LEVEL:.0%} of experiments (Bonferroni), whatever else is run or shown. A seed that diverged has "
        "the worst value that there is. Times are taken to be known within a factor of 1.25."
    )


def numbers(ledger: Sequence[Judged], size: int) -> pd.DataFrame:
    """One row per comparison, with all that its verdict was made from."""
    return pd.DataFrame(
        [
            {
                "claim": judged.claim.id,
                "verdict": judged.verdict,
                "where": judged.claim.where,
                "test": judged.claim.test,
                "comparison": what(judged.claim, one),
                "measure": one.measure.name,
                "unit": "ratio" if one.measure.log else one.measure.unit,
                "suite": one.at.suite,
                "preset": one.at.preset,
                "task": one.at.task,
                "effect": one.shown(finding.effect),
                "low": one.shown(finding.low),
                "high": one.shown(finding.high),
                "holds from": one.shown(one.low),
                "holds to": one.shown(one.high),
                "state": finding.state,
                "seeds": ranges(finding.seeds),
                "diverged": sum(finding.diverged.values()),
                "below start": sum(finding.fallen.values()),
                "in the region": finding.inside,
                "missing": finding.missing,
                "without value": finding.valueless,
                "family": size * len(judged.claim.comparisons),
                "would decide": would_decide(finding) if finding in wanting(judged) else "",
            }
            for judged in ledger
            for finding in judged.findings
            for one in [finding.comparison]
        ]
    )
