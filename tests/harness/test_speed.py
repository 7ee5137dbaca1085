"""The speed command: the code path of a run, and what the machine could do at best."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad

from benchmark.commands.speed import Ceiling, _shortened, measure_ceiling
from benchmark.tasks.jobs import Job
from benchmark.tasks.plan import Cell
from bism import GRBM, BiDSM, engine
from bism.compiler import Work, count_work
from bism.engine import Trainer
from tests.harness.tiny import TINY, WRONG_METHODS, command

A, X = torch.ones(3, 4, 5), torch.ones(3, 5, 6)


def counted(function: object, *example: Tensor) -> Work:
    return count_work(lambda *tensors: [function(*tensors)], example)  # type: ignore[operator]


def test_work_is_counted_by_kind() -> None:
    bytes_of = lambda *tensors: 4 * sum(x.numel() for x in tensors)  # noqa: E731
    assert counted(torch.bmm, A, X) == Work(products=2 * 3 * 4 * 5 * 6, bytes=bytes_of(A, X) + 4 * 72)
    assert counted(lambda a: (2 * a + 1).exp(), A) == Work(simple=120, transcendental=60, bytes=480)
    assert counted(lambda a: a.sum(), A) == Work(simple=60, bytes=244)
    assert counted(lambda a: a.mT.reshape(3, 20)[:, :10] * 2, A) == Work(simple=30, bytes=240 + 120)
    assert counted(grad(lambda a: (a * a).sum()), A).simple >= 60  # the arithmetic of a derivative is in it


@pytest.mark.long
def test_work_of_a_step_grows_with_seeds_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(seeds: int, unrolled: int) -> Work:
        trainer = Trainer(BiDSM(unroll_steps=unrolled), GRBM(2, 4), torch.rand(50, 2), seeds=range(seeds))
        return trainer.work()

    one, three, longer = work(1, 2), work(3, 2), work(1, 4)
    assert three.products == 3 * one.products
    assert three.transcendental == pytest.approx(3 * one.transcendental)
    monkeypatch.setattr(engine, "_SIDE_BY_SIDE_BYTES", 1)  # each seed is a group of its own
    apart = work(3, 2)
    assert apart.products == three.products
    assert apart.transcendental == pytest.approx(three.transcendental)
    assert apart.simple == pytest.approx(three.simple, rel=0.05)
    # an unrolled step: logits of q and of p and a gradient forwards, three products backwards; 100 x 2 x 4 each
    assert longer.products - one.products == 2 * 6 * (2 * 100 * 2 * 4)


def test_a_timed_job_measures_nothing_beside_its_evaluations() -> None:
    config = {"steps": 1000, "evaluations": 20, "seed": 0, "pictures": True, "rule": "best_validation"}
    job = Job((Cell({**config, "probes": [{"name": "annealing", "at": ["best"]}]}),))
    shortened = _shortened(job, 100).config
    assert shortened == {**config, "steps": 100, "evaluations": 2, "pictures": False, "rule": "last", "probes": []}


def test_the_least_time_is_set_by_arithmetic_or_memory() -> None:
    ceiling = Ceiling(products=100.0, simple=10.0, transcendental=1.0, bytes=50.0)
    assert ceiling.seconds(Work(200, 10, 1, 50)) == (pytest.approx(4.0), "arithmetic")
    assert ceiling.seconds(Work(200, 10, 1, 500)) == (pytest.approx(10.0), "memory")


@pytest.mark.long
def test_the_ceiling_of_this_machine_is_plausible() -> None:
    ceiling = measure_ceiling("cpu", 1)
    assert ceiling.products > ceiling.transcendental
    assert ceiling.simple > ceiling.transcendental
    assert 1e8 < ceiling.bytes < 1e12


@pytest.mark.long
def test_speed_times_the_variants_of_a_suite(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    options = ("--suite", "tiny.yaml", "--methods", "cd", "--num-seeds", "1", "3", "--seconds", "0.2")
    said = command(tmp_path, "speed", *options, "--json", "speed.json")
    assert said.code == 0, said.err
    assert "CD-1" in said.out
    assert "another process" not in said.out + said.err  # seed 0 is of both
    one, three = json.loads((tmp_path / "speed.json").read_text())
    for record, seeds in ((one, 1), (three, 3)):
        assert (record["task"], record["variant"], record["seeds"]) == ("board", "CD-1", seeds)
        assert 0 < record["train_ms_per_step"] <= record["ms_per_step"]
        assert record["train_ms_per_seed_step"] == pytest.approx(record["train_ms_per_step"] / seeds)
        assert record["compile_seconds"] > 0
        assert 0 < record["share_of_ceiling"] < 1
        assert {"machine", "torch", "commit", "threads", "hyper", "hidden"} <= set(record)
    assert not (tmp_path / "runs").exists()  # nothing is left of what it trained


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--num-seeds", "0"), "--num-seeds must be at least 1, got 0"),
        (("--seconds", "0"), "--seconds must be a positive number, got 0"),
        (("--threads", "0"), "--threads must be at least 1"),
        (("--json", "nowhere/speed.json"), "there is no folder nowhere"),
        (("--methods", "bidms"), "bidsm"),
    ],
)
def test_speed_refuses_what_cannot_be(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    said = command(tmp_path, "speed", "--suite", "tiny.yaml", *options)
    assert said.code == 2
    assert words in said.err


@pytest.mark.long
def test_a_method_of_a_plug_in_is_timed(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "wrong.py").write_text(WRONG_METHODS)
    options = ("--suite", "tiny.yaml", "--plugin", "wrong.py", "--methods", "raises", "--num-seeds", "1")
    said = command(tmp_path, "speed", *options, "--seconds", "0.2")
    assert said.code == 0, said.err
    assert "board Raises, 1 seeds: " in said.out


def test_a_method_of_a_plug_in_that_the_preset_has_none_of_is_timed_too(tmp_path: Path) -> None:
    """``compare`` prints such a command."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "wrong.py").write_text(WRONG_METHODS)
    options = ("--plugin", "wrong.py", "--methods", "raises", "cd", "--variants", "?")
    said = command(tmp_path, "speed", "--suite", "tiny.yaml", *options)
    assert said.code == 2
    assert "preset test has no variant '?' of raises, cd: " in said.err
    assert "Raises" in said.err
