"""A preset as a file: the same results as in the store that it was exported from, alone and beside one's own."""

import gzip
import json
import math
import os
import platform
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.records import reference as files
from bism.errors import InputError
from reports import document, export
from reports.artefacts import beside, table1
from reports.reference import Beside, ReferenceStore
from reports.store import LABELS
from reports.sweep import Sweep
from tests.reports.stores import BOTH, LL, STEPS, Held, built, frey, incomplete, learning

FD = "test/fisher_divergence"
HASH = "ab" * 18
MINE = """
import dataclasses
from baselines import CD

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    \"\"\"Somebody's method.\"\"\"
    id, label, reference = "mine", "Mine", "here"
"""


def stored() -> Held:
    """Results as a store has them: hyper-parameters, a rule, metrics that probes measured, the machine."""
    held = learning(
        Held(), BOTH, **{"param.lr": "0.01", "param.batch_size": "100", "host": "whose", "compiled": "true"}
    )
    for place, row in enumerate(held.rows):
        row |= {"machine": "AMD EPYC, 2 cores", "data_hash": HASH, "torch_version": "2.13.0",
                "select": f"last_tenth {LL}", "started": 1_767_225_600_000, "ais/gap": 1 / 3,
                f"selected/{LL}": 0.25 + place / 7, "selected/step": 1000.0,
                "command": "python -m benchmark run --suite grbm --run-dir /home/me/runs", "symbols": '{"k": "k"}',
                "drawn_as": json.dumps({"label": "CD", "family": "Contrastive divergence"})}  # fmt: skip
        held.values[row["run"], "ais/gap"] = [(1000, 1 / 3)]
        row["val/lower_objective"] = 3 / 7  # Figure 5 draws its curve
        held.values[row["run"], "val/lower_objective"] = [(100, 5.0), (1000, 3 / 7)]
    return held


def exported(held: Held, folder: Path, name: str = "grbm-paper", **more: Any) -> Path:
    path = folder / f"{name}{files.ENDING}"
    export.export(held, "grbm", "paper", path, **more)  # type: ignore[arg-type]
    return path


def opened(path: Path, name: str = "reference") -> ReferenceStore:
    return ReferenceStore({("grbm", "paper"): path}, name)


# --- the same as in the store -----------------------------------------------------------------------------------------


def test_a_file_has_what_the_store_has(tmp_path: Path) -> None:
    held = stored()
    found = opened(exported(held, tmp_path))
    ours, theirs = held.cells("grbm", "paper"), found.cells("grbm", "paper")
    assert (found.suites, found.presets("grbm")) == (["grbm"], ["paper"])
    assert len(ours) == len(theirs) == 3 * len(BOTH)
    metrics = [name for name in ours if "/" in str(name)]
    told = [*(name for name in LABELS if name not in ("cell", "host", "error")), "steps", "data_hash",
            *(name for name in ours if str(name).startswith("param."))]  # fmt: skip
    columns = [*dict.fromkeys(told), *metrics]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_dtype=False)  # to the last digit
    assert set(theirs["source"]) == {"reference"}
    assert set(theirs["host"]) == {""}


def test_its_curves_are_those_of_the_store_to_five_digits_and_end_exactly(tmp_path: Path) -> None:
    held = stored()
    found = opened(exported(held, tmp_path))
    sweeps = [Sweep(one, "grbm", "paper", tmp_path) for one in (held, found)]  # type: ignore[arg-type]
    for metric in (LL, "time/train_seconds", "train/objective", "val/lower_objective", "ais/gap"):
        ours, theirs = (sweep.curves("board", metric) for sweep in sweeps)
        keys = ["variant", "seed", "step"]
        both = ours.merge(theirs, on=keys)
        assert len(both) == len(ours) == len(theirs) > 0
        np.testing.assert_allclose(both["value_x"], both["value_y"], rtol=5e-5)
        ends = both[both["step"] == STEPS[-1]]
        assert (ends["value_x"] == ends["value_y"]).all()


def test_every_figure_of_the_report_is_drawn_with_the_same_numbers(tmp_path: Path) -> None:
    held = stored()
    both = [document.collect(one, tmp_path) for one in (held, opened(exported(held, tmp_path)))]  # type: ignore[arg-type]
    ours, theirs = ({one.name: one.numbers for one in report.sections[0].artefacts} for report in both)
    assert set(ours) == set(theirs) >= {"figure3-board", "ranking-board", "comparisons-board", "cost-board"}
    for name in ("ranking-board", "comparisons-board", "settings-board"):
        pd.testing.assert_frame_equal(ours[name], theirs[name])
    note = both[1].sections[0].note
    assert "results of others (reference), trained elsewhere: none is your own" in note
    assert both[1].sections[0].runs == {}  # they have no pages


def test_what_has_no_result_is_told_as_such(tmp_path: Path) -> None:
    held = incomplete()
    held.rows[-2]["run"] = ""  # the planned one
    path = tmp_path / "a.jsonl.gz"
    said = export.export(held, "grbm", "paper", path)  # type: ignore[arg-type]
    assert "2 cells have no result (planned, under way or failed), which the file says" in said
    found = Sweep(opened(path), "grbm", "paper", tmp_path)
    assert len(found.missing()) == 2
    states = found.cells.set_index(["variant", "seed"])["state"]
    assert (states["CD-5", 3], states["CD-5", 4], states["BiDSM-5", 3]) == ("failed", "planned", "diverged")
    assert "no" not in set(found.cells["error"])  # a method's error may hold anything


