"""What jobs have taken on this machine, and from that what others will take."""

import dataclasses
import hashlib
import json
import math
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmark.records.rundir import Timing
from benchmark.running.progress import duration
from benchmark.tasks.jobs import Job
from bism.engine import pays

CORES = 2  # of the machine on which the minutes of suite files were measured
_FAR = 4  # times as many seeds, or as few: what is then not known from the other number


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Where jobs are to run: the device, the threads of each, and how many of them at once."""

    device: str
    threads: int
    at_once: int


@dataclasses.dataclass(frozen=True)
class ExpectedTime:
    """Seconds until all is done, or None where that is not known here; and what it took where it was measured.

    least: of the jobs that are known, where others are not.
    unknown: how many jobs are not known.
    within: where only a part is trained of what was measured elsewhere: what the whole took there.
    seeds: where that was of fewer seeds than these jobs have: its seeds, and theirs.
    """

    seconds: float | None
    elsewhere: float | None
    least: float | None = None
    unknown: int = 0
    within: float | None = None
    seeds: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What is left of a run while it goes on, by what its jobs turn out to take.

    known: reads the timings that there are now.
    measured: as for ``estimate``.
    whole: the jobs of the run, finished ones too.
    begun: iterations that were done before it, by cell.
    """

    place: Conditions
    known: Callable[[], Iterable[Timing]]
    measured: Sequence[tuple[float, Sequence[Job]]]
    whole: Sequence[Job]
    begun: Mapping[str, int]

    def left(self, work: Sequence[Job], steps: Mapping[str, int]) -> str:
        """ "about 5 min left", "at least" where it is not known of every job, or that it is not known."""
        expected = _expected(work, {**self.begun, **steps}, self.place, self.known(), self.measured, self.whole)
        took = [ours for ours, _ in expected if not math.isnan(ours)]
        if work and not took:
            return "time left not known"
        together = max(sum(took) / self.place.at_once, max(took, default=0.0))
        return f"{'about' if len(took) == len(work) else 'at least'} {duration(together)} left"


