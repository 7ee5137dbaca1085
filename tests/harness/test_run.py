"""Runs of a tiny suite through the command line: what they write, and running again; data and models of one's own."""

import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from baselines import CD
from benchmark.data.datasets import checkerboard
from benchmark.measures.density import limits
from benchmark.measures.statistics import interval, written
from benchmark.tasks.models import MODELS
from bism import GRBM, BiDSM, log_likelihood
from bism.checkpoint import load_checkpoint
from bism.estimator import Estimator
from bism.fitted import Fitted
from bism.likelihood import grid_density
from tests.harness.tiny import (
    CELLS,
    CORES,
    RUN,
    Said,
    cell,
    command,
    contents,
    journal,
    numbers,
    records,
    replaced,
    states,
    write,
)

DATA = checkerboard(Path("nowhere"), 500, 200, 200)


# --- what a run writes ------------------------------------------------------------------------------------------------


def test_a_run_ends_well_and_says_what_it_did(trained: tuple[Path, Said]) -> None:
    folder, said = trained
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "suite tiny, preset test: two methods"
    assert lines[1] == f"4 cells, 0 done already, 4 to train in 2 jobs, {CORES} at once"
    ended = sorted(line.split("] ")[1].split(" in ")[0] for line in lines if line.startswith("["))
    assert ended == ["board BiDSM-5: done", "board CD-1: done"]
    table = [line.split("│")[1:6] for line in lines if line.startswith("│")]
    assert sorted(row[0].strip() for row in table) == ["BiDSM-5", "CD-1"]
    assert [row[4].strip() for row in table] == ["2", "2"]
    for name, mean, *_ in table:
        last = [journal(folder, name.strip(), seed)[-1]["metrics"]["test/log_likelihood"] for seed in (0, 1)]
        assert mean.strip() == written(*interval(last))
    assert states(folder) == dict.fromkeys(CELLS, "done")


@pytest.mark.parametrize(("variant", "seed"), CELLS)
def test_a_journal_has_every_metric_at_every_evaluation(trained: tuple[Path, Said], variant: str, seed: int) -> None:
    lines = journal(trained[0], variant, seed)
    scores = {f"{split}/{metric}" for split in ("val", "test") for metric in ("log_likelihood", "fisher_divergence")}
    cost = {"time/train_seconds", "time/wall_seconds", "time/compile_seconds", "memory/peak_bytes"}
    begun = {"train/objective", "time/ms_per_step", "time/processor_ms_per_step"}
    levels = {"val/objective"} | ({"val/lower_objective"} if variant.startswith("Bi") else set())
    assert [line["step"] for line in lines] == [0, 5, 10, 15, 20]
    assert set(lines[0]["metrics"]) == scores | cost | levels
    for line in lines[1:]:
        assert set(line["metrics"]) == scores | cost | levels | begun
    assert all(np.isfinite(list(line["metrics"].values())).all() for line in lines)
    times = [line["metrics"]["time/train_seconds"] for line in lines]
    assert times[0] == 0
    assert times == sorted(times)
    stamps = [line["time_ms"] for line in lines]
    assert stamps == sorted(stamps)
    assert abs(stamps[0] / 1000 - time.time()) < 3600
    record = next(each for each in records(trained[0]) if (each.variant, each.seed) == (variant, seed))
    assert record.train_seconds == pytest.approx(times[-1])


def test_a_cell_s_folder_says_how_to_train_it_again(trained: tuple[Path, Said]) -> None:
    for variant, seed in CELLS:
        config = cell(trained[0], variant, seed).config
        assert (config["variant"], config["seed"], config["device"]) == (variant, seed, "cpu")
        assert config["hyper"]["lr"] == 0.01
        assert config["data"]["hash"] == DATA.hash
        assert config["model"] == {"name": "grbm", "visible": 2, "hidden": 3}
        assert cell(trained[0], variant, seed).error is None


def resumed(trained: tuple[Path, Said], estimator: Estimator, seed: int, file: str, steps: int) -> Fitted:
    """Training that goes on from a checkpoint of a run."""
    path = cell(trained[0], estimator.name, seed).artifacts / file
    return estimator.fit(GRBM(2, 3), DATA.train, seeds=[seed], steps=steps, resume=path)