def test_nothing_tells_whose_it_was(tmp_path: Path) -> None:
    held = stored()
    for row in held.rows:
        row |= {"param.weights": "/home/me/secret/w.pt", "advice": "see /home/me/notes", "error": "OSError: /home/me",
                "variant": row["variant"].replace("CD-10", "CD-10 [weights=/home/me/secret/w.pt]")}  # fmt: skip
    text = gzip.decompress(exported(held, tmp_path).read_bytes()).decode()
    for word in ("/home", "secret", "whose", "OSError", "run-dir", "runs"):
        assert word not in text, word
    assert '"weights":"w.pt"' in text
    assert "CD-10 [weights=w.pt]" in text
    assert "python -m benchmark run --suite grbm" in text


def test_two_variants_that_differ_in_a_path_alone_are_not_mixed(tmp_path: Path) -> None:
    held = Held()
    for place in ("/home/me", "/home/you"):
        held.add(f"CD [w={place}/w.pt]", "cd", 0, curves={LL: lambda seed, step: 1.0})
    with pytest.raises(InputError, match="two variants called CD"):
        exported(held, tmp_path)


def test_long_curves_are_thinned_and_keep_the_selected_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.reports.stores.STEPS", tuple(range(0, 1001, 2)))
    held = Held()
    run = held.add("CD-1", "cd", 0, curves={LL: lambda seed, step: math.sin(step / 100)}, **{"selected/step": 334.0})
    found = opened(exported(held, tmp_path, points=11))
    curve = found.histories([found.cells("grbm", "paper")["run"][0]], LL)
    assert list(curve["step"]) == [0, 100, 200, 300, 334, 400, 500, 600, 700, 800, 900, 1000]
    kept = dict(held.values[run, LL])
    np.testing.assert_allclose(curve["value"], [kept[step] for step in curve["step"]], rtol=5e-5)


def test_what_the_package_does_not_measure_is_left_out_and_said(tmp_path: Path) -> None:
    held = stored()
    for row in held.rows:
        row["mine/score"] = 1.0
    said = export.export(held, "grbm", "paper", tmp_path / "a.jsonl.gz")  # type: ignore[arg-type]
    assert "left out, since the package measures nothing of this name: mine/score" in said


@pytest.mark.parametrize(("host", "given", "expected"), [
    ("elsewhere", "", ""), ("elsewhere", "A GPU", "A GPU"), (platform.node(), "", "core"), (platform.node(), "X", "X"),
])  # fmt: skip
def test_the_machine_of_cells_that_do_not_say_it(tmp_path: Path, host: str, given: str, expected: str) -> None:
    held = learning(Held(), {"CD-1": ("cd", 0.5)}, host=host)
    path = tmp_path / "a.jsonl.gz"
    said = export.export(held, "grbm", "paper", path, machine=given)  # type: ignore[arg-type]
    machines = set(opened(path).cells("grbm", "paper")["machine"])
    assert len(machines) == 1
    assert expected in next(iter(machines))
    assert ("--machine" in said) == (expected == "")