def key(config: Mapping[str, Any]) -> str:
    """The same for jobs whose steps cost the same: everything but seeds, steps, labels and continuous values."""
    names = ("method", "model", "batch_size", "precision", "accumulate", "metrics", "evaluations")
    content = {
        **{name: config[name] for name in names},
        "data": config["data"]["hash"],
        "noisy": config["data_noise"] > 0,
        "hyper": {name: value for name, value in config["hyper"].items() if not isinstance(value, float)},
        "probes": [(probe["name"], probe["options"]) for probe in config["probes"]],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def estimate(
    work: Sequence[Job],
    begun: Mapping[str, int],
    place: Conditions,
    known: Iterable[Timing],
    measured: Sequence[tuple[float, Sequence[Job]]],
    whole: Sequence[Job] = (),
) -> ExpectedTime:
    """What these jobs will take.

    From what the same jobs took here, compiled or not as these will be. For a job that has not been seen here, of a
    preset's task that is trained whole, what it took where the suite's author measured it, times how much slower or
    faster this machine was at what is known from both. A part is not known from the whole, but takes no longer,
    unless it has more seeds.

    Args:
        begun: iterations that are done already, by cell.
        measured: minutes, and the jobs of a preset's task that together took so long there.
        whole: the jobs of the run, finished ones too.
    """
    expected = _expected(work, begun, place, known, measured, [*work, *whole])
    took = [ours for ours, _ in expected if not math.isnan(ours)]
    least, unknown = max(sum(took) / place.at_once, max(took, default=0.0)), len(expected) - len(took)
    elsewhere = _known(sum(theirs for _, theirs in expected) / CORES)
    if not unknown:
        return ExpectedTime(least, elsewhere)
    return ExpectedTime(None, elsewhere, least if took else None, unknown, *_within(work, measured))


def _within(
    work: Iterable[Job], measured: Iterable[tuple[float, Sequence[Job]]]
) -> tuple[float | None, tuple[int, int] | None]:
    """The seconds that the presets' tasks took that these jobs are parts of, None where one is part of none; and the
    seeds there and here of what has the most more here."""
    wanted, seconds, pairs = _seeds(work), 0.0, list[tuple[int, int]]()
    for minutes, jobs in measured:
        there = _seeds(jobs)
        if found := wanted.keys() & there:
            seconds += 60 * minutes
            pairs += [(there[one], wanted.pop(one)) for one in found]
    most = max(pairs, key=lambda pair: pair[1] / pair[0], default=(1, 1))
    return (None, None) if wanted else (seconds, most if most[1] > most[0] else None)


def _seeds(jobs: Iterable[Job]) -> dict[tuple[tuple[str, bool], int], int]:
    """How many seeds what is trained alike has."""
    found = defaultdict[tuple[tuple[str, bool], int], set[int]](set)
    for job in jobs:
        found[_identity(job), job.config["steps"]].update(cell.config["seed"] for cell in job.cells)
    return {one: len(seeds) for one, seeds in found.items()}


def _expected(
    work: Sequence[Job],
    begun: Mapping[str, int],
    place: Conditions,
    known: Iterable[Timing],
    measured: Sequence[tuple[float, Sequence[Job]]],
    whole: Sequence[Job],
) -> list[tuple[float, float]]:
    """The seconds that are left of each job: here, and on a core of the author's machine; NaN where not known.

    Args:
        whole: jobs that, with those that are known, make tasks whole.
    """
    here = platform.node(), place.device, place.threads
    seen = [one for one in known if (one.host, one.device, one.threads) == here]
    there = {_identity(job) for job in whole} | {(one.key, one.compiled) for one in seen}
    shared = [one for one in measured if there.issuperset(map(_identity, one[1]))]
    share, slowness, found = published(shared), _slowness(seen, measured, shared), list[tuple[float, float]]()
    for job in work:
        left = 1 - sum(begun.get(cell.id, 0) for cell in job.cells) / (job.config["steps"] * len(job.cells))
        theirs = share(job) * left
        ours = seconds(job, left, seen)
        found.append((theirs * slowness if ours is None else ours, theirs))
    return found


def seconds(job: Job, left: float, seen: Iterable[Timing]) -> float | None:
    """What is left of a job takes, by the latest like it; None where there is none.

    Some seeds more or fewer side by side cost between nothing and in proportion: the geometric mean.
    """
    ours, compiled, count = key(job.config), pays(job.config["steps"]), len(job.cells)
    like = [
        one for one in seen if (one.key, one.compiled) == (ours, compiled) and 1 <= _FAR * one.seeds / count <= _FAR**2
    ]
    if not like:
        return None
    one, steps = like[-1], job.config["steps"]
    rest = max(0.0, one.wall_seconds - one.train_seconds - one.compile_seconds)
    scale = math.sqrt(count / one.seeds)
    return one.compile_seconds + scale * (rest + left * one.train_seconds * steps / one.steps)


def _slowness(
    seen: Sequence[Timing],
    measured: Iterable[tuple[float, Sequence[Job]]],
    shared: Sequence[tuple[float, Sequence[Job]]],
) -> float:
    """How many times as long jobs take here as where they were measured; NaN where nothing is known of it.

    By the tasks that are known here whole; where there are none, the median over the jobs of tasks that become whole
    (``shared``): how a task's minutes are shared among its jobs is known only roughly.
    """
    ours, theirs = 0.0, 0.0
    for minutes, jobs in measured:
        took = [seconds(job, 1.0, seen) for job in jobs]
        if None not in took:
            ours, theirs = ours + sum(one for one in took if one is not None), theirs + 60 * CORES * minutes
    if theirs:
        return ours / theirs
    share, single = published(shared), {_identity(job): job for _, jobs in shared for job in jobs}
    both = [(seconds(job, 1.0, seen), share(job)) for job in single.values()]
    ratios = [one / other for one, other in both if one is not None]
    return statistics.median(ratios) if ratios else math.nan


def _identity(job: Job) -> tuple[str, bool]:
    return key(job.config), pays(job.config["steps"])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def published(presets: Iterable[tuple[float, Sequence[Job]]]) -> Callable[[Job], float]:
    """The seconds of a job on a core where the suite's author measured it; NaN where nobody has.

    A task's minutes are shared among its jobs in proportion to ``Job.work``. Of a job with other steps or seeds the
    training is taken in proportion; nothing is known where one of the two is compiled and the other not.
    """
    found: dict[tuple[str, bool], tuple[float, Job]] = {}
    for minutes, jobs in presets:
        whole = sum(job.work for job in jobs)
        for job in jobs:
            found[_identity(job)] = 60 * CORES * minutes * job.work / whole, job

    def of(job: Job) -> float:
        took, like = found.get(_identity(job), (math.nan, job))
        return took * job.config["steps"] / like.config["steps"] * math.sqrt(len(job.cells) / len(like.cells))

    return of


def said(estimate: ExpectedTime) -> str:
    """For people: "about 12 min", or that it is not known."""
    if estimate.seconds is not None:
        return f"about {duration(estimate.seconds)}, by what has been trained here"
    if estimate.least is not None:
        others = f"{estimate.unknown} other job{'s have' if estimate.unknown > 1 else ' has'}"
        return f"at least {duration(estimate.least)}, by what has been trained here; {others} not been yet"
    if estimate.elsewhere is None and estimate.within is None:
        return "how long it takes is not known: nothing like it has been trained here yet"
    what = "it" if estimate.elsewhere is not None else "the whole of which it is a part"
    took = estimate.elsewhere if estimate.elsewhere is not None else estimate.within
    fewer = ", with {} in place of {} seeds".format(*estimate.seeds) if estimate.seeds else ""
    return (
        f"how long it takes here is not known yet; {what} was measured on {CORES} cores of a server, "
        f"at about {duration(took or 0.0)}{fewer}"
    )


def spent(configs: Iterable[Mapping[str, Any]]) -> str:
    """Where the time of finished cells' jobs went: "60 s: evaluating 42 s, training 10 s, the rest 8 s"."""
    found = defaultdict[str, float](float)
    for config in configs:
        for what, seconds in config.get("took", {}).items():
            found[what] += seconds
    whole = sum(found.values())
    first = sorted(found, key=lambda what: -found[what])
    parts = [f"{what} {duration(found[what])}" for what in first if found[what] >= 0.005 * whole]
    return f"{duration(whole)}: {', '.join(parts)}" if whole else ""
