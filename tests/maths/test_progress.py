"""How a fit tells how far it is, and how many threads it takes; neither changes a number."""

import io

import pytest
import torch
from torch import nn

from baselines.cd import CD
from bism import GRBM, InputError
from bism.progress import Shown, in_pieces
from bism.threads import suitable_threads, using_threads

DATA = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def three_threads():
    """As many as no test chooses; what the other tests have is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_progress_is_told_from_the_first_iteration_to_the_last() -> None:
    told = list[tuple[int, int]]()
    fitted = CD().fit(GRBM(2, 3), DATA, steps=57, progress=lambda *how_far: told.append(how_far))
    steps = [step for step, _ in told]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1], {total for _, total in told}) == (0, 57, {57})
    assert len(steps) > 2
    alone = CD().fit(GRBM(2, 3), DATA, steps=57)
    assert torch.equal(fitted.log_likelihood(DATA), alone.log_likelihood(DATA))


def test_what_goes_on_is_told_from_where_it_goes_on(tmp_path) -> None:
    CD().fit(GRBM(2, 3), DATA, steps=20).save(tmp_path / "saved.pt")
    told = list[int]()
    CD().fit(GRBM(2, 3), DATA, steps=30, resume=tmp_path / "saved.pt", progress=lambda step, _: told.append(step))
    assert (told[0], told[-1]) == (20, 30)


def test_progress_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    CD(k=5).fit(GRBM(2, 3), DATA, steps=12, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("CD-5: 12 of 12 iterations, ")
    CD().fit(GRBM(2, 3), DATA, steps=12)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_s_line_is_written_over() -> None:
    to = Terminal()
    shown = Shown("CD-1", to)
    for step in (0, 500, 1000):
        shown(step, 1000)
    first, middle, last = to.getvalue().split("\r")[1:]
    assert first.startswith("CD-1: 0 of 1,000 iterations, 0 s ")
    assert "500 of 1,000 iterations, 0 s, about 0 s left" in middle
    assert last.endswith("\n")
    assert to.getvalue().count("\n") == 1
    assert len(first) == len(middle) == len(last.rstrip("\n"))  # nothing of the line before is left over


def test_pieces_add_up() -> None:
    pieces = list[int]()
    in_pieces(pieces.append, 7, 1000, lambda *_: None)
    assert sum(pieces) == 993
    assert len(pieces) < 100


class Interrupted(Exception):
    pass


def test_a_function_may_end_the_training() -> None:
    def impatient(step: int, steps: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        CD().fit(GRBM(2, 3), DATA, steps=5, progress=impatient)


class Spying(GRBM):
    """A model that notes how many threads there are."""

    seen: set[int] = set()  # noqa: RUF012

    def free_energy(self, v: torch.Tensor) -> torch.Tensor:
        self.seen.add(torch.get_num_threads())
        return super().free_energy(v)


@pytest.mark.parametrize(("threads", "used"), [(None, 1), (2, 2)])
def test_a_small_model_is_trained_on_one_thread_unless_told(threads: int | None, used: int) -> None:
    Spying.seen.clear()
    CD().fit(Spying(2, 3), DATA, steps=2, threads=threads)
    assert Spying.seen == {used}


def test_large_models_have_all_threads() -> None:
    large = GRBM(560, 400)
    assert suitable_threads(large, 1, 100) == 3
    assert suitable_threads(GRBM(64, 14), 10, 100) == 1
    assert suitable_threads(nn.Linear(2, 2), 1, 10_000_000) == 3  # small, in very many examples


def test_threads_are_restored_whatever_happens() -> None:
    with pytest.raises(InputError, match="data"):
        CD().fit(GRBM(2, 3), torch.rand(5, 3), steps=1)
    assert torch.get_num_threads() == 3
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        CD().fit(GRBM(2, 3), DATA, steps=1, threads=0)
    with using_threads(None):
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("seeds", [3, [], [1, 1]])
def test_bad_seeds_are_refused_as_ever(seeds) -> None:
    with pytest.raises(InputError, match="seeds must be"):
        CD().fit(GRBM(2, 3), DATA, seeds=seeds, steps=1)
