"""What goes wrong in jobs: methods that raise, exit, are killed or diverge stop nothing else and are told."""

import shutil
from pathlib import Path

import pytest

from tests.harness.tiny import (
    CORES,
    RUN,
    WRONG_METHODS,
    Said,
    cell,
    command,
    journal,
    numbers,
    replaced,
    states,
    write,
)

WRONG = ("raises", "exits", "killed", "diverges")
VARIANTS = "          - {method: cd}\n          - {method: bidsm}\n"


def with_methods(folder: Path, *methods: str) -> None:
    """The plug-in, and the tiny suite with these methods."""
    write(folder, replaced((VARIANTS, "".join(f"          - {{method: {name}}}\n" for name in methods))))
    write(folder, WRONG_METHODS, "wrong.py")
    write(folder, "", "broken")


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A run in which every method but one goes wrong."""
    folder = tmp_path_factory.mktemp("failed")
    with_methods(folder, *WRONG, "cd")
    return folder, command(folder, *RUN, "--plugin", "wrong.py")


def problems(said: Said) -> list[str]:
    """What a command says of cells that ended badly."""
    return [line for line in said.out.splitlines() if line.startswith(("failed:", "diverged:", "stopped:"))]


def test_failures_stop_nothing_else(failed: tuple[Path, Said]) -> None:
    folder, said = failed
    assert (said.code, said.err) == (1, "")
    wrong = {(variant, seed): "failed" for variant in ("Raises", "Exits", "Killed") for seed in (0, 1)}
    sound = {("CD-1", 0): "done", ("CD-1", 1): "done", ("Diverges", 0): "done"}
    assert states(folder) == {**wrong, **sound, ("Diverges", 1): "diverged"}
    assert len(journal(folder, "CD-1", 1)) == 5


def test_failures_are_listed_with_their_reasons(failed: tuple[Path, Said]) -> None:
    folder, said = failed
    reasons = {
        "Raises": "RuntimeError: the loss [of this method] refuses",
        "Exits": "the process ended with exit code 3",
        "Killed": "the process ended with signal SIGKILL",
    }
    wanted = [
        f"failed: board {variant} seed {seed}: {reason}; "
        f"see {cell(folder, variant, seed).path.relative_to(folder) / 'error.txt'}"
        for variant, reason in reasons.items()
        for seed in (0, 1)
    ]
    assert problems(said) == [*wanted, "diverged: board Diverges seed 1: not finite at step 7"]
    status = command(folder, "status")
    assert status.code == 1
    assert problems(status) == problems(said)
    assert status.out.splitlines()[0] == "suite tiny, preset test: 6 failed, 3 done, 1 diverged"


def test_a_failed_cell_has_the_traceback(failed: tuple[Path, Said]) -> None:
    folder, _ = failed
    line = 1 + WRONG_METHODS.splitlines().index('            raise RuntimeError("the loss [of this method] refuses")')
    for seed in (0, 1):
        text = cell(folder, "Raises", seed).error or ""
        assert text.startswith("Traceback (most recent call last):")
        assert f'wrong.py", line {line}, in loss' in text
        assert text.strip().endswith("RuntimeError: the loss [of this method] refuses")
        assert cell(folder, "Exits", seed).error == "the process ended with exit code 3\n"
        assert cell(folder, "Killed", seed).error == "the process ended with signal SIGKILL\n"


def test_a_diverged_seed_ends_its_journal_and_is_not_averaged(failed: tuple[Path, Said]) -> None:
    folder, said = failed
    sound, diverged = (journal(folder, "Diverges", seed) for seed in (0, 1))
    assert [line["step"] for line in sound] == [0, 5, 10, 15, 20]
    assert [line["step"] for line in diverged] == [0, 5, 10]
    (row,) = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│ Diverges")]
    assert row[4].strip() == "1 (+1 diverged)"
    assert float(row[1]) == pytest.approx(sound[-1]["metrics"]["test/log_likelihood"], abs=6e-4)
    assert row[2].strip() == "-"
    names = [line.split("│")[1].strip() for line in said.out.splitlines() if line.startswith("│")]
    assert sorted(names) == ["CD-1", "Diverges"]  # what failed is not in the ranking


def test_a_diverged_seed_does_not_touch_the_others(failed: tuple[Path, Said]) -> None:
    sound, plain = (numbers(failed[0], variant, 0) for variant in ("Diverges", "CD-1"))
    for one, other in zip(sound, plain, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_failed_cells_are_tried_again_and_finished_ones_are_not(failed: tuple[Path, Said], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(failed[0], tmp_path / "copy"))
    (folder / "broken").unlink()
    diverged = journal(folder, "Diverges", 1)
    said = command(folder, *RUN, "--plugin", "wrong.py", "--methods", "raises", "killed", "diverges")
    assert said.out.splitlines()[1] == f"6 cells, 2 done already, 4 to train in 2 jobs, {CORES} at once"
    assert said.code == 1  # for the diverged one
    assert {states(folder)[variant, seed] for variant in ("Raises", "Killed") for seed in (0, 1)} == {"done"}
    assert problems(said) == ["diverged: board Diverges seed 1: not finite at step 7"]
    assert cell(folder, "Raises", 0).error is None
    assert journal(folder, "Diverges", 1) == diverged


def test_a_run_of_diverged_seeds_alone(tmp_path: Path) -> None:
    with_methods(tmp_path, "diverges")
    write(tmp_path, WRONG_METHODS.replace("% 2 == 0", "< 0"), "wrong.py")
    said = command(tmp_path, *RUN, "--plugin", "wrong.py")
    assert said.code == 1
    assert set(states(tmp_path).values()) == {"diverged"}
    (row,) = [line.split("│")[1:] for line in said.out.splitlines() if line.startswith("│ Diverges")]
    assert [text.strip() for text in row[:5]] == ["Diverges", "-", "-", "-", "0 (+2 diverged)"]
