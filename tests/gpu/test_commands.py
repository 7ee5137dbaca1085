"""The command line on a GPU: what is run, disturbed, sampled, timed and tuned. Nothing here needs a tracking store."""

import contextlib
import json
import math
import os
import signal
from pathlib import Path

import pytest
from scipy import stats

from tests.gpu.device import DEVICE, ON_A_GPU, jobs, on_the_device
from tests.gpu.parallel import python
from tests.harness import faults
from tests.harness.faults import CELLS, ended, left_alone, progress, same_end, until
from tests.harness.tiny import CORES, DEEP_DIGITS, Said, command, journal, records, replaced, states, write

pytestmark = on_the_device
SUITE = replaced(("steps: [3]", "steps: [2000]"), text=faults.SUITE)  # there is something to disturb
RUN = (*faults.RUN, "--devices", DEVICE)
BESIDE = ("--jobs-per-device", "2")
DEEP = (
    DEEP_DIGITS
    + """\
        all: {lr: 0.001, lower: fisher, K: 2, N: 0, sigma_min: 0.1, precision: PRECISION}
        probes:
          - name: samples
            at: [last]
            options: {count: 12, batch: 8, schedule: &short [{steps: 3, first: 10, last: 1}]}
          - name: samples
            at: [last]
            options: {count: 12, batch: 12, h: joint, precision: bf16, schedule: *short}
          - {name: conditional, at: [last], options: {schedule: *short, joint: [{steps: 8, first: 1.0, last: 1.0}]}}
          - {name: features, at: [last], options: {examples: 100, train_examples: 200}}
          - {name: out_of_distribution, at: [last]}
        variants:
          - {method: mdsm, model: {name: resnet_ebm, width: 1, layers: 12}}
          - {method: bimdsm}
"""
)
BIAS = """\
        probes:
          - {name: theorem2, at: [last], options: {inner: [0, 2], unroll: [0, 1, 2]}}
          - {name: practical_bias, at: [last], options: {inner: [0, 2], unroll: [0, 1], draws: 3}}
        variants:
"""


def run(folder: Path, text: str, *more: str) -> Said:
    write(folder, text)
    said = command(folder, "run", "--suite", "tiny.yaml", "--devices", DEVICE, *more)
    assert said.code == 0, said
    assert "training runs" not in said.out  # nothing has fallen back
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, SUITE)
    said = command(folder, *RUN)
    assert (said.code, said.err) == (0, "")
    return folder


def finish(folder: Path) -> None:
    said = command(folder, *RUN, *_beside())
    assert (said.code, said.err) == (0, "")
    assert "training runs" not in said.out


def _beside() -> tuple[str, ...]:
    return BESIDE if ON_A_GPU else ()


# --- disturbed --------------------------------------------------------------------------------------------------------


