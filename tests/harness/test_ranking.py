"""The table at the end of a run: means, intervals and order."""

import contextlib
import io
import math
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from benchmark.measures import ranking
from benchmark.measures.statistics import interval, written
from benchmark.records.rundir import Record, RunDir
from tests.harness.tiny import TINY, command

LIKELIHOOD, DIVERGENCE = "test/log_likelihood", "test/fisher_divergence"


def frame(*rows: tuple[str, float, str], metric: str = LIKELIHOOD) -> pd.DataFrame:
    """Cells of one task: variant, value, state."""
    return pd.DataFrame(
        [
            {
                "task": "board",
                "variant": variant,
                "configuration": variant,
                "state": state,
                metric: value,
                "time/train_seconds": 10 * (index + 1),
                "time/ms_per_step": 1.5,
            }
            for index, (variant, value, state) in enumerate(rows)
        ]
    )


def printed(table: pd.DataFrame, metric: str = LIKELIHOOD) -> list[list[str]]:
    """The table's rows as people see them."""
    out = io.StringIO()
    Console(file=out, width=120).print(ranking.table(table, "board", metric, "the last iteration"))
    return [[text.strip() for text in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]


def test_the_interval_is_student_s() -> None:
    mean, half_width = interval([1.0, 2.0, 3.0, 6.0])
    deviation = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (3 - 3) ** 2 + (6 - 3) ** 2) / 3)
    assert mean == 3.0
    assert half_width == pytest.approx(3.182446 * deviation / math.sqrt(4), rel=1e-6)  # t of 3 degrees at 97.5%


def test_the_interval_of_two_and_of_equal_values() -> None:
    assert interval([0.0, 2.0]) == (1.0, pytest.approx(12.7062, rel=1e-5))  # t of 1 degree, deviation sqrt 2
    assert interval([0.5] * 5) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("value", "half_width", "said"),
    [
        (0.34123, 0.0021, "0.3412"),
        (-7.123, 2.345, "-7.1"),
        (-357417.3, 1234.0, "-357,417"),
        (-1.234e-7, 2.1e-10, "-1.2340e-07"),
        (2.1e-10, 2.1e-10, "2.1e-10"),  # not ± 0.000
        (-0.001, 0.3, "0.00"),  # not -0.00
        (-63.5123, math.nan, "-63.51"),
        (0.5, 0.0, "0.5000"),
        (0.0, 0.0, "0"),
        (math.nan, math.nan, "-"),
    ],
)
def test_a_value_has_the_digits_that_its_interval_leaves(value: float, half_width: float, said: str) -> None:
    assert written(value, half_width) == said


def test_a_divergence_in_small_units_is_no_row_of_zeros_and_is_named() -> None:
    cells = frame(*[("A", -1.2e-7 + i * 1e-9, "done") for i in range(3)], metric=DIVERGENCE)
    assert printed(ranking.ranking(cells, DIVERGENCE), DIVERGENCE)[0][1:3] == ["-1.190e-07", "± 2.5e-09"]
    out = io.StringIO()
    shown = ranking.table(ranking.ranking(cells, DIVERGENCE), "board", DIVERGENCE, "x")
    Console(file=out, width=200).print(shown)
    assert "Fisher divergences are up to a constant of the data" in " ".join(out.getvalue().split())
    likelihood = ranking.ranking(frame(("A", 1.0, "done")), LIKELIHOOD)
    assert "constant" not in ranking.caption(likelihood, LIKELIHOOD, "x")
    assert "constant" in ranking.caption(likelihood.assign(**{DIVERGENCE: 0}), LIKELIHOOD, "x")


def test_one_seed_has_no_interval() -> None:
    mean, half_width = interval([0.25])
    assert mean == 0.25
    assert math.isnan(half_width)
    assert printed(ranking.ranking(frame(("A", 0.25, "done")), LIKELIHOOD)) == [
        ["A", "0.2500", "-", "1", "10.0", "1.50"]
    ]


