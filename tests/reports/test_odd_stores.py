"""Stores that hold more than one would think: changed suites, somebody else's runs, odd names and numbers."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from benchmark.tracking.store import has_tags, tag_condition
from bism.errors import InputError
from reports import document, html, latex, markdown, pdf, store
from reports.__main__ import main
from reports.sections import Report
from reports.store import Store
from reports.sweep import Sweep
from reports.variants import apart
from tests.reports.stores import BOTH, FD, LL, Held, learning, sweep

ODD = ("it's", 'a "b"', "back\\slash", "100% $x$ & <b> {c} ~^_#", "a/b/../c", "naïve α\u2028", "$\\frac{")


def report(held: Held, folder: Path) -> Report:
    return document.collect(held, folder)  # type: ignore[arg-type]


# --- one name for several configurations ------------------------------------------------------------------------------


def changed(held: Held, variants: dict[str, tuple[str, float]], **params: Any) -> Held:
    """The same suite again with other parameters, begun later."""
    again = learning(Held(), variants, **params)
    held.rows += [row | {"run": row["run"] + str(params), "cell": row["run"] + str(params), "started": 1}
                  for row in again.rows]  # fmt: skip
    held.values |= {(run + str(params), name): values for (run, name), values in again.values.items()}
    return held


def test_a_suite_that_was_changed_and_run_again_is_told_apart(tmp_path: Path) -> None:
    some = {"CD-5": BOTH["CD-5"]}
    held = changed(learning(Held(), some, **{"param.batch_size": "100"}), some, **{"param.batch_size": "50"})
    density = np.outer([1.0, 2.0, 3.0], [1.0, 1.0, 2.0])
    axis = np.linspace(0, 1, 3)
    for row in held.rows:
        held.arrays[row["run"], "density"] = {"density": density, "axis": axis, "step": np.array(7)}
    found = sweep(held, tmp_path)
    names = {"CD-5 [batch_size=50]", "CD-5 [batch_size=100]"}
    assert set(found.cells["variant"]) == names
    assert found.cells.groupby("variant")["seed"].nunique().eq(3).all()
    artefacts = {one.name: one.numbers for one in report(held, tmp_path).sections[0].artefacts}
    for name in ("figure2-board", "figure3-board", "ranking-board"):
        assert set(artefacts[name]["variant"]) == names


def test_a_name_says_more_in_the_brackets_that_it_has() -> None:
    held = Held()
    for seed, size in ((0, "50"), (1, "100"), (2, None)):
        held.add("CD-5 [lr=0.1]", "cd", seed, **{"param.batch_size": size, "param.seed": str(seed)})
    cells, left = apart(held.cells("grbm", "paper"))
    assert left == 0
    assert set(cells["variant"]) == {"CD-5 [lr=0.1, batch_size=50]", "CD-5 [lr=0.1, batch_size=100]", "CD-5 [lr=0.1]"}


def test_other_iterations_are_a_section_of_their_own_and_the_last_are_the_preset_s(tmp_path: Path) -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.5)})
    for seed in range(3):
        held.add("CD-5", "cd", seed, curves={LL: lambda seed, step: 0.1 * step})
        held.rows[-1] |= {"steps": 500, "started": 1, "run": f"later {seed}", "cell": f"later {seed}"}
    assert [section.name for section in report(held, tmp_path).sections] == ["grbm-paper", "grbm-paper-steps1000"]


def test_cells_of_many_metrics_are_no_reason_for_pandas_to_warn() -> None:
    """Warnings are errors here. A store's frame is made column by column."""
    held = Held()
    for seed in range(2):
        held.add("A", "m", seed, **{f"bias/practical_K5_N{n}": 1.0 for n in range(200)})
    cells, _ = apart(held.cells("grbm", "paper").astype({"seed": int, "steps": int}))
    assert len(cells.assign(value=1.0)) == 2


