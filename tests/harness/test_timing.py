"""Estimates from what jobs took here, and from what the suite's author measured; never from other conditions."""

import dataclasses
import io
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.data.datasets import checkerboard
from benchmark.measures import ranking
from benchmark.records.rundir import RunDir, Timing
from benchmark.running import timing
from benchmark.running.progress import Bars, duration
from benchmark.tasks import registry
from benchmark.tasks.jobs import Job, jobs
from benchmark.tasks.plan import Choices, plan
from benchmark.tasks.suite_file import load_suite
from tests.harness.tiny import command, records, replaced, write

DATA = checkerboard(Path("nowhere"), 500, 200, 200)
PLACE = timing.Conditions("cpu", 1, 2)


def made(folder: Path, steps: int = 20, **choices: object) -> list[Job]:
    """The jobs of the tiny suite: BiDSM-5 and CD-1, the longest first."""
    suite = load_suite(str(write(folder, replaced(("steps: 20", f"steps: {steps}")))), registry.methods())
    return jobs(plan(suite, Choices(**choices), registry.methods(), {"board": DATA}))  # type: ignore[arg-type]


def took(job: Job, wall: float, train: float, **changes: object) -> Timing:
    seen = Timing(timing.key(job.config), platform.node(), "cpu", 1, False, 1, len(job.cells), job.config["steps"],
                  train, 0.0, wall)  # fmt: skip
    return dataclasses.replace(seen, **changes)  # type: ignore[arg-type]


def estimated(work: list[Job], known: list[Timing], **begun: int) -> float | None:
    return timing.estimate(work, begun, PLACE, known, []).seconds


def test_the_same_jobs_take_as_long_again(tmp_path: Path) -> None:
    work = made(tmp_path)
    assert estimated(work, [took(work[0], 30.0, 20.0), took(work[1], 10.0, 2.0)]) == 30.0  # the longest sets it
    assert estimated(work, [took(work[0], 30.0, 20.0), took(work[1], 50.0, 2.0)]) == 50.0
    assert estimated(work[:1] * 2, [took(work[0], 30.0, 20.0)]) == 30.0
    assert estimated(work[:1] * 3, [took(work[0], 30.0, 20.0)]) == 45.0  # three on two cores


def test_the_latest_counts(tmp_path: Path) -> None:
    work = made(tmp_path)[:1]
    assert estimated(work, [took(work[0], 30.0, 20.0), took(work[0], 60.0, 20.0)]) == 60.0


def test_more_steps_take_more_training_and_no_more_of_the_rest(tmp_path: Path) -> None:
    seen = took(made(tmp_path)[0], 30.0, 20.0)
    assert estimated(made(tmp_path, 100)[:1], [seen]) == pytest.approx(110.0)
    (job,) = made(tmp_path, 100)[:1]
    half = {cell.id: 50 for cell in job.cells}
    assert timing.estimate([job], half, PLACE, [seen], []).seconds == pytest.approx(60.0)


def test_continuous_values_do_not_matter_and_structural_ones_do(tmp_path: Path) -> None:
    job = made(tmp_path)[0]
    other = made(tmp_path, methods=["bidsm"], overrides=[("bidsm", "lr", 0.5), ("bidsm", "sigma", 0.3)])
    assert estimated(other, [took(job, 30.0, 20.0)]) == 30.0
    for key in ("K", "N"):
        changed = made(tmp_path, methods=["bidsm"], overrides=[("bidsm", key, 2)])
        assert estimated(changed, [took(job, 30.0, 20.0)]) is None


def test_some_more_seeds_cost_between_nothing_and_in_proportion(tmp_path: Path) -> None:
    job = made(tmp_path)[0]
    found = estimated(made(tmp_path, seeds=range(8))[:1], [took(job, 30.0, 20.0)])
    assert found == pytest.approx(60.0)
    assert estimated(made(tmp_path, seeds=range(10))[:1], [took(job, 30.0, 20.0)]) is None


@pytest.mark.parametrize("other", [{"compiled": True}, {"threads": 2}, {"device": "cuda:0"}, {"host": "another"}])
def test_other_conditions_say_nothing(tmp_path: Path, other: dict[str, object]) -> None:
    work = made(tmp_path)[:1]
    assert estimated(work, [took(work[0], 30.0, 20.0, **other)]) is None


def test_long_trainings_are_compiled_and_short_ones_say_nothing_of_them(tmp_path: Path) -> None:
    seen = took(made(tmp_path)[0], 30.0, 20.0)
    long = made(tmp_path, 5000)[:1]
    assert estimated(long, [seen]) is None
    compiled = dataclasses.replace(seen, compiled=True, compile_seconds=8.0, steps=10_000)
    assert estimated(long, [seen, compiled]) == pytest.approx(8 + 10 + 2)


