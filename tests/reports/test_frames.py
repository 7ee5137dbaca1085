"""Results as a frame: every cell once, with its labels, and a metric's whole curves."""

import re
from typing import Any

import pandas as pd
import pytest

from bism.errors import InputError
from reports import frame, frames
from reports.artefacts import ranking
from tests.harness.tiny import ROOT
from tests.reports.stores import BOTH, LL, Held, built, learning

FIRST = ["suite", "preset", "task", "method", "variant", "seed", "steps", "state", "run"]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Two presets of one suite and one of another; the last cell is only planned."""
    made = learning(Held(), BOTH)
    learning(made, {"SM": ("sm", 0.1)}, seeds=2, preset="quick")
    learning(made, {"DSM": ("dsm", 0.2)}, seeds=1, suite="freyface")
    made.add("SM", "sm", 9, "planned", preset="quick")
    made.rows[-1]["run"] = ""
    made.uri = "the store"  # type: ignore[attr-defined]
    monkeypatch.setattr(frames, "Store", lambda uri: made)
    return made


def test_every_cell_is_a_row(held: Held) -> None:
    cells = frame()
    assert list(cells)[:9] == FIRST
    assert len(cells) == len(held.rows) == 3 * len(BOTH) + 2 + 1 + 1
    assert set(zip(cells["suite"], cells["preset"], strict=True)) == {
        ("grbm", "paper"), ("grbm", "quick"), ("freyface", "paper"),
    }  # fmt: skip
    mean = cells[cells["state"] == "done"].groupby("variant")[LL].mean()
    assert mean["CD-10"] == pytest.approx(0.51)  # 0.5 and seeds / 100
    assert cells.loc[cells["state"] == "planned", LL].isna().all()


def test_a_choice_of_suite_and_presets(held: Held) -> None:
    assert set(frame("grbm")["preset"]) == {"paper", "quick"}
    assert set(frame("grbm", "quick")["variant"]) == {"SM"}
    assert set(frame("grbm", ["quick", "paper"])["preset"]) == {"paper", "quick"}
    assert set(frame("freyface")["variant"]) == {"DSM"}


def test_what_the_rule_takes_is_there_for_every_rule(held: Held) -> None:
    held.rows[0][f"selected/{LL}"] = 7.0
    cells = frame("grbm", "paper")
    own = cells["run"] == held.rows[0]["run"]
    assert cells.loc[own, f"selected/{LL}"].tolist() == [7.0]
    assert cells.loc[~own, f"selected/{LL}"].equals(cells.loc[~own, LL])  # of the rule "last"


def test_the_example_of_the_guide_is_the_report_s_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a seed's rule takes is not its last value, and a seed that diverged is left out."""
    made = learning(Held(), BOTH, preset="quick")
    for place, row in enumerate(made.rows):
        row[f"selected/{LL}"] = row[LL] - 0.1 * (place % 5)
    made.add("CD-5", "cd", 3, "diverged", preset="quick", **{LL: -99.0})
    monkeypatch.setattr(frames, "Store", lambda uri: made)
    (example,) = re.findall(r"```python notest\n(.*?)```", (ROOT / "docs" / "report.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example.partition("curves = ")[0], names)
    theirs = built(ranking, made, preset="quick")["ranking-board"].numbers
    ours = names["ranking"].loc["board"]
    assert list(ours.index) == theirs["variant"].tolist() != sorted(theirs["variant"])
    assert ours["mean"].tolist() == pytest.approx(theirs["mean"].tolist(), rel=1e-12)
    assert ours["count"].tolist() == theirs["seeds"].tolist()


def test_curves(held: Held) -> None:
    curves = frame("grbm", "quick", metric=LL)
    assert list(curves) == [*FIRST, "step", "value"]
    assert list(zip(curves["seed"], curves["step"], strict=True)) == [
        (0, 0), (0, 100), (0, 1000), (1, 0), (1, 100), (1, 1000),
    ]  # fmt: skip
    last = curves.groupby("seed")["value"].last()
    pd.testing.assert_series_equal(last, frame("grbm", "quick").set_index("seed")[LL].loc[[0, 1]], check_names=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "quik"}, "the store has no preset 'quik': did you mean 'quick'? valid: paper, quick"),
        ({"metric": "test/log_likelyhood"}, "no cell has the metric 'test/log_likelyhood': did you mean 'test/log"),
    ],
)
def test_what_is_not_there(held: Held, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        frame("grbm", **arguments)  # type: ignore[arg-type]
    assert message in str(raised.value)