@pytest.mark.parametrize(
    ("made", "preset", "words"),
    [
        (lambda: Held(), None, "no suite"),
        (stored, "quick", "has no preset 'quick' in this store"),
        (
            lambda: learning(stored(), BOTH, preset="quick"),
            None,
            "has 2 presets in this store: --preset says which of paper, quick",
        ),
        (lambda: _planned(), None, "no cell has ended"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path: Path, made: Any, preset: str | None, words: str) -> None:
    held = made()
    if not held.rows:
        return
    with pytest.raises(InputError, match=words):
        export.export(held, "grbm", preset, tmp_path / "a.jsonl.gz")


def _planned() -> Held:
    held = Held()
    held.add("CD-1", "cd", 0, "planned")
    return held


def test_labels_that_ours_do_not_have_are_said(tmp_path: Path) -> None:
    held = stored()
    held.rows[0]["method"] = "not a method"
    with pytest.raises(InputError, match=r"what the store says cannot be exported: method: .*got 'not a method'"):
        exported(held, tmp_path)


def test_a_cell_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    held = stored()
    run = held.rows[0]["run"]
    held.rows[0] = {name: value for name, value in held.rows[0].items() if "/" not in name}
    held.values = {key: points for key, points in held.values.items() if key[0] != run}
    words = r"board CD-10: what the store says cannot be exported: seed 0 is done and has no metrics; .*--rerun"
    with pytest.raises(InputError, match=words):
        exported(held, tmp_path)
    held = stored()
    held.rows[0]["selected/step"] = math.inf
    with pytest.raises(InputError, match=r"selected/step of seed 0 must be an iteration, got inf"):
        exported(held, tmp_path)


def test_only_files_of_results_are_replaced(tmp_path: Path) -> None:
    """Not a device, a pipe or a folder, of which a file would take the name, and no text of somebody's."""
    text, pipe, link = tmp_path / "notes.txt", tmp_path / "pipe", tmp_path / "link.gz"
    text.write_text("mine")
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for out, words in (
        (text, "is no file of results: it stays"), (pipe, "is no file"), (link, "is no file"),
        (tmp_path, "is a folder"), (Path("."), "is a folder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            export.export(stored(), "grbm", None, out)
    assert text.read_text() == "mine"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    file = exported(stored(), tmp_path)
    before = file.read_bytes()
    assert exported(stored(), tmp_path) == file
    assert file.read_bytes() == before


# --- beside one's own -------------------------------------------------------------------------------------------------


def test_results_of_others_stand_beside_one_s_own_and_are_named(tmp_path: Path) -> None:
    theirs = opened(exported(stored(), tmp_path))
    own = learning(
        Held(), {"CD-5": ("cd", 0.45), "Ours": ("ours", 0.6)}, **{"param.lr": "0.02", "param.batch_size": "100"}
    )
    for row in own.rows:
        row |= {"git_commit": "fedcba9876543210", "data_hash": HASH}
    both = Beside(own, [theirs])  # type: ignore[arg-type]
    cells = both.cells("grbm", "paper")
    assert set(cells["variant"]) == {"CD-5", "Ours", *(f"{name} (reference)" for name in BOTH)}
    assert set(cells[cells["source"] == ""]["variant"]) == {"CD-5", "Ours"}
    section = document.collect(both, tmp_path).sections[0]
    assert 'Variants marked "(reference)" are results of others' in section.note
    facts = dict(section.facts)
    assert facts["commit"] == "fedcba987654"
    assert facts["commit (reference)"] == "0123456789ab"
    assert facts["machine (reference)"] == "AMD EPYC, 2 cores, cpu"
    found = {one.name: one for one in section.artefacts}
    drawn = set(found["figure3-board"].numbers["variant"])
    assert {"Ours", "CD-5", "CD-5 (reference)"} <= drawn
    assert {"Ours", "CD-10 (reference)"} <= set(found["ranking-board"].numbers["variant"])
    differing = found["beside"].numbers.set_index("variant")
    assert list(differing.index) == ["CD-5"]
    said = differing.loc["CD-5", "what differs"]
    assert "learning rate of the model β 0.02, 0.01" in said
    assert "commit fedcba987654, 0123456789ab" in said
    assert "minibatch" not in said
    assert "1 variant of your own is in none of theirs" in found["beside"].caption


def test_what_all_differ_in_is_said_once_and_iterations_are_among_it(tmp_path: Path) -> None:
    theirs = opened(exported(stored(), tmp_path))
    own = learning(Held(), {"CD-5": ("cd", 0.45), "CD-10": ("cd", 0.5)}, **{"param.lr": "0.01", "steps": 500})
    frame, common = beside.compare(Sweep(Beside(own, [theirs]), "grbm", "paper", tmp_path))  # type: ignore[arg-type]
    assert "iterations 500, 1,000" in common
    assert set(frame["what differs"]) == {"-"}


def test_the_largest_difference_is_that_of_a_seed(tmp_path: Path) -> None:
    own = stored()
    theirs = opened(exported(stored(), tmp_path))
    own.rows[4][f"selected/{LL}"] += 0.125
    frame, _ = beside.compare(Sweep(Beside(own, [theirs]), "grbm", "paper", tmp_path))  # type: ignore[arg-type]
    largest = frame.set_index("variant")["largest difference of a seed"]
    assert largest[own.rows[4]["variant"]] == pytest.approx(0.125)
    assert (largest.drop(own.rows[4]["variant"]) == 0).all()


def test_table_1_prints_the_paper_s_value_beside_theirs_too(tmp_path: Path) -> None:
    held = frey({"DSM": [(129.0, -5880.0), (129.5, -5890.0)]})
    path = tmp_path / "f.jsonl.gz"
    export.export(held, "freyface", "paper", path)  # type: ignore[arg-type]
    both = Beside(held, [ReferenceStore({("freyface", "paper"): path})])  # type: ignore[arg-type]
    numbers = built(table1, both, tmp_path, suite="freyface")["table1"].numbers  # type: ignore[arg-type]
    assert set(numbers["variant"]) == {"DSM", "DSM (reference)"}
    assert numbers["paper"].notna().all()


def test_presets_of_others_alone_are_drawn_where_they_are_asked_for(tmp_path: Path) -> None:
    theirs = opened(exported(stored(), tmp_path))
    own = learning(Held(), {"CD-5": ("cd", 0.45)}, preset="quick")
    few, all_of_them = Beside(own, [theirs]), Beside(own, [theirs], everything=True)  # type: ignore[arg-type]
    assert few.presets("grbm") == ["quick"]
    assert all_of_them.presets("grbm") == ["quick", "paper"]
    document.collect(few, tmp_path)
    (said,) = few.unmet
    assert "nothing of the reference is drawn" in said
    assert "grbm paper" in said
    document.collect(all_of_them, tmp_path)
    assert all_of_them.unmet == []