def test_what_was_measured_elsewhere_counts_by_how_fast_this_machine_is(tmp_path: Path) -> None:
    short, long = made(tmp_path), made(tmp_path, 5000)
    measured = [(1.0, short), (10.0, long)]
    published = timing.published(measured)
    assert sum(map(published, short)) == pytest.approx(120)  # a minute of two cores
    assert sum(map(published, long)) == pytest.approx(1200)
    unknown = timing.estimate(long, {}, PLACE, [], measured)
    assert (unknown.seconds, unknown.elsewhere) == (None, pytest.approx(600))
    assert timing.said(unknown).endswith("measured on 2 cores of a server, at about 10 min")
    three_times = [took(job, 180.0, 50.0) for job in short]  # 360 s in place of 120, however the two share it
    found = timing.estimate(long, {}, PLACE, three_times, measured)
    assert found.seconds == pytest.approx(max(1800, 3 * max(map(published, long))))
    assert timing.said(found).startswith("about ")


def test_a_part_of_a_task_is_not_known_from_the_whole_and_takes_no_longer(tmp_path: Path) -> None:
    short, long = made(tmp_path), made(tmp_path, 5000)
    measured = [(1.0, short), (10.0, long)]
    seen = [took(job, 180.0, 50.0) for job in short]
    for part in (long[:1], long[1:]):
        found = timing.estimate(part, {}, PLACE, seen, measured)
        assert found == timing.ExpectedTime(None, None, None, 1, 600)
        assert timing.said(found) == (
            "how long it takes here is not known yet; the whole of which it is a part was measured on 2 cores of a "
            "server, at about 10 min"
        )
    more = timing.estimate(made(tmp_path, 5000, seeds=range(8))[:1], {}, PLACE, seen, measured)
    assert timing.said(more).endswith("the whole of which it is a part was measured on 2 cores of a server, at about "
                                      "10 min, with 2 in place of 8 seeds")  # fmt: skip
    assert timing.estimate(made(tmp_path, 7000)[:1], {}, PLACE, [], measured).within is None  # is more than the whole
    assert timing.estimate(long, {}, PLACE, seen[:1], measured).seconds is None


def test_what_is_known_is_said_where_other_jobs_are_not(tmp_path: Path) -> None:
    work = made(tmp_path)
    found = timing.estimate(work, {}, PLACE, [took(work[0], 300.0, 20.0)], [])
    assert (found.seconds, found.least, found.unknown) == (None, 300.0, 1)
    assert timing.said(found) == "at least 5 min, by what has been trained here; 1 other job has not been yet"


@pytest.mark.parametrize("slowness", [0.5, 1.0, 3.0])
def test_another_size_of_preset_is_estimated_within_a_factor_of_two(tmp_path: Path, slowness: float) -> None:
    """Jobs that take a start of their own, a step time of their own, evaluations, and some compiling."""
    steps_ms, start = {"bidsm": 9.0, "cd": 2.0}, 4.0

    def took_here(job: Job) -> Timing:
        compiled = job.config["steps"] > 1000
        train = slowness * job.config["steps"] * steps_ms[job.config["method"]] / 1000 / (10 if compiled else 1)
        compiling = slowness * 8.0 * compiled
        return took(job, train + compiling + slowness * start, train, compiled=compiled, compile_seconds=compiling)

    sizes = {steps: made(tmp_path, steps) for steps in (200, 400, 800, 5000, 20_000)}
    for before, after in ((200, 800), (800, 200), (400, 800), (5000, 20_000), (20_000, 5000)):
        known = [took_here(job) for job in sizes[before]]
        truth = [took_here(job).wall_seconds for job in sizes[after]]
        said = estimated(sizes[after], known)
        assert said is not None
        assert 0.5 <= said / max(sum(truth) / PLACE.at_once, *truth) <= 2.0, (before, after)


def test_of_other_steps_it_is_known_where_both_are_compiled_or_not(tmp_path: Path) -> None:
    published = timing.published([(10.0, made(tmp_path, 5000))])
    whole = sum(map(published, made(tmp_path, 5000)))
    assert sum(map(published, made(tmp_path, 10_000))) == pytest.approx(2 * whole)
    assert sum(map(published, made(tmp_path, 5000, seeds=range(8)))) == pytest.approx(2 * whole)
    assert published(made(tmp_path)[0]) != published(made(tmp_path)[0])  # not a number


def test_nothing_is_known_of_what_nobody_has_measured(tmp_path: Path) -> None:
    text = timing.said(timing.estimate(made(tmp_path), {}, PLACE, [], []))
    assert text == "how long it takes is not known: nothing like it has been trained here yet"