def test_of_two_that_nothing_tells_apart_the_later_stands(tmp_path: Path) -> None:
    some = {"CD-5": BOTH["CD-5"]}
    held = changed(learning(Held(), some), some)
    found = sweep(held, tmp_path)
    assert found.superseded == 3
    assert set(found.cells["started"]) == {1}
    assert "3 cells of an earlier version of the suite" in report(held, tmp_path).sections[0].note


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, pytest.param(-math.inf, marks=pytest.mark.long)])
@pytest.mark.parametrize("of", ["one seed", "a variant", "all"])
def test_what_is_not_finite_is_drawn_around(tmp_path: Path, value: float, of: str) -> None:
    held = learning(Held(), {name: BOTH[name] for name in ("CD-5", "BiDSM-5")})
    for row in held.rows:
        if of == "all" or (row["variant"] == "CD-5" and (of == "a variant" or row["seed"] == 1)):
            row |= {LL: value, FD: value, "time/ms_per_step": 2.0}
            for metric in (LL, "train/objective"):
                points = held.values[row["run"], metric]
                held.values[row["run"], metric] = [points[0], *((step, value) for step, _ in points[1:])]
    found = report(held, tmp_path)
    for artefact in found.sections[0].artefacts:
        if artefact.figure is not None:
            document.render(artefact, "svg")
    assert "7976931348623157" not in latex.write(found, tmp_path).read_text()
    rankings = [one.numbers for one in found.sections[0].artefacts if one.name == "ranking-board"]
    means = rankings[0].set_index("variant")["mean"] if rankings else {}
    if of != "all" and math.isinf(value):
        assert means["CD-5"] == value


def test_the_largest_number_of_a_database_is_an_infinity() -> None:
    assert store.number(1.7976931348623157e308) == math.inf
    assert store.number(-1.7976931348623157e308) == -math.inf
    assert math.isnan(store.number("NaN"))
    assert store.number(1e300) == 1e300


# --- names ------------------------------------------------------------------------------------------------------------


def odd(names: Sequence[str]) -> Held:
    """Presets, tasks, variants, methods and errors of these names."""
    held = Held()
    for name in names:
        extra = Held()
        for seed in (0, 1):
            for variant, method in ((name, "cd"), (f"other {name}", name)):
                extra.add(variant, method, seed, **{LL: 0.1 * seed, "time/ms_per_step": 1.0, "time/train_seconds": 1.0})
        held.rows += [row | {"preset": name, "task": name, "error": name} for row in extra.rows]
    return held