@pytest.mark.parametrize("estimator", [CD(lr=0.01), BiDSM(lr=0.01)], ids=["cd", "bidsm"])
def test_a_run_s_checkpoints_go_on(trained: tuple[Path, Said], estimator: Estimator) -> None:
    on = resumed(trained, estimator, 1, "last.pt", 25)
    whole = estimator.fit(GRBM(2, 3), DATA.train, seeds=[1], steps=25)
    assert on.step == whole.step == 25
    torch.testing.assert_close(on.parameters(1), whole.parameters(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(on.parameters(1), resumed(trained, estimator, 1, "last.pt", 20).parameters(1))


@pytest.mark.parametrize("estimator", [CD(lr=0.01), BiDSM(lr=0.01)], ids=["cd", "bidsm"])
def test_the_best_checkpoint_is_the_one_of_the_best_validation(
    trained: tuple[Path, Said], estimator: Estimator
) -> None:
    values = {line["step"]: line["metrics"]["val/log_likelihood"] for line in journal(trained[0], estimator.name, 0)}
    best = max(values, key=lambda step: values[step])
    assert load_checkpoint(cell(trained[0], estimator.name, 0).artifacts / "best.pt")["step"] == best > 0
    fitted = resumed(trained, estimator, 0, "best.pt", best)
    assert float(fitted.log_likelihood(DATA.val).mean()) == pytest.approx(values[best], abs=1e-6)


def test_densities_of_the_first_seed_alone(trained: tuple[Path, Said]) -> None:
    wanted = [f"density_step_{step:08d}.{end}" for step in (0, 10, 20) for end in ("npz", "png")]
    for variant, seed in CELLS:
        files = sorted(file.name for file in cell(trained[0], variant, seed).artifacts.iterdir())
        assert files == sorted(["best.pt", "last.pt", *(wanted if seed == 0 else [])])


def test_a_density_is_that_of_the_model(trained: tuple[Path, Said]) -> None:
    model = resumed(trained, CD(lr=0.01), 0, "last.pt", 20).model(0)
    with np.load(cell(trained[0], "CD-1", 0).artifacts / "density_step_00000020.npz") as saved:
        first, second, points = saved["first"], saved["second"], saved["points"]
        density, step = saved["density"], int(saved["step"])
    assert step == 20
    np.testing.assert_array_equal(points, DATA.train[:2000])
    for axis, values in ((first, DATA.train[:, 0].numpy()), (second, DATA.train[:, 1].numpy())):
        assert (axis[0], axis[-1]) == pytest.approx(limits(values))
    mass = density.sum() * (first[1] - first[0]) * (second[1] - second[0])
    assert 0.05 < mass < 1
    point = torch.tensor([[first[150], second[40]]])  # v_1 is along the second axis, as in an image
    assert density[40, 150] == pytest.approx(float(log_likelihood(model, point).exp()), rel=1e-4)
    assert density[150, 40] != pytest.approx(density[40, 150], rel=1e-4)
    wide = torch.linspace(-10, 11, 401, dtype=torch.float64)
    assert float(grid_density(model, wide, wide).sum()) * (21 / 400) ** 2 == pytest.approx(1, abs=1e-3)


def test_a_density_s_picture_shows_it(trained: tuple[Path, Said]) -> None:
    import matplotlib.image

    folder = cell(trained[0], "BiDSM-5", 0).artifacts
    first, last = (matplotlib.image.imread(folder / f"density_step_000000{step}.png") for step in ("00", "20"))
    assert first.shape[:2] == (450, 840)
    assert np.abs(first - last).max() > 0.1


# --- running again ----------------------------------------------------------------------------------------------------


def test_the_same_command_again_trains_nothing(folder: Path) -> None:
    before = contents(folder)
    said = command(folder, *RUN)
    assert said.code == 0
    assert said.out.splitlines()[1] == f"4 cells, 4 done already, 0 to train in 0 jobs, {CORES} at once"
    assert "] board" not in said.out
    assert "about" not in said.out
    assert contents(folder) == before
    assert "│ BiDSM-5 │" in said.out  # the ranking is shown all the same


def test_more_seeds_train_what_is_missing_with_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    more = command(folder, *RUN, "--seeds", "0-3", "--methods", "cd")
    assert more.code == 0
    assert more.out.splitlines()[1] == "in place of the preset's: seeds 0-3 (for 0-1)"
    assert more.out.splitlines()[2] == f"4 cells, 2 done already, 2 to train in 1 job, {CORES} at once"
    assert before.items() <= contents(folder).items()
    write(tmp_path)
    assert command(tmp_path, *RUN, "--seeds", "0-3", "--methods", "cd").code == 0
    for seed in range(4):
        parts, whole = (numbers(place, "CD-1", seed) for place in (folder, tmp_path))
        for one, other in zip(parts, whole, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert numbers(folder, "CD-1", 2) != pytest.approx(numbers(folder, "CD-1", 3)[0])


def test_rerun_trains_finished_cells_again(folder: Path) -> None:
    first = journal(folder, "CD-1", 0)
    said = command(folder, *RUN, "--methods", "cd", "--rerun")
    assert said.code == 0
    assert said.out.splitlines()[1] == f"2 cells, 0 done already, 2 to train in 1 job, {CORES} at once"
    again = journal(folder, "CD-1", 0)
    assert [line["step"] for line in again] == [0, 5, 10, 15, 20]
    assert again[0]["time_ms"] > first[-1]["time_ms"]
    assert numbers(folder, "CD-1", 0)[0]["val/objective"] == first[0]["metrics"]["val/objective"]


def test_a_dry_run_trains_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    alone = command(tmp_path, *RUN, "--dry-run", "--variants", "CD-1")
    assert (alone.code, "2 cells" in alone.out, "BiDSM" in alone.out) == (0, True, False)
    said = command(tmp_path, *RUN, "--dry-run", "--set", "bidsm.K=10", "--steps", "7")
    assert (said.code, said.err) == (0, "")
    assert [name in said.out for name in ("BiDSM-5 [K=10,", "CD-1 [steps=7]", "inner_steps=10", "0-1")] == [True] * 4
    assert [name in said.out for name in ("unroll_steps", "lr=0.01", "temperature")] == [False, True, False]  # defaults
    assert records(tmp_path) == []
    assert contents(tmp_path) == {}
    assert {file.name.split("-")[0] for file in (tmp_path / "runs").iterdir()} == {"cells", "owners", "index.sqlite"}


def test_what_differs_from_the_preset_is_said_under_its_description(tmp_path: Path) -> None:
    write(tmp_path)
    plain = command(tmp_path, *RUN, "--dry-run", "--steps", "20", "--seeds", "0-1").out
    assert "in place of" not in plain
    changed = ("--steps", "7", "--seeds", "3,5-6", "--set", "bidsm.K=10")
    said = command(tmp_path, *RUN, "--dry-run", *changed).out
    first, second = said.split("two methods\n")[0], said.split("two methods\n")[1].splitlines()[0]
    assert first.endswith("suite tiny, preset test: ")
    assert second == "in place of the preset's: 7 iterations (for 20); seeds 3,5-6 (for 0-1); bidsm.K=10"
    assert "learning rates fall" not in said
    falling = command(
        tmp_path, *RUN, "--dry-run", "--steps", "7", "--set", "cd.decay_steps=20", "--set", "bidsm.decay_steps=7"
    ).out
    assert "learning rates fall over 20 iterations all the same: --set METHOD.decay_steps=N" in falling


def test_a_task_without_a_metric_to_rank_by_says_what_it_has(tmp_path: Path) -> None:
    write(tmp_path, replaced(("    model:", "    metrics: []\n    select: val/objective\n    model:")))
    ran = command(tmp_path, *RUN, "--steps", "4", "--methods", "cd")
    for said in (ran, command(tmp_path, "status")):
        assert "board, 4 iterations" in said.out
        assert (
            "no ranking: of 2 cells no metric was measured that models are ranked by; what was: val/objective; the "
            "report" in " ".join(said.out.split())
        )


# --- data and models of the user's own --------------------------------------------------------------------------------


def test_data_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.random.RandomState(0).normal(size=(100, 5)))
    entry = "name: checkerboard, train: 500, val: 200, test: 200"
    write(tmp_path, replaced((entry, "file: points.npy, split: [0.6, 0.2, 0.2]")))
    said = command(tmp_path, *RUN, "--methods", "cd", "--seeds", "0")
    assert (said.code, said.err) == (0, "")
    config = cell(tmp_path, "CD-1", 0).config
    sizes = {"train": 60, "val": 20, "test": 20, "shape": [5]}
    assert {key: config["data"][key] for key in ("name", *sizes)} == {"name": "points", **sizes}
    assert config["model"]["visible"] == 5
    evaluated = [line["step"] for line in journal(tmp_path, "CD-1", 0)]
    assert len(evaluated) == 5
    shown = {file.name for file in cell(tmp_path, "CD-1", 0).artifacts.iterdir()} - {"best.pt", "last.pt"}
    assert shown == {f"marginals_step_{step:08d}.{kind}" for step in evaluated[::2] for kind in ("npz", "png")}


def test_a_missing_data_file_stops_everything(tmp_path: Path) -> None:
    write(tmp_path, replaced(("name: checkerboard, train: 500, val: 200, test: 200", "file: points.npy")))
    said = command(tmp_path, *RUN)
    assert said.code == 2
    assert (
        said.err
        == "error: points.npy: no such file; data.file must name an .npy file with an array [n, D] or of images\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_model_that_a_plug_in_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        replaced(("name: grbm, hidden: 3", "name: centred, hidden: 3"), ("  - {method: cd}", "  - {method: sm}")),
    )
    write(tmp_path, '''\
import dataclasses
from baselines.cd import CD
from benchmark.tasks.models import MODELS
from bism import GRBM

class Centred(GRBM):
    def reset_parameters(self):
        super().reset_parameters()
        self.b.data.fill_(0.5)

MODELS["centred"] = Centred

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    """A plug-in has a method."""
    id, label, reference = "mine", "Mine", "here"
''', "mine.py")  # fmt: skip
    with mock.patch.dict(MODELS):  # this process imports the plug-in too
        said = command(tmp_path, *RUN, "--plugin", "mine.py", "--methods", "sm", "--seeds", "0")
    assert (said.code, said.err) == (0, "")
    assert cell(tmp_path, "SM", 0).config["model"]["name"] == "centred"