@pytest.mark.parametrize(("metric", "order"), [(LIKELIHOOD, ["C", "A", "B"]), (DIVERGENCE, ["B", "A", "C"])])
def test_the_best_is_first(metric: str, order: list[str]) -> None:
    cells = frame(("A", 1.0, "done"), ("B", 0.0, "done"), ("C", 2.0, "done"), metric=metric)
    assert list(ranking.ranking(cells, metric)["variant"]) == order


def test_seeds_that_diverged_are_counted_and_not_averaged() -> None:
    cells = frame(("A", 1.0, "done"), ("A", 3.0, "done"), ("A", -100.0, "diverged"), ("B", 1.5, "done"))
    ranked = ranking.ranking(cells, LIKELIHOOD)
    assert list(ranked["variant"]) == ["A", "B"]
    assert list(ranked["mean"]) == [2.0, 1.5]
    assert list(ranked["seeds"]) == [2, 1]
    assert list(ranked["diverged"]) == [1, 0]
    assert list(ranked["train_seconds"]) == [15.0, 40.0]
    assert printed(ranked)[0][3] == "2 (+1 diverged)"
    assert printed(ranked)[1][3] == "1"


@pytest.mark.parametrize("metric", [LIKELIHOOD, DIVERGENCE])
def test_a_variant_without_a_sound_seed_is_last(metric: str) -> None:
    cells = frame(("A", 9.0, "diverged"), ("A", -9.0, "diverged"), ("B", 1.5, "done"), metric=metric)
    ranked = ranking.ranking(cells, metric)
    assert list(ranked["variant"]) == ["B", "A"]
    assert printed(ranked, metric)[1] == ["A", "-", "-", "0 (+2 diverged)", "-", "-"]


def test_configurations_of_one_name_are_not_averaged() -> None:
    cells = frame(("A", 1.0, "done"), ("A", 3.0, "done"))
    cells["configuration"] = ["before", "after"]
    assert list(ranking.ranking(cells, LIKELIHOOD)["mean"]) == [3.0, 1.0]


def test_brackets_in_names_are_printed() -> None:
    name = "CD-1 [lr=0.5, steps=7]"  # rich would take it for a style
    assert printed(ranking.ranking(frame((name, 1.0, "done")), LIKELIHOOD))[0][0] == name


def test_results_are_the_last_values_of_finished_cells(tmp_path: Path) -> None:
    states = {"one": "done", "two": "diverged", "three": "failed", "four": "planned", "five": "done"}
    with contextlib.closing(RunDir(tmp_path)) as runs:
        for seed, (name, state) in enumerate(states.items()):
            runs.plan([Record(name, "tiny", "test", "board", "cd", "CD-1", seed, 20, "planned")])
            runs.folder(name).prepare(
                {
                    "hyper": {"k": 1},
                    "rule": "last",
                    "select": "val/x",
                    "seed": seed,
                    "pictures": seed == 0,
                    "device": f"cuda:{seed}",
                }
            )
            for step in (0, 10, 20) if name != "five" else ():
                runs.folder(name).append(step, {LIKELIHOOD: float(step + seed)})
            runs.set_state(name, state)
        found = ranking.results(runs, runs.records())
    assert found[["seed", "state", "step", LIKELIHOOD]].values.tolist() == [
        [0, "done", 20, 20.0],
        [1, "diverged", 20, 21.0],
    ]
    assert found["configuration"].nunique() == 1
    assert ranking.rules(found, LIKELIHOOD) == "the last iteration"


def test_the_rule_stands_under_the_table() -> None:
    out = io.StringIO()
    ranked = ranking.ranking(frame(("A", 1.0, "done")), LIKELIHOOD)
    Console(file=out, width=120).print(ranking.table(ranked, "board", LIKELIHOOD, "the mean of something"))
    assert "A seed's value: the mean of something" in out.getvalue()


