"""``compare``: a method of one's own is trained alone and placed where its numbers belong."""

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from benchmark.measures import placing
from benchmark.records.reference import read
from tests.harness.shared import LL, variant, written
from tests.harness.tiny import (
    TINY,
    WRONG_METHODS,
    Said,
    cell,
    command,
    journal,
    numbers,
    records,
    replaced,
    states,
    write,
)

MINE = '''\
import dataclasses
from baselines import CD

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    """Somebody's method."""
    id, label, reference = "mine", "Mine", "here"
'''
COMPARE = ("compare", "--suite", "tiny.yaml", "--plugin", "mine.py", "--reference", "theirs.jsonl.gz")
SUITE = replaced(("seeds: 0-1", "seeds: 0-4"))
PARAM = {"batch_size": "100", "precision": "float32", "model": "grbm", "model_hidden": "3", "model_visible": "2"}


def theirs(folder: Path, values: dict[str, Sequence[float]], **changed: object) -> None:
    """A reference of the tiny suite with these made-up values."""
    more = {"data_hash": _hash(folder), "select": "last_tenth val/log_likelihood", "param": PARAM, **changed}
    written(folder / "theirs.jsonl.gz", *(variant(name, of, **more) for name, of in values.items()))


def _hash(folder: Path) -> str:
    from benchmark.data.datasets import checkerboard

    return checkerboard(folder, 500, 200, 200).hash[:36]


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Mine with five seeds, trained by ``compare`` itself."""
    folder = tmp_path_factory.mktemp("compared")
    write(folder, SUITE)
    write(folder, MINE, "mine.py")
    theirs(folder, {"CD-1": [0.0, 0.1, 0.2, 0.1, 0.0]})
    return folder, command(folder, *COMPARE)


@pytest.fixture
def folder(placed: tuple[Path, Said], tmp_path: Path) -> Path:
    return Path(shutil.copytree(placed[0], tmp_path / "copy"))


def own(folder: Path) -> list[float]:
    """What stands for each seed of Mine: four evaluations, of which one is in the last tenth."""
    return [journal(folder, "Mine", seed)[-1]["metrics"][LL] for seed in range(5)]


def verdict(said: Said) -> str:
    """The sentence, without its line breaks."""
    text = re.sub(r"\s+", " ", said.out)
    found = re.search(r"board: ((?:not a fair|Mine )[^│]*?\.)(?: what to look at|$| )", text)
    assert found, said.out
    return found[1]


# --- what it trains ---------------------------------------------------------------------------------------------------


def test_it_trains_the_method_alone_with_the_reference_s_seeds(placed: tuple[Path, Said]) -> None:
    folder, said = placed
    assert (said.code, said.err) == (0, "")
    assert states(folder) == {("Mine", seed): "done" for seed in range(5)}
    config = cell(folder, "Mine", 0).config
    assert (config["preset"], config["hyper"]["lr"]) == ("test", 0.01)  # as the preset sets it for all
    assert "5 cells, 0 done already, 5 to train in 1 job" in said.out


def test_its_cells_are_those_that_run_trains(placed: tuple[Path, Said], tmp_path: Path) -> None:
    write(tmp_path, SUITE.replace("- {method: bidsm}", "- {method: mine}"))
    write(tmp_path, MINE, "mine.py")
    assert command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--methods", "mine").code == 0
    assert [one.id for one in records(tmp_path)] == [one.id for one in records(placed[0])]
    assert numbers(tmp_path, "Mine", 3) == numbers(placed[0], "Mine", 3)


def test_what_is_finished_is_not_trained_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs" / "cells").rglob("*")}
    for more in ((), ("--no-train",)):
        said = command(folder, *COMPARE, *more)
        assert (said.code, said.err) == (0, "")
        assert "Mine (yours)" in said.out
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs" / "cells").rglob("*")} == before


def test_no_train_places_what_there_is_and_says_what_is_missing(folder: Path) -> None:
    said = command(folder, *COMPARE, "--no-train", "--seeds", "0-2,9")
    assert said.code == 1
    assert "1 cell not finished, and left out" in said.out
    assert "over the seeds 0-2" in re.sub(r"\s+", " ", said.out)


def test_no_train_with_nothing_trained(folder: Path) -> None:
    said = command(folder, *COMPARE, "--no-train", "--run-dir", "empty")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "empty has no finished cell of mine in this preset" in said.err
    assert not (folder / "empty").exists()


def test_a_dry_run_trains_nothing(folder: Path) -> None:
    said = command(folder, *COMPARE, "--run-dir", "fresh", "--dry-run")
    assert said.code == 0
    assert "5 to train" in said.out
    assert not (folder / "fresh").exists()


def test_a_method_of_the_package_is_compared_too(folder: Path) -> None:
    said = command(folder, *COMPARE[:3], *COMPARE[5:], "--methods", "cd", "--seeds", "0-1")
    assert said.code == 0
    assert "CD-1 (yours)" in said.out
    assert re.search(r"│ CD-1 \(reference\) +│", said.out)


# A task whose own model has no h, and a method that needs one.
VISIBLE = replaced(
    ("{name: grbm, hidden: 3}", "{name: mlp_ebm, width: 4}\n    metrics: [log_likelihood]"),
    ("- {method: cd}", "- {method: dsm}"),
)
LATENT = VISIBLE.replace("- {method: bidsm}", "- {method: bidsm, model: {name: mlp_eblvm, hidden: 2, width: 3}}")
BILEVEL = MINE.replace("baselines import CD", "bism import BiDSM").replace("Mine(CD)", "Mine(BiDSM)")
PLAIN = MINE.replace("CD", "DSM").replace("Mine(", "Plain(").replace('"mine", "Mine"', '"plain", "P"')


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    write(tmp_path, LATENT)
    write(tmp_path, BILEVEL, "mine.py")
    write(tmp_path, PLAIN, "plain.py")
    of = {"batch_size": "100", "precision": "float32", "model_visible": "2"}
    h, v = {"model": "mlp_eblvm", "model_hidden": "2", "model_width": "3"}, {"model": "mlp_ebm", "model_width": "4"}
    more = {"data_hash": _hash(tmp_path), "select": "last_tenth val/log_likelihood"}
    written(
        tmp_path / "theirs.jsonl.gz",
        variant("BiDSM-5", [0.0, 0.1], param=of | h, **more),
        variant("DSM", [0.0, 0.1], param=of | v, **more),
    )
    return tmp_path


def test_a_method_that_cannot_train_the_task_s_model_takes_that_of_others_like_it(deep: Path) -> None:
    said = command(deep, *COMPARE, "--plugin", "plain.py", "--dry-run")
    text = re.sub(r"\s+", " ", said.out)
    assert (said.code, said.err) == (0, "")
    assert "mine cannot train MLPEBM: it learns latent-variable models, and this model has no latent variables" in text
    assert "so it trains mlp_eblvm (hidden 2, width 3), as others here do" in text
    assert "plain cannot" not in text
    unlike = re.findall(r"not a fair comparison, for (\w+): .*?\((DSM|BiDSM-5)\)", text)
    assert sorted(unlike) == [("Mine", "DSM"), ("P", "BiDSM-5")]


def test_without_a_model_that_it_can_train_it_says_how_to_mend_it(deep: Path) -> None:
    write(deep, VISIBLE.replace("          - {method: bidsm}\n", ""))
    said = command(deep, *COMPARE, "--dry-run")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "task board: mine cannot train MLPEBM: it learns latent-variable models" in said.err
    assert "leave the method out by --methods, take other --tasks, or give it a model in a suite file" in said.err


# --- where it places it -----------------------------------------------------------------------------------------------


def test_the_ranking_has_both_and_says_whose_is_whose(folder: Path) -> None:
    values = np.array(own(folder))
    theirs(folder, {"Above": list(values + 0.5), "Below": list(values - 0.5)})
    said = command(folder, *COMPARE)
    names = re.findall(r"│ (Above|Below|Mine \(yours\)) +│ +-?\d", said.out)
    assert names[:3] == ["Above", "Mine (yours)", "Below"]
    assert "reference: theirs.jsonl.gz, suite tiny, preset test: AMD EPYC, 2 cores, cpu" in said.out


SPREAD = np.array([0.001, -0.002, 0.0015, -0.0005, 0.0])


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (-0.1, r"Mine is better than Other \(\+0\.10\d+, \+0\.0\d+ to \+0\.10\d+ nats\), by log-likelihood"),
        (+0.1, r"Mine is worse than Other \(-0\.0?9?\d+, -0\.10\d+ to -0\.09\d+ nats\), by log-likelihood"),
        (
            0.0,
            r"Mine is not told apart from Other \([+-]?0(\.000\d*)?, -0\.00\d+ to \+0\.00\d+ nats\), by log-likelihood",
        ),
    ],
)
def test_better_worse_and_equal(folder: Path, shift: float, expected: str) -> None:
    theirs(folder, {"Other": list(np.array(own(folder)) + shift + SPREAD)})
    said = command(folder, *COMPARE)
    assert said.code == 0
    assert re.match(expected, verdict(said)), verdict(said)
    assert "over the seeds 0-4 that both have; the 95% intervals hold all at once (one comparison)." in verdict(said)


def test_the_numbers_are_those_of_the_paired_t_interval_of_a_family(folder: Path) -> None:
    values = np.array(own(folder))
    others = {f"V{i}": list(values - 0.02 * i + SPREAD * (i + 1)) for i in range(4)}
    theirs(folder, others)
    mine = pd.DataFrame({"variant": "Mine", "seed": range(5), LL: values})
    found = placing.against(mine, placing.rows(read(folder / "theirs.jsonl.gz").variants), LL).set_index("variant")
    for name, of in others.items():
        d = values - np.array(of)
        half = stats.t.ppf(1 - 0.05 / (2 * 4), 4) * d.std(ddof=1) / np.sqrt(5)
        assert found.loc[name, "difference"] == pytest.approx(d.mean())
        assert found.loc[name, "low"] == pytest.approx(d.mean() - half)
        assert found.loc[name, "p"] == pytest.approx(min(1, 4 * stats.ttest_rel(values, of).pvalue))
    assert "(4 comparisons)" in verdict(command(folder, *COMPARE))


def test_of_many_the_verdict_names_the_closest(folder: Path) -> None:
    values = np.array(own(folder))
    theirs(
        folder, {f"V{i}": list(values - 0.1 * (1 + i) + SPREAD) for i in range(5)} | {"Top": list(values + 1 + SPREAD)}
    )
    said = verdict(command(folder, *COMPARE))
    assert said.startswith("Mine is better than 5 of 6 variants (the closest: V0 (+0.10")
    assert " and worse than Top (-1.00" in said


def test_a_variant_of_theirs_that_is_called_as_yours_are_told_apart_is_not_merged(folder: Path) -> None:
    values = np.array(own(folder))
    names = ("Mine", "Mine (reference)", "Mine (yours)")
    theirs(folder, {name: list(values - 0.1 * (1 + i) + SPREAD) for i, name in enumerate(names)})
    said = command(folder, *COMPARE)
    for name in names:
        assert f"{name} (reference) (+0." in verdict(said)


def test_seeds_that_only_one_has_are_in_no_pair(folder: Path) -> None:
    values = own(folder)
    theirs(folder, {"Some": {0: values[0], 1: values[1] - 1e-3, 7: 99.0}, "One": {0: 0.0}})  # type: ignore[dict-item]
    said = command(folder, *COMPARE, "--seeds", "0-4")
    rows = {row[0].strip(): row for row in (line.split("│")[1:-1] for line in said.out.splitlines()) if len(row) == 7}
    assert rows["Some"][1].strip() == "2"
    assert rows["One"][6].strip() == "no two seeds in common"
    assert "1 could not be compared" in verdict(said)


def test_a_task_is_trained_with_the_seeds_that_the_reference_has_of_it(tmp_path: Path) -> None:
    suite = yaml.safe_load(SUITE)
    for tasks in (suite["tasks"], suite["presets"]["test"]["tasks"]):
        tasks["other"] = tasks["board"]
    write(tmp_path, yaml.safe_dump(suite))
    write(tmp_path, MINE, "mine.py")
    more = {"data_hash": _hash(tmp_path), "select": "last_tenth val/log_likelihood", "param": PARAM}
    both = variant("CD-1", [0.0, 0.1, 0.2], **more), variant("CD-1", [0.0, 0.1], **more, task="other")
    written(tmp_path / "theirs.jsonl.gz", *both, tasks=["board", "other"])
    assert "5 cells, 0 done already" in command(tmp_path, *COMPARE, "--dry-run").out
    assert "8 cells, 0 done already" in command(tmp_path, *COMPARE, "--dry-run", "--seeds", "0-3").out


def test_diverged_seeds_are_counted_and_not_compared(folder: Path) -> None:
    values = own(folder)
    theirs(folder, {"Other": values})
    broken = read(folder / "theirs.jsonl.gz").variants[0].model_dump()
    broken["seeds"][4] = {"seed": 4, "state": "diverged", "error": "not finite at step 7"}
    written(folder / "theirs.jsonl.gz", broken)
    said = command(folder, *COMPARE)
    assert "4 (+1 diverged)" in said.out
    assert "over the seeds 0-3 that both have" in verdict(said)


def test_a_reference_of_which_all_seeds_diverged(folder: Path) -> None:
    theirs(folder, {"Other": own(folder)})
    broken = read(folder / "theirs.jsonl.gz").variants[0].model_dump()
    broken["seeds"] = [{"seed": seed, "state": "diverged"} for seed in range(5)]
    written(folder / "theirs.jsonl.gz", broken)
    assert "board: all seeds of the reference diverged, and nothing can be compared." in command(folder, *COMPARE).out


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        ("% 2 == 0", "2 of its 5 seeds diverged and are compared with none."),
        ("< 0", "board: Diverges diverged with all of its seeds."),
    ],
)
def test_of_yours_diverged_seeds_are_said(tmp_path: Path, sound: str, words: str) -> None:
    write(tmp_path, SUITE)
    write(tmp_path, WRONG_METHODS.replace("% 2 == 0", sound), "wrong.py")
    theirs(tmp_path, {"CD-1": [0.0, 0.1, 0.2, 0.1, 0.0]})
    said = command(tmp_path, *COMPARE[:3], "--plugin", "wrong.py", *COMPARE[5:], "--methods", "diverges")
    gone = re.findall(r"^diverged: board Diverges seed (\d): not finite at step 7$", said.out, re.MULTILINE)
    assert (said.code, gone) == (1, ["1", "3"] if "%" in sound else [*"01234"])
    text = re.sub(r"\s+", " ", said.out)
    assert words in text
    assert ("over the seeds 0,2,4 that both have" in text) == ("%" in sound), text


# --- what is not fair, and what cannot be -----------------------------------------------------------------------------


def test_other_iterations_are_said_before_training_and_in_the_verdict(folder: Path) -> None:
    theirs(folder, {"Other": own(folder)}, steps=200)
    said = command(folder, *COMPARE)
    assert "not a fair comparison: in the reference 200 iterations, and here 20 (all of it)" in said.out
    assert verdict(said).startswith("not a fair comparison (the reference: 200 iterations, and here 20): Mine is")


def test_steps_of_ones_own_are_such(folder: Path) -> None:
    theirs(folder, {"Other": own(folder)})
    said = command(folder, *COMPARE, "--steps", "5")
    assert said.code == 0
    assert "20 iterations, and here 5" in said.out


def test_another_model_of_some_is_marked(folder: Path) -> None:
    values = own(folder)
    theirs(folder, {"Other": values, "Wide": values})
    found = [one.model_dump() for one in read(folder / "theirs.jsonl.gz").variants]
    found[1]["param"]["model_hidden"] = "9"
    written(folder / "theirs.jsonl.gz", *found)
    said = command(folder, *COMPARE)
    text = re.sub(r"\s+", " ", said.out)
    assert "in the reference another model (model grbm, hidden 9, visible 2), and here (model grbm, hidden 3" in text
    assert "(Wide)" in text
    assert re.search(r"│ Wide\* +│", said.out)
    assert "not a fair comparison (variants marked *" in verdict(said)


@pytest.mark.parametrize(
    ("changed", "arguments", "words"),
    [
        ({"data_hash": "f" * 36}, (), "task board cannot be compared: its data are others: ffffffffffff, and here"),
        (
            {"select": "last val/objective"},
            (),
            "its seeds are represented by last val/objective, and here by last_tenth",
        ),
        ({"data_hash": ""}, (), "its data are not known, and here"),
        ({"select": ""}, (), "its seeds are represented by a rule that is not known, and here by last_tenth"),
        ({}, ("--seeds", "70-79"), "the reference has the seeds 0-4, and none in common with 70-79"),
        ({}, ("--tasks", "bord"), "has no results of the task 'bord': did you mean 'board'?"),
        ({}, ("--preset", "paper"), "holds results of the preset test, not of paper"),
        ({}, ("--methods", "mien"), "no method 'mien': did you mean 'mine'?"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(
    folder: Path, changed: dict[str, object], arguments: tuple[str, ...], words: str
) -> None:
    theirs(folder, {"Other": own(folder)}, **changed)
    said = command(folder, *COMPARE, "--run-dir", "fresh", *arguments)
    assert said.code == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (folder / "fresh").exists()


def test_a_suite_of_which_nothing_ships_and_a_file_that_is_damaged(folder: Path) -> None:
    said = command(folder, *COMPARE[:5])
    assert said.code == 2
    assert "no results of suite tiny ship with this version (there are: " in said.err
    said = command(folder, *COMPARE[:5], "--preset", "tset")
    assert (said.code, said.err) == (2, "error: suite tiny has no preset 'tset': did you mean 'test'? valid: test\n")
    content = (folder / "theirs.jsonl.gz").read_bytes()
    (folder / "theirs.jsonl.gz").write_bytes(content[: len(content) // 2])
    said = command(folder, *COMPARE)
    assert (said.code, said.err) == (2, "error: theirs.jsonl.gz: its end is missing: it was cut\n")
    said = command(folder, *COMPARE[:3], *COMPARE[5:])
    assert said.code == 2


def test_a_reference_without_results(folder: Path) -> None:
    empty = variant("Other", [0.0, 0.0])
    empty["seeds"] = [{"seed": 0, "state": "planned"}]
    written(folder / "theirs.jsonl.gz", empty)
    said = command(folder, *COMPARE)
    assert said.err == ("error: theirs.jsonl.gz: has no results of a task that the preset test of this suite has\n")
    assert command(folder, *COMPARE, "--tasks", "board").err == said.err


def test_times_are_the_processor_s_where_both_have_them_and_the_machine_is_said(folder: Path) -> None:
    theirs(folder, {"Other": own(folder)}, compiled="true", threads="2", machine="Sinclair, 1 core")
    text = re.sub(r"\s+", " ", command(folder, *COMPARE).out)
    assert "the reference's on Sinclair, 1 core (compiled, on cpu with 2 threads, alone): on another machine" in text
    assert "So the two are not comparable; to time both here, alone:" in text
    assert "processor's clock" not in text
    found = read(folder / "theirs.jsonl.gz").variants[0].model_dump()
    for seed in found["seeds"]:
        seed["last"]["time/processor_ms_per_step"] = 7.25
    written(folder / "theirs.jsonl.gz", found)
    text = command(folder, *COMPARE).out
    assert "processor's clock" in re.sub(r"\s+", " ", text)
    assert re.search(r"│ Other .*│ +7.25 │", text)


def test_times_of_one_kind_of_processor_are_no_more_comparable(folder: Path) -> None:
    machine = cell(folder, "Mine", 0).config["provenance"]["machine"]
    of = variant("CD-1", own(folder), data_hash=_hash(folder), select="last_tenth val/log_likelihood", param=PARAM,
                 machine=machine, compiled="true")  # fmt: skip
    other = {**of, "variant": "BiDSM-5", "method": "bidsm"}  # of no method that Mine is derived from
    written(folder / "theirs.jsonl.gz", other, of, trained=["2026-01-02", "2026-01-03"])
    said = command(folder, *COMPARE, "--no-train")
    text = re.sub(r"\s+", " ", said.out)
    assert (
        "2026-01-02 to 2026-01-03): at another time, though on the same kind of processor. So the two are not" in text
    )
    line = next(line for line in said.out.splitlines() if " benchmark speed " in line)
    assert line.endswith(
        "speed --suite tiny.yaml --preset test --tasks board --methods mine cd --variants Mine CD-1 --num-seeds 5 "
        "--plugin mine.py"
    )


def test_cells_are_counted_by_how_they_were_timed(folder: Path) -> None:
    more = {"data_hash": _hash(folder), "select": "last_tenth val/log_likelihood", "param": PARAM, "compiled": "true"}
    values = own(folder)
    of = [variant("CD-1", values, **more), variant("CD-5", values[:3], **more, jobs_beside="1")]
    of[1]["seeds"].append({"seed": 3, "state": "planned"})
    written(folder / "theirs.jsonl.gz", *of)
    text = re.sub(r"\s+", " ", command(folder, *COMPARE, "--no-train").out)
    assert "alone (5 cells); compiled, on cpu with 1 thread, beside 1 other job (3 cells)" in text


def test_seeds_that_end_below_the_untrained_model_are_said_beside_the_verdict(folder: Path) -> None:
    text = re.sub(r"\s+", " ", command(folder, *COMPARE, "--no-train").out)
    assert "below the untrained model" not in text
    plain = 'where((carry["step"] == 7) & ~carry["sound"], torch.nan, value)'
    turned = 'where(carry["sound"], value, -value)'
    assert plain in WRONG_METHODS  # of the seeds that diverged there the loss has the wrong sign
    write(folder, WRONG_METHODS.replace(plain, turned), "wrong.py")
    said = command(folder, *COMPARE[:3], "--plugin", "wrong.py", *COMPARE[5:], "--methods", "diverges")
    text = re.sub(r"\s+", " ", said.out)
    assert re.search(r"board: Diverges is [^│]*\. 2 of its 5 seeds ended below the untrained model\.", text), text


def test_the_report_that_it_suggests_draws_the_file_that_was_given(folder: Path) -> None:
    (folder / "theirs.jsonl.gz").rename(folder / "of Ann's.jsonl.gz")
    said = command(folder, *COMPARE[:-1], "of Ann's.jsonl.gz", "--tracking-uri", "sqlite:///mlflow.db")
    (line,) = [line for line in said.out.splitlines() if "draw the report" in line]
    assert shlex.split(line.partition(": ")[2])[-2:] == ["--reference", "of Ann's.jsonl.gz"]


def test_a_method_must_be_named(folder: Path) -> None:
    said = command(folder, "compare", "--suite", "tiny.yaml", "--reference", "theirs.jsonl.gz")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "--methods must name what is to be compared" in said.err


def test_of_another_suite(folder: Path) -> None:
    write(folder, TINY.replace("suite: tiny", "suite: other"), "other.yaml")
    said = command(folder, *COMPARE[:2], "other.yaml", *COMPARE[3:])
    assert said.err == "error: theirs.jsonl.gz: holds results of the suite tiny, not of other\n"