def test_two_jobs_on_one_card_end_as_each_alone(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with faults.started(tmp_path, "--devices", DEVICE, *_beside()) as process:
        if CORES > 1:
            until(process, lambda: len(jobs(process)) == 2)
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    assert "training runs" not in said.out
    same_end(tmp_path, whole)


def test_a_killed_run_goes_on_with_the_same_command(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with faults.started(tmp_path, "--devices", DEVICE, *_beside()) as process:
        until(process, lambda: progress(tmp_path) > 0)
        process.kill()
        left_alone(tmp_path)
    finish(tmp_path)
    same_end(tmp_path, whole)


def test_killed_jobs_go_on_by_themselves(tmp_path: Path, whole: Path) -> None:
    write(tmp_path, SUITE)
    with faults.started(tmp_path, "--devices", DEVICE, *_beside()) as process:
        until(process, lambda: progress(tmp_path) > 0)
        for job in jobs(process):
            job.kill()
        said = ended(process)
    assert (said.code, said.err) == (0, "")
    assert "goes on from its last checkpoint" in said.out
    same_end(tmp_path, whole)


@pytest.mark.parametrize("when", ["as a job's process starts", "as it trains"])
def test_ctrl_c_stops_and_the_same_command_goes_on(tmp_path: Path, whole: Path, when: str) -> None:
    write(tmp_path, SUITE)
    with faults.started(tmp_path, "--devices", DEVICE, *_beside()) as process:
        started = "as a job" in when
        until(process, lambda: bool(jobs(process)) if started else progress(tmp_path) > 0)
        os.killpg(process.pid, signal.SIGINT)
        said = ended(process)
    assert (said.code, said.err) == (130, "interrupted\n")
    finish(tmp_path)
    same_end(tmp_path, whole)


# --- everything there is to run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bf16", pytest.param("tf32", marks=pytest.mark.skipif(not ON_A_GPU, reason="it is of GPUs alone"))])  # fmt: skip  # noqa: E501
def test_deep_models_are_trained_sampled_and_looked_at(tmp_path: Path, precision: str) -> None:
    text = DEEP.replace(", precision: PRECISION}", "}").replace(
        "steps: 4\n", f"steps: 4\n        precision: {precision}\n"
    )
    said = run(tmp_path, text)
    assert "not computed" not in said.out
    latent = {name for line in journal(tmp_path, "BiMDSM-0", 0) for name in line["metrics"]}
    assert {"latent/share_of_h", "latent/knn_accuracy", "ood/auroc_noise", "val/lower_objective"} <= latent
    assert len(list(tmp_path.glob("runs/cells/*/samples/samples_step_*.npy"))) == 4


def test_the_bias_is_studied(tmp_path: Path) -> None:
    run(tmp_path, replaced(("        variants:\n", BIAS), ("          - {method: cd}\n", "")))
    names = {name for line in journal(tmp_path, "BiDSM-5", 0) for name in line["metrics"]}
    assert {"bias/theorem2_K2_N2", "bias/practical_K2_N1"} <= names


def test_likelihoods_by_annealing_are_the_exact_ones(whole: Path) -> None:
    for variant, seed in CELLS:
        lines = {name: value for line in journal(whole, variant, seed) for name, value in line["metrics"].items()}
        assert abs(lines["ais/gap"]) < 0.5
        assert math.isfinite(lines["test/raise_log_likelihood"])


def test_the_doctor_has_nothing_against_it(tmp_path: Path) -> None:
    assert command(tmp_path, "doctor").code == 0


def test_training_is_timed(tmp_path: Path) -> None:
    write(tmp_path)
    said = command(
        tmp_path, "speed", "--suite", "tiny.yaml", "--methods", "cd", "--num-seeds", "2", "--seconds", "0.2", "--json",
        "speed.json", "--devices", DEVICE,
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    (record,) = json.loads((tmp_path / "speed.json").read_text())
    assert 0 < record["train_ms_per_step"] < math.inf


def test_a_few_trials_are_tuned(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    write(tmp_path)
    said = command(tmp_path, "tune", "--suite", "tiny.yaml", "--methods", "cd", "--trials", "3", "--devices", DEVICE)
    assert (said.code, said.err) == (0, "")


# --- the numbers that the suites give, beside the CPU's ---------------------------------------------------------------


def finals(folder: Path, metric: str) -> dict[str, list[float]]:
    """The last value of a metric for every seed, by task and variant."""
    found: dict[str, list[float]] = {}
    for record in records(folder):
        with contextlib.suppress(FileNotFoundError):
            lines = folder / "runs" / "cells" / record.id / "metrics.jsonl"
            metrics = [json.loads(line)["metrics"] for line in lines.read_text().splitlines()]
            values = [line[metric] for line in metrics if metric in line]
            found.setdefault(f"{record.task} {record.variant}", []).extend(values[-1:])
    return found


def agree(one: list[float], other: list[float], floor: float) -> bool:
    """Whether the means may be the same, by the 99% interval of Welch; the floor is for rounding and a lone seed."""
    difference = abs(math.fsum(one) / len(one) - math.fsum(other) / len(other))
    if min(len(one), len(other)) < 2:
        return difference <= floor
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.99)
    return difference <= max(floor, (interval.high - interval.low) / 2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("suite", "more", "metric", "floor"),
    [
        ("grbm", (), "test/log_likelihood", 0.02),
        ("freyface", ("--seeds", "0-2"), "test/log_likelihood", 3.0),
        ("deep_digits", ("--steps", "500"), "val/objective", 5.0),
    ],
)
def test_quick_presets_end_as_on_the_cpu(
    tmp_path: Path, suite: str, more: tuple[str, ...], metric: str, floor: float
) -> None:
    ends = {}
    for device in ("cpu", DEVICE):
        folder = tmp_path / device.replace(":", "")
        folder.mkdir()
        place = ("--devices", device, *(("--jobs-per-device", "4") if device.startswith("cuda") else ()))
        arguments = ["-m", "benchmark", "run", "--suite", suite, "--preset", "quick", "--tracking-uri", "none"]
        code, said = python([*arguments, "--run-dir", str(folder / "runs"), *place, *more], 540)
        if "is not here" in said or "data download" in said:
            pytest.skip(f"{suite}: no data set here ($BISM_DATA)")
        assert code == 0, said
        assert "training runs" not in said
        assert set(states(folder).values()) == {"done"}
        ends[device] = finals(folder, metric)
    assert ends["cpu"].keys() == ends[DEVICE].keys()
    assert ends["cpu"]
    for name, values in ends["cpu"].items():
        assert agree(values, ends[DEVICE][name], floor), (name, values, ends[DEVICE][name])
