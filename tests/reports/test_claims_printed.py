"""The ledger as people get it: in a terminal, as files, in a report."""

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from benchmark.system.invocation import call
from reports import document, html, latex, markdown, pdf
from reports.__main__ import main
from reports.claims import LEDGER, PARTS, judge
from reports.claims.claim import method_of
from reports.claims.printing import FORMATS, print_claims, print_ledger
from tests.reports.stores import LL, Held

SIZE = len(LEDGER)
LEVELS = {"SSM": 0.34, "BiSSM-5": 0.335, "DSM": 0.33, "BiDSM-5": 0.331, "CD-1": 0.338, "CD-5": 0.34, "CD-10": 0.339,
          "NCE": 0.29, "BiDSM-0": -0.3, "VaGES-DSM-2": 0.325}  # fmt: skip
DOC = Path(__file__).parents[2] / "docs" / "claims.md"


def board() -> Held:
    """The checkerboard: BiDSM as good as DSM, NCE behind, BiSSM all over the place, BiSSM-0 diverging; no VNCE."""
    held, rng = Held(), np.random.default_rng(0)
    for variant, level in LEVELS.items():
        for seed in range(5):
            spread = 0.05 if variant == "BiSSM-5" else 0.001
            held.add(
                variant,
                method_of(variant),
                seed,
                task="checkerboard",
                steps=100_000,
                **{LL: level + spread * rng.normal()},
            )
    held.add("BiSSM-0", "bissm", 0, "diverged", task="checkerboard", steps=100_000)
    held.add("BiSSM-0", "bissm", 1, task="checkerboard", steps=100_000, **{LL: -60.0})
    return held


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str, held: Held | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("reports.store.Store", lambda uri: held or board())
        code = main(["claims", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_verdicts_and_what_would_decide(width: int) -> None:
    said = io.StringIO()
    print_ledger(judge(LEDGER, board(), SIZE), PARTS, SIZE, "text", Console(file=said, width=width))
    text = said.getvalue()
    commands = [line for line in text.splitlines() if "-m benchmark run" in line]  # to be copied whole
    assert all(len(line) <= width for line in text.splitlines() if line not in commands)
    words = " ".join(re.sub("[│┃]", " ", text).split())
    assert f"{SIZE} claims: 4 supported, 1 contradicted, 3 undecided, {SIZE - 8} not measured" in words
    assert "checkerboard-bissm-ssm: BiSSM-5 − SSM: about" in words
    assert f"{call('benchmark', 'run')} --suite grbm --preset paper --tasks checkerboard" in commands[0]
    (nce,) = (one for one in judge(LEDGER, board(), SIZE) if one.claim.id == "checkerboard-bissm-nce")
    assert commands[0].endswith(f"--variants BiSSM-5 NCE --seeds 0-{nce.findings[0].total - 1}")
    assert nce.findings[0].total > 5
    assert all(claim.id in words for claim in LEDGER)


def test_verdicts_of_the_board(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command("--format", "json", "--suite", "grbm")
    assert (code, err) == (1, "")
    found = {one["id"]: one["verdict"] for one in json.loads(out)["claims"]}
    assert found["checkerboard-bidsm-dsm"] == found["checkerboard-bidsm-cd"] == "supported"
    assert found["checkerboard-unrolling"] == "supported"  # a seed of BiSSM-0 diverged
    assert found["checkerboard-bidsm-nce"] == "contradicted"  # by NCE alone
    assert found["checkerboard-bissm-ssm"] == "undecided"
    assert found["digits-bidsm-dsm"] == "not measured"
    assert found["vages-checkerboard"] == "supported"


def test_whoever_has_the_json_can_make_the_verdicts_again(command: Callable[..., tuple[int, str, str]]) -> None:
    """The documented rule, in other words."""
    content = json.loads(command("--format", "json")[1])
    for claim in content["claims"]:
        states = []
        for one in claim["comparisons"]:
            d, (low, high) = np.array(one["per_seed"], float), map(float, one["region"])
            state = "not measured" if not one["seeds"] else "open"
            if len(d) > 1 and not one["reason"]:
                ends = stats.t.interval(1 - 0.05 / one["family"], len(d) - 1, d.mean(), stats.sem(d))
                np.testing.assert_allclose(ends, one["interval"])
                state = "holds" if low <= ends[0] and ends[1] <= high else "open"
                state = "fails" if ends[0] > high or ends[1] < low else state
            elif one["effect"] in ("inf", "-inf"):
                state = "holds" if low <= float(one["effect"]) <= high else "fails"
            assert one["state"] == state
            states.append(state)
        needed, settles = ("holds", "fails") if claim["needs"] == "all" else ("fails", "holds")
        verdict = {"fails": "contradicted", "holds": "supported"}
        if settles in states:
            expected = verdict[settles]
        elif set(states) == {needed}:
            expected = verdict[needed]
        else:
            expected = "not measured" if set(states) == {"not measured"} else "undecided"
        assert claim["verdict"] == expected, claim["id"]


def test_other_forms(command: Callable[..., tuple[int, str, str]]) -> None:
    table = pd.read_csv(io.StringIO(command("--format", "csv")[1]))
    assert len(table) == sum(len(claim.comparisons) for claim in LEDGER)
    row = table[(table["claim"] == "checkerboard-bidsm-dsm")].iloc[0]
    assert (row["state"], row["seeds"], row["family"], row["holds to"]) == ("holds", "0-4", SIZE, 0.02)
    ratio = table[table["unit"] == "ratio"].iloc[0]
    assert ratio["holds to"] == pytest.approx(1.25)
    assert table.loc[table["state"] == "not measured", ["effect", "low", "high"]].isna().all(axis=None)
    text = command("--format", "markdown")[1]
    assert "| `checkerboard-bidsm-dsm` BiDSM-5 ends where DSM does, which can sum over h | **supported** |" in text
    assert "## What would measure the rest" in text
    assert "--suite bias --preset paper --tasks freyface --variants BiDSM-5 --seeds 0-4`" in text


def test_claims_are_chosen_by_id_and_suite(command: Callable[..., tuple[int, str, str]]) -> None:
    assert command("checkerboard-bidsm-dsm")[0] == 0
    code, out, _ = command("checkerboard-bidsm-dsm", "vages-freyface")
    assert code == 1
    assert "2 claims: 1 supported, 0 contradicted, 0 undecided, 1 not measured" in out
    for arguments, message in {
        ("checkerboard-bidsm",): "error: no claim 'checkerboard-bidsm': did you mean 'checkerboard-bidsm-",
        ("--suite", "gbrm"): "error: no claim needs runs of a suite 'gbrm': did you mean 'grbm'",
        ("theorem1", "--suite", "grbm"): "error: none of theorem1 needs runs of grbm",
        ("--format", "xml"): "error: --format cannot be 'xml'",
    }.items():
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(message), err


@pytest.mark.parametrize("form", FORMATS)
def test_claims_are_listed_without_a_store(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--list", "--format", form, "--tracking-uri", "sqlite:///nowhere.db"]) == 0
    out = capsys.readouterr().out
    assert all(claim.id in out for claim in LEDGER)
    if form == "json":
        content = json.loads(out)
        assert content["claims_in_ledger"] == SIZE
        assert math.isinf(float(content["claims"][8]["comparisons"][0]["region"][1]))
    if form == "text":
        assert "margin: 0.02 nats, a fiftieth" in " ".join(out.split())
        assert max(map(len, out.splitlines())) <= 120


# --- in a report ------------------------------------------------------------------------------------------------------


def test_the_report_begins_with_the_claims(tmp_path: Path) -> None:
    report = document.collect(board(), tmp_path)  # type: ignore[arg-type]
    section = report.sections[0]
    assert (section.name, section.title) == ("claims", "Do the claims hold?")
    found = {artefact.name: artefact for artefact in section.artefacts}
    effects = ["effects-checkerboard-and-digits", "effects-follow-up"]
    assert list(found) == ["verdicts", *effects, "wanting", "not-measured"]
    verdicts = found["verdicts"].table
    assert verdicts is not None
    found_of = dict(zip(verdicts.frame["claim"].str.partition(":")[0], verdicts.frame["verdict"], strict=True))
    assert found_of["checkerboard-bidsm-dsm"] == "supported"
    assert "not measured" not in set(verdicts.frame["verdict"])
    assert section.made_from(found["verdicts"])
    document.write_files(report, tmp_path, ["pdf", "png"])
    for form in (html, pdf, latex, markdown):
        form.write(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.index('id="claims"') < page.index('id="grbm-paper"')
    assert 'id="claims-effects-follow-up"' in page
    assert "## Do the claims hold?" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "data" / "claims-verdicts.csv").exists()


def test_a_part_of_the_runs_has_the_claims_that_it_can_answer(tmp_path: Path) -> None:
    def ids(**chosen: list[str]) -> set[str]:
        report = document.collect(board(), tmp_path, **chosen)  # type: ignore[arg-type]
        found = [section for section in report.sections if section.name == "claims"]
        return {name for section in found for name in section.artefacts[0].numbers["claim"]}

    assert ids(suites=["grbm"]) == {claim.id for claim in LEDGER if claim.suites == ["grbm"]}
    assert ids(methods=["cd"]) == set()
    held = Held()
    for seed in range(2):
        held.add("DSM", "dsm", seed, preset="quick", **{LL: 1.0})
    assert [section.name for section in document.collect(held, tmp_path).sections] == ["grbm-quick"]  # type: ignore[arg-type]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_the_list_of_claims() -> None:
    """``python -m reports claims --list --format markdown`` writes what stands below its second heading."""
    said = io.StringIO()
    print_claims(LEDGER, PARTS, SIZE, "markdown", Console(file=said))
    head, _, rest = DOC.read_text().partition("## The list\n\n")
    assert rest == said.getvalue()
    assert f"{SIZE} claims" in head
    assert f"# {SIZE} claims" in (DOC.parents[1] / "README.md").read_text()


@pytest.mark.parametrize(
    ("variant", "steps", "why"),
    [
        ("Mine", 100_000, "of no claim all of the variants that it compares, with the metrics that it looks at"),
        ("DSM", 100_000, "of no claim all of the variants that it compares, with the metrics that it looks at"),
        ("Mine [steps=5]", 5, "of no claim all of the variants that it compares, with the metrics that it looks at"),
        ("DSM [steps=5]", 5, "runs of other iterations than a preset's do not count"),
        ("DSM", 5, "runs of other iterations than a preset's do not count"),
    ],
)
def test_other_iterations_are_named_as_the_reason_only_where_there_are_such_runs(
    command: Callable[..., tuple[int, str, str]], variant: str, steps: int, why: str
) -> None:
    held = Held()
    held.add(variant, "dsm", 0, task="checkerboard", steps=steps, **{LL: 0.3})
    code, _, err = command("checkerboard-bidsm-dsm", held=held)
    assert (code, err.count("\n")) == (1, 1)
    assert err.endswith(f": it has grbm paper, and {why}\n")