def test_under_the_table_stands_by_which_clock_a_step_is_timed() -> None:
    cells = frame(("A", 1.0, "done")).assign(**{"time/processor_ms_per_step": 0.25})
    wall = ranking.ranking(cells, LIKELIHOOD)
    assert printed(wall)[0][-1] == "1.50"
    assert "ms per seed and step: by the wall's clock." in ranking.caption(wall, LIKELIHOOD, "x")
    processor = ranking.ranking(cells, LIKELIHOOD, ranking.PROCESSOR)
    assert printed(processor)[0][-1] == "0.250"
    assert "ms per seed and step: by the processor's clock, which" in ranking.caption(processor, LIKELIHOOD, "x")
    untimed = ranking.ranking(cells.drop(columns="time/ms_per_step"), LIKELIHOOD)
    assert "clock" not in ranking.caption(untimed, LIKELIHOOD, "x")


def test_a_lucky_last_evaluation_does_not_decide(tmp_path: Path) -> None:
    curves = {"steady": [0.5] * 21, "lucky": [0.0] * 20 + [1.0]}
    with contextlib.closing(RunDir(tmp_path)) as runs:
        for name, values in curves.items():
            runs.plan([Record(name, "tiny", "test", "board", "cd", name, 0, 20, "planned")])
            config = {"rule": "last_tenth", "select": "val/log_likelihood"}
            runs.folder(name).prepare({**config, "hyper": {}, "seed": 0, "pictures": False, "device": "cpu"})
            for step, value in enumerate(values):
                runs.folder(name).append(step, {LIKELIHOOD: value, "time/train_seconds": 1.0, "time/ms_per_step": 1.0})
            runs.set_state(name, "done")
        found = ranking.results(runs, runs.records())
    ranked = ranking.ranking(found, LIKELIHOOD)
    assert list(ranked["variant"]) == ["steady", "lucky"]
    assert list(ranked["mean"]) == [0.5, pytest.approx(1 / 3)]
    assert ranking.rules(found, LIKELIHOOD) == "the mean of the evaluations in the last tenth of the iterations"


def test_what_was_measured_once_is_no_mean(tmp_path: Path) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan([Record("one", "tiny", "test", "board", "cd", "CD-1", 0, 20, "planned")])
        config = {"rule": "last_tenth", "select": "val/log_likelihood", "hyper": {}, "seed": 0, "device": "cpu"}
        runs.folder("one").prepare(config)
        for step in range(21):
            runs.folder("one").append(step, {LIKELIHOOD: float(step)})
        runs.folder("one").append(20, {"test/fid": 30.0})
        runs.set_state("one", "done")
        found = ranking.results(runs, runs.records())
    assert ranking.rules(found, "test/fid") == "its last measurement, the only one in the last tenth of the iterations"
    assert ranking.rules(found, LIKELIHOOD) == "the mean of the evaluations in the last tenth of the iterations"


def test_what_stands_for_a_cell_is_repeated_for_the_report(tmp_path: Path) -> None:
    """The terminal's mean is that of the evaluations of the last tenth, and of what the tracking store gets."""
    (tmp_path / "tiny.yaml").write_text(TINY.replace("evaluations: 4", "evaluations: 20"))
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--methods", "cd")
    assert said.code == 0, said.err
    assert "the mean of the evaluations in the last tenth of the iterations" in " ".join(said.out.split())
    means = []
    with contextlib.closing(RunDir(tmp_path / "runs")) as runs:
        for record in runs.records():
            journal = runs.folder(record.id).measurements()
            values = {line.step: line.metrics[LIKELIHOOD] for line in journal if LIKELIHOOD in line.metrics}
            means.append(sum(values[step] for step in (18, 19, 20)) / 3)
            assert journal[-1].metrics["selected/step"] == 20
            assert journal[-1].metrics[f"selected/{LIKELIHOOD}"] == pytest.approx(means[-1])
            assert means[-1] != values[20]
    (row,) = [line.split("│") for line in said.out.splitlines() if line.startswith("│")]
    assert row[2].strip() == written(*interval(means))