def test_a_run_keeps_how_it_was_timed_and_estimates_the_next(tmp_path: Path) -> None:
    write(tmp_path)
    run = ("run", "--suite", "tiny.yaml", "--methods", "cd")
    first = command(tmp_path, *run)
    assert "how long it takes is not known" in first.out
    runs = RunDir(tmp_path / "runs")
    (seen,) = runs.timings()
    assert (seen.compiled, seen.threads, seen.beside, seen.seeds, seen.steps) == (False, 1, 0, 2, 20)
    assert 0 < seen.train_seconds < seen.wall_seconds
    for record in records(tmp_path):
        held = runs.folder(record.id).config["timing"]
        assert held == {"compiled": False, "threads": 1, "jobs_beside": 0}
        held = runs.folder(record.id).config["took"]
        assert 2 * held["training"] == pytest.approx(seen.train_seconds)  # of two seeds
        assert min(held[what] for what in ("training", "evaluating", "pictures", "the rest")) > 0
        assert 2 * sum(held.values()) <= seen.wall_seconds
    runs.close()
    for out in (first.out, command(tmp_path, "status").out):
        assert "times: not compiled, on cpu with 1 thread, alone" in out
        assert re.search(r"the jobs took \d+ s: .*evaluating \d+ s", " ".join(out.split()))
    again = command(tmp_path, *run, "--seeds", "2-3", "--dry-run")
    assert "by what has been trained here" in again.out


def test_where_the_time_of_all_jobs_went_is_said_the_most_first() -> None:
    seeds = [{"took": {"training": 5.0, "compiling": 0.0, "probe annealing": 80.0, "the rest": 0.1}}] * 2
    old = {"timing": {"compiled": True}}  # of before this was recorded
    assert timing.spent([*seeds, old]) == "3 min: probe annealing 3 min, training 10 s"
    assert timing.spent([old]) == ""


def test_the_latest_run_beside_others_says_so(tmp_path: Path) -> None:
    said = ranking.conditions(
        [
            {"device": "cpu", "timing": {"compiled": True, "threads": 2, "jobs_beside": 3}},
            {"device": "cpu", "timing": {"compiled": True, "threads": 2, "jobs_beside": 3}},
            {"device": "cuda:0", "timing": {"compiled": False, "threads": 1, "jobs_beside": 0}},
            {"device": "cpu"},  # of before this was recorded
        ]
    )
    assert (
        said
        == "compiled, on cpu with 2 threads, beside 3 other jobs (2 cells); not compiled, on cuda:0, alone (1 cell)"
    )


def test_a_task_that_was_interrupted_tells_how_fast_this_machine_is(tmp_path: Path) -> None:
    """What is left of it is known from what is done, and so is a task of which nothing is done."""
    short, long = made(tmp_path), made(tmp_path, 5000)
    measured = [(1.0, short), (10.0, long)]
    published = timing.published(measured)
    (done, rest), each = short, published(short[0])
    seen = took(done, 3 * each, each)
    found = timing.estimate([rest, *long], {}, PLACE, [seen], measured).seconds
    assert found == pytest.approx(
        max(3 * sum(map(published, [rest, *long])) / 2, *(3 * published(job) for job in long))
    )
    resumed = timing.estimate([rest], {}, PLACE, [took(long[0], 3 * published(long[0]), 1.0, compiled=True)], measured)
    assert resumed.seconds is None  # of neither task the whole is there
    begun_before = timing.estimate([rest], {}, PLACE, [seen], measured, short)
    assert begun_before.seconds == pytest.approx(3 * published(rest))


def test_what_is_left_is_told_by_the_jobs_that_are_left(tmp_path: Path) -> None:
    """Cheap jobs that are done say nothing of dear ones that are not."""
    short, long = made(tmp_path), made(tmp_path, 5000)
    measured = [(1.0, short), (10.0, long)]
    whole, share = [*short, *long], timing.published(measured)
    known = [took(short[0], 2 * share(short[0]), 1.0)]
    outlook = timing.Outlook(PLACE, lambda: known, measured, whole, {})
    rest = [*short[1:], *long]
    seconds = max(sum(map(share, rest)), *(2 * share(job) for job in long))
    assert outlook.left(rest, {}) == f"about {duration(seconds)} left"
    known.append(took(long[0], 4000.0, 4000.0, compiled=True))
    half = {cell.id: 2500 for cell in long[0].cells}
    assert outlook.left(long[:1], half) == "about 33 min left"
    alone = timing.Outlook(PLACE, lambda: known, [], whole, half)
    assert alone.left(long[:1] * 3 + short[1:], {}) == "at least 50 min left"  # half of each was done before
    assert alone.left(short[1:], {}) == "time left not known"


def test_bars_show_the_time_left_of_the_jobs_as_lines_do(tmp_path: Path) -> None:
    work = made(tmp_path)
    out = io.StringIO()
    asked: list[dict[str, int]] = []

    def left(steps: Mapping[str, int]) -> str:
        asked.append(dict(steps))
        return "at least 5 min left"

    bars = Bars(Console(force_terminal=True, file=out, width=200), work, left)
    for job in work:
        bars.started(job)
    bars.stepped(work[1], 7)
    bars.ended(work[0], "done", 3.0, None)
    assert asked == [{cell.id: 7 for cell in work[1].cells}]
    assert "done in 3 s, at least 5 min left" in out.getvalue()
    shown = io.StringIO()
    Console(file=shown, width=200).print(bars.progress.get_renderable())
    (line,) = [line for line in shown.getvalue().splitlines() if line.startswith("jobs")]
    assert line.rstrip().endswith("at least 5 min left")
    bars.ended(work[1], "done", 4.0, None)
    assert out.getvalue().rstrip().endswith("done in 4 s")