def test_names_with_any_letters_make_no_folders(tmp_path: Path) -> None:
    found = report(odd(["".join(ODD)]), tmp_path / "fetched")
    document.write_files(found, tmp_path, [])
    latex.write(found, tmp_path)
    markdown.write(found, tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    folders = {file.parent.relative_to(tmp_path).as_posix() for file in files}
    assert folders == {".", "data", "latex", "latex/tables"}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", file.name) for file in files)
    assert len(list((tmp_path / "data").iterdir())) == len(found.sections[0].artefacts)


def test_between_two_dollars_of_labels_and_names_no_formula_is_read(tmp_path: Path) -> None:
    """Nor between those of two names, each of which has one."""
    words = "costs $2_{ and $3"
    labels = {"preset_label": words, "drawn_as": json.dumps({"label": words}), "symbols": json.dumps({"lr": words})}
    held = learning(Held(), {"CD $_{1": ("cd", 0.5), "CD $_{2": ("cd", 0.4), words: ("dsm", 0.3)}, **labels)
    figures = [one for one in report(held, tmp_path).sections[0].artefacts if one.figure is not None]
    assert figures
    for artefact in figures:
        document.render(artefact, "svg")


@pytest.mark.long
def test_every_form_takes_any_names(tmp_path: Path) -> None:
    found = report(odd(ODD), tmp_path / "fetched")
    document.write_files(found, tmp_path, ["pdf", "svg", "png"])
    for form in (latex, markdown, pdf):
        form.write(found, tmp_path)
    assert "it&#39;s" in html.write(found, tmp_path).read_text()
    engine = shutil.which("tectonic") or shutil.which("pdflatex")
    if engine is None:
        pytest.skip("no TeX is installed (Debian: apt-get install texlive-latex-recommended)")
    options = [] if engine.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    said = subprocess.run([engine, *options, "report.tex"], cwd=tmp_path / "latex", capture_output=True)
    assert said.returncode == 0, said.stdout.decode(errors="replace")[-3000:]


@pytest.mark.parametrize("name", ODD)
def test_a_condition_says_what_mlflow_can_read_and_the_tags_decide(name: str) -> None:
    from mlflow.utils.search_utils import SearchUtils

    condition = tag_condition(kind="cell", preset=name)
    assert {(one["key"], one["value"]) for one in SearchUtils.parse_search_filter(condition)} <= {
        ("kind", "cell"), ("preset", name),
    }  # fmt: skip
    run = SimpleNamespace(data=SimpleNamespace(tags={"kind": "cell", "preset": name}))
    assert has_tags(run, kind="cell", preset=name)
    assert not has_tags(run, kind="cell", preset=name + "'")


# --- somebody else's runs ---------------------------------------------------------------------------------------------

OURS = {"kind": "cell", "preset": "quick", "cell": "1", "task": "t", "method": "cd", "variant": "CD-1", "seed": "0",
        "steps": "10", "state": "done", "suite": "grbm"}  # fmt: skip


def run_of(number: int, tags: dict[str, str], **metrics: float) -> Any:
    info = SimpleNamespace(run_id=f"r{number}", start_time=number, status="FINISHED")
    return SimpleNamespace(info=info, inputs=None, data=SimpleNamespace(tags=tags, params={}, metrics=metrics))


class Client:
    """A store with one suite, whose plan has files that were cut, are of another form, or are gone."""

    runs: tuple[Any, ...] = ()
    files = ("cut", "list", "other", "good", "gone")

    def __init__(self, uri: str) -> None: ...

    def search_experiments(self) -> list[object]:
        return [SimpleNamespace(name="grbm", experiment_id="1"), SimpleNamespace(name="theirs", experiment_id="2")]

    def search_runs(self, experiments: list[str], condition: str, **_: object) -> Any:
        class Page(list[Any]):
            token = None

        return Page(run for run in self.runs if experiments == ["1"])

    def list_artifacts(self, run: str, path: str = "") -> list[object]:
        return [SimpleNamespace(path=name) for name in self.files]

    def download_artifacts(self, run: str, path: str, folder: str) -> str:
        good = '[{"id": "2", "task": "t", "method": "cd", "variant": "CD-1", "seed": 1, "steps": 10}]'
        texts = {"cut": "[{", "list": "[1]", "other": '[{"id": 5}]', "good": good}
        if path not in texts:
            raise MlflowException("no such artifact")
        (Path(folder) / path).write_text(texts[path])
        return str(Path(folder) / path)


def test_runs_that_are_not_ours_are_read_past(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strange = [{name: value for name, value in OURS.items() if name != left} for left in OURS if left != "kind"]
    runs = [run_of(0, OURS, **{LL: 1.0}), run_of(1, {"kind": "plan", "preset": "quick"}), run_of(2, {"kind": "plan"}),
            run_of(3, OURS | {"cell": "3", "seed": "first"}), run_of(4, {"kind": "study"}),
            run_of(5, {"kind": "trial"}), run_of(6, {"kind": "study", "study": "s", "objectives": "{", "preset": "p"}),
            *(run_of(10 + i, tags) for i, tags in enumerate(strange))]  # fmt: skip
    monkeypatch.setattr(Client, "runs", tuple(runs))
    monkeypatch.setattr(Client, "files", Client.files[:-1])
    monkeypatch.setattr(store, "check", lambda uri, write: None)
    monkeypatch.setattr(store, "MlflowClient", Client)
    monkeypatch.setattr(Store, "histories", Held().histories)
    opened = Store("postgresql://db/mlflow")
    assert opened.suites == ["grbm"]
    assert opened.presets("grbm") == ["quick"]
    cells = opened.cells("grbm", "quick")
    assert dict(zip(cells["cell"], cells["state"], strict=True)) == {"1": "done", "2": "planned"}
    assert opened.studies("grbm").empty
    assert {"r1", "r3", "r4", "r6", "r12"} <= opened.left_out
    assert opened.trials("grbm").empty
    assert opened.artifact("r0", "gone", tmp_path) is None
    assert len(document.collect(opened, tmp_path).sections) == 1


def test_tasks_stand_in_the_order_of_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Begun or not; a task that no plan knows comes last."""
    planned = [{"id": str(i), "task": task, "method": "cd", "variant": "CD-1", "seed": 0, "steps": 10}
               for i, task in enumerate(["z", "b", "a"])]  # fmt: skip
    begun = [OURS | {"cell": "2", "task": "a"}, OURS | {"cell": "9", "task": "0"}, OURS | {"cell": "0", "task": "z"}]
    runs = [run_of(9, {"kind": "plan", "preset": "quick"}), *(run_of(i, tags) for i, tags in enumerate(begun))]
    monkeypatch.setattr(Client, "runs", tuple(runs))
    monkeypatch.setattr(Client, "files", ("good",))
    monkeypatch.setattr(Store, "_text", lambda *_: json.dumps(planned))
    monkeypatch.setattr(store, "check", lambda uri, write: None)
    monkeypatch.setattr(store, "MlflowClient", Client)
    found = Sweep(Store("postgresql://db/mlflow"), "grbm", "quick", tmp_path)
    assert found.tasks == ["z", "b", "a", "0"]


def test_a_suite_of_which_nothing_has_begun_has_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A report beside a run that has just been started."""
    monkeypatch.setattr(Client, "runs", (run_of(1, {"kind": "plan", "preset": "quick"}),))
    monkeypatch.setattr(Client, "files", ("good",))
    monkeypatch.setattr(store, "check", lambda uri, write: None)
    monkeypatch.setattr(store, "MlflowClient", Client)
    found = Sweep(Store("postgresql://db/mlflow"), "grbm", "quick", tmp_path)
    assert list(found.cells["state"]) == ["planned"]


@pytest.mark.parametrize("points", [24_999, 25_000, 60_000])
def test_a_history_of_any_length_is_read_whole(monkeypatch: pytest.MonkeyPatch, points: int) -> None:
    """A server answers with so many values at most, whatever they are of; its client asks for the pages of one run."""
    held = {run: [(step, float(step)) for step in range(count)] for run, count in (("a", points), ("b", 10))}

    def answer(_: object, __: object, ___: object, params: Any) -> Any:
        found = [{"run_id": run, "step": step, "value": value} for run in params["run_id"] for step, value in held[run]]
        return SimpleNamespace(status_code=200, json=lambda: {"metrics": found[: params["max_results"]]})

    opened: Any = object.__new__(Store)
    opened._pages = True
    opened._client = SimpleNamespace(
        _tracking_client=SimpleNamespace(store=SimpleNamespace(get_host_creds=lambda: None)),
        get_metric_history=lambda run, _: [SimpleNamespace(step=step, value=value) for step, value in held[run]],
    )
    monkeypatch.setattr(store, "http_request", answer)
    found = opened.histories(["a", "b"], LL)
    assert found.groupby("run")["step"].agg(["count", "max"]).to_numpy().tolist() == [[points, points - 1], [10, 9]]


def test_latex_is_given_no_letter_that_it_does_not_know() -> None:
    text = latex.escape("v₁, x⁷, naïve, ω, Ω, Α, a\u2028b, 日, \x00, 5%")
    assert text == r"v$_1$, x$^{7}$, naïve, $\omega$, $\Omega$, [Alpha], a[U+2028]b, [U+65E5],  , 5\%"


# --- beside a sweep ---------------------------------------------------------------------------------------------------


class Page(list[Any]):
    """A page of a search."""

    def __init__(self, found: Sequence[Any], token: str | None) -> None:
        super().__init__(found)
        self.token = token


def test_a_run_that_moves_to_the_next_page_while_they_are_read_is_there_once(tmp_path: Path) -> None:
    reader = Store.__new__(Store)
    runs = [
        SimpleNamespace(info=SimpleNamespace(run_id=name), data=SimpleNamespace(tags={"kind": "cell"}))
        for name in "abc"
    ]
    pages = {None: Page(runs[:2], "next"), "next": Page(runs[1:], None)}
    reader._experiments = {"grbm": "1"}
    reader._client = SimpleNamespace(search_runs=lambda *_, page_token, **__: pages[page_token])
    assert [run.info.run_id for run in reader._search("grbm", kind="cell")] == ["a", "b", "c"]


def test_a_value_that_was_written_twice_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Store.__new__(Store)
    reader._pages = False
    monkeypatch.setattr(reader, "_history", lambda runs, metric: [("a", 1, 0.5), ("a", 0, 0.1), ("a", 1, 0.6)])
    found = reader.histories(["a"], LL)
    assert found.to_dict("list") == {"run": ["a", "a"], "step": [0, 1], "value": [0.1, 0.6]}


@pytest.mark.parametrize("uri", ["none", "", " None "])
def test_no_store_is_none_to_read(uri: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"there is no store to read: --tracking-uri is (none|None|empty); name the one"
    ):
        Store(uri)
    out = tmp_path / "out"
    assert main(["build", "--suite", "grbm", "--out", str(out), "--tracking-uri", "none"]) == 2
    assert not out.exists()
