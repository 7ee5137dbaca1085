"""The report in its forms: whole, self-contained, honest about what is missing."""

import base64
import dataclasses
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from benchmark.system.invocation import call
from bism.errors import InputError
from reports import document, frame, html, latex, markdown, pdf, store
from reports.__main__ import main
from reports.artefact import Table
from reports.sections import Report
from tests.reports.stores import BOTH, Held, biased, frey, incomplete, learning

ODD = "DSM [a_b=1 & <c>, 5%]"  # letters that every form takes for markup


def report(held: Held, folder: Path, **chosen: list[str]) -> Report:
    return document.collect(held, folder, **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two suites, one of them with two presets."""
    held = learning(Held(), BOTH | {ODD: ("dsm", 0.35)})
    for extra in (biased(), frey({"DSM": [(129.0, -5885.0), (131.0, -5885.2)]})):
        held.rows += [row | ({"preset": "quick"} if row["suite"] == "grbm" else {}) for row in extra.rows]
        held.values |= extra.values
    return report(held, tmp_path_factory.mktemp("fetched"))


class Page(HTMLParser):
    """What a page refers to, how its parts are called, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.downloads, self.text = list[str](), list[str](), dict[str, bytes](), ""
        self.tags = list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        for name in ("href", "src", "xlink:href"):
            if named.get(name):
                self.links.append(str(named[name]))
        if named.get("download"):
            self.downloads[str(named["download"])] = base64.b64decode(str(named["href"]).partition(",")[2])

    def handle_data(self, data: str) -> None:
        self.text += data


def names(found: Report) -> dict[str, list[str]]:
    return {section.name: [artefact.name for artefact in section.artefacts] for section in found.sections}


def test_presets_are_sections_of_their_own(whole: Report) -> None:
    assert list(names(whole)) == ["grbm-paper", "grbm-quick", "freyface-paper"]
    assert "figure3-board" in names(whole)["grbm-paper"]
    assert "figure1-board" in names(whole)["grbm-quick"]
    assert "table1" in names(whole)["freyface-paper"]
    assert "table1" not in names(whole)["grbm-paper"]


def test_a_choice_of_suites_presets_and_tasks(tmp_path: Path) -> None:
    held = learning(Held(), BOTH)
    learning(held, {"SM": ("sm", 0.1)}, preset="quick", task="other")
    held.values.clear()
    assert list(names(report(held, tmp_path, presets=["quick"]))) == ["grbm-quick"]
    assert list(names(report(held, tmp_path, tasks=["other"]))) == ["grbm-quick"]
    with pytest.raises(InputError, match=r"no finished cells of preset best: it has grbm \(paper, quick\)"):
        report(held, tmp_path, presets=["best"])


def test_nothing_finished_is_an_error_and_no_empty_figure(tmp_path: Path) -> None:
    held = Held()
    held.add("CD-5", "cd", 0, "planned")
    with pytest.raises(InputError, match="held has no finished cells"):
        report(held, tmp_path)


def test_the_order_is_that_of_a_reader_s_questions(whole: Report) -> None:
    section = whole.sections[0]
    titles = [part.title for part in section.parts]
    assert titles == ["Summary", "What was run", "Figures", "Tables", "Provenance"]
    assert [artefact.name for artefact in section.parts[0].artefacts] == ["summary-board"]
    assert all(artefact.figure is not None for artefact in section.parts[2].artefacts)
    assert all(artefact.figure is None for artefact in section.parts[3].artefacts)


def test_what_was_run_names_the_command_and_every_variant_s_hyper_parameters(tmp_path: Path) -> None:
    held = learning(Held(), {"CD-5": ("cd", 0.4)}, **{"param.lr": "0.001", "param.k": "5", "command": "benchmark run"})
    learning(held, {"DSM": ("dsm", 0.3)}, **{"param.lr": "0.01", "param.sigma": "0.05", "host": "here"})
    (part,) = [part for part in report(held, tmp_path).sections[0].parts if part.title == "What was run"]
    facts = dict(part.facts)
    assert (facts["command"], facts["machine"]) == ("benchmark run", "here, cpu")
    (table,) = [artefact for artefact in part.artefacts if artefact.name == "settings-board"]
    rows = table.numbers.set_index("variant")
    assert rows.loc["CD-5"].tolist() == ["0 to 2", "1,000", "0.001", "5", ""]
    assert rows.loc["DSM", "noise level σ"] == "0.05"
    assert table.table is not None
    written = table.table.written.set_index("variant")["hyper-parameters"]
    assert written["CD-5"] == "learning rate of the model β = 0.001, steps of the chain k = 5"
    assert written["DSM"] == "learning rate of the model β = 0.01, noise level σ = 0.05"


def test_advice_about_the_data_stands_above_their_results(tmp_path: Path) -> None:
    held = learning(Held(), BOTH, advice="the values lie between -1000 and 1000")
    assert "Task board: the values lie between -1000 and 1000." in report(held, tmp_path).sections[0].note
    assert "values lie" not in report(learning(Held(), BOTH), tmp_path).sections[0].note


def test_runs_of_data_that_changed_are_told(tmp_path: Path) -> None:
    held = learning(Held(), BOTH)
    for number, row in enumerate(held.rows):
        row["data_hash"] = ("a" if number else "b") * 36
    said = "Task board: its runs are of 2 data sets of different content (hashes beginning with aaaaaaaa, bbbbbbbb)"
    assert said in report(held, tmp_path).sections[0].note
    held.rows[0]["data_hash"] = ""  # of which nothing is known
    assert "different content" not in report(held, tmp_path).sections[0].note


def test_runs_with_other_numbers_of_iterations_are_ranked_apart(tmp_path: Path) -> None:
    held = learning(Held(), BOTH)
    for variant in ("CD-5 [steps=1000]", "CD-10 [K=3, steps=1000]"):
        learning(held, {variant: ("cd", 9.0)})
    sections = {section.name: section for section in report(held, tmp_path).sections}
    assert list(sections) == ["grbm-paper", "grbm-paper-steps1000"]
    ranked = {name: next(one for one in section.artefacts if one.name == "ranking-board").numbers["variant"]
              for name, section in sections.items()}  # fmt: skip
    assert set(ranked["grbm-paper"]) == set(BOTH)
    assert set(ranked["grbm-paper-steps1000"]) == {"CD-5 [steps=1000]", "CD-10 [K=3, steps=1000]"}
    assert "with 1,000 iterations have a section of their own" in sections["grbm-paper"].note
    assert sections["grbm-paper-steps1000"].title == "Suite grbm, preset paper with 1,000 iterations"


@pytest.mark.parametrize(
    ("preset", "label", "said"),
    [("quick", "", "A smoke ranking, not a result"), ("small", "only a try", "Only a try"), ("paper", "", "")],
)
def test_a_preset_that_makes_no_results_says_so_on_every_figure(
    tmp_path: Path, preset: str, label: str, said: str
) -> None:
    held = learning(Held(), BOTH, preset=preset, preset_label=label)
    section = report(held, tmp_path).sections[0]
    figures = [artefact.figure for artefact in section.artefacts if artefact.figure is not None]
    assert {figure.get_suptitle() for figure in figures} == {said}
    assert section.note == (f"{said}." if said else "")


def test_a_label_and_what_is_missing_are_both_on_the_figure(tmp_path: Path) -> None:
    held = incomplete()
    for row in held.rows:
        row["preset_label"] = "only a try"
    figures = [artefact.figure for artefact in report(held, tmp_path).sections[0].artefacts if artefact.figure]
    assert {figure.get_suptitle() for figure in figures} == {"INCOMPLETE: 2 cells are missing\nOnly a try"}


def test_a_choice_of_methods(tmp_path: Path) -> None:
    section = report(learning(Held(), BOTH), tmp_path, methods=["cd", "bidsm"]).sections[0]
    (ranked,) = [artefact for artefact in section.artefacts if artefact.name == "ranking-board"]
    assert set(ranked.numbers["variant"]) == {"CD-5", "CD-10", "BiDSM-5"}
    with pytest.raises(InputError, match="no finished cells of method none"):
        report(learning(Held(), BOTH), tmp_path, methods=["none"])


# --- HTML -------------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(whole: Report) -> None:
    page = Page(html.page(whole))
    outside = [link for link in page.links if not link.startswith(("#", "data:", "https://mlflow/"))]
    assert outside == []
    assert "@import" not in html.page(whole)
    assert not re.search(r"url\((?!#)", html.page(whole))
    assert len(set(page.ids)) == len(page.ids)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert ODD in page.text  # and is no markup


def test_the_page_holds_its_downloads(whole: Report) -> None:
    page, (section, *_) = Page(html.page(whole)), whole.sections
    (figure,) = [artefact for artefact in section.artefacts if artefact.name == "figure3-board"]
    assert page.downloads["grbm-paper-figure3-board.pdf"].startswith(b"%PDF")
    assert b"<svg" in page.downloads["grbm-paper-figure3-board.svg"]
    held = pd.read_csv(io.BytesIO(page.downloads["grbm-paper-figure3-board.csv"]))
    assert held["mean"].tolist() == pytest.approx(figure.numbers["mean"].tolist())
    assert all(f"https://mlflow/grbm/{run}" in page.links for run in figure.runs)  # names, with links
    assert not any(run in page.text for run in figure.runs)


def test_the_ink_of_figures_is_that_of_the_page(whole: Report) -> None:
    text = html.page(whole)
    svgs = re.findall(r'<div class="plot".*?(<svg.*?</svg>)', text, flags=re.DOTALL)  # those of buttons are samples
    assert svgs
    for svg in svgs:
        assert "currentColor" in svg or "<g id=" not in svg  # the line of a chip has its variant's colour alone
        assert "#010203" not in svg
        assert "#000000" not in svg


# --- the other forms --------------------------------------------------------------------------------------------------


def test_markdown_has_the_tables_and_the_images(whole: Report, tmp_path: Path) -> None:
    document.write_files(whole, tmp_path, ["png", "pdf", "svg"])
    text = markdown.write(whole, tmp_path).read_text()
    assert re.search(r"\| CD-10 +\| +0\.510 \|", text)
    for image in re.findall(r"\]\(([^)]*)\)", text):
        assert (tmp_path / image).stat().st_size > 0, image
    assert "figures/grbm-paper-figure3-board.png" in text


def test_the_pdf_has_vector_figures_and_embedded_fonts(whole: Report, tmp_path: Path) -> None:
    content = pdf.write(whole, tmp_path).read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type/Page/") >= 3 or b"/Count" in content
    assert b"/FontFile" in content


def test_latex_escapes_what_is_text(whole: Report, tmp_path: Path) -> None:
    text = latex.write(whole, tmp_path).read_text()
    table = (tmp_path / "latex" / "tables" / "grbm-paper-ranking-board.tex").read_text()
    assert r"DSM [a\_b=1 \& $<$c$>$, 5\%]" in table
    assert all(rule in table for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"\fittedtable{tables/grbm-paper-ranking-board.tex}" in text
    assert re.search(r"width=[345][.\d]*in[^{]*{../figures/grbm-paper-comparisons-board.pdf}", text)  # its own width
    assert re.search(r"width=.linewidth[^{]*{../figures/grbm-paper-figure3-board.pdf}", text)


def test_long_texts_wrap_in_a_table(whole: Report, tmp_path: Path) -> None:
    latex.write(whole, tmp_path)
    text = "learning rate of the model β = 0.001, steps of the chain k = 5"
    table = Table(pd.DataFrame({"variant": ["A"], "hyper-parameters": [text]}), long="hyper-parameters")
    assert r"{l>{\raggedright\arraybackslash}p{" in latex.tabular(table)
    content = pdf._table(table)
    assert content is not None
    assert content["long"] == [False, True]


def test_long_tables_break_over_pages() -> None:
    table = Table(pd.DataFrame({"x": range(50)}))
    assert latex.tabular(table).startswith(r"\begin{longtable}{r}")


SIGNS = 'αβγδεζηθικλμνξπρστυφχψω ΓΔΘΛΞΠΣΥΦΨΩ v₀₁₂₃₄₅₆₇₈₉ φ⁰ R² ‖x‖ − ± σ0 … é – · ≥ ≤ × \\ & % $ # _ { } ~ ^ < > | "'


def test_no_letter_is_left_that_latex_does_not_know() -> None:
    """Greek letters are the symbols of anybody's hyper-parameters; digits below are coordinates."""
    escaped = latex.escape(SIGNS)
    assert [letter for letter in escaped if not letter.isascii()] == ["…", "é", "–"]  # which T1 has
    assert latex.escape("ε₁λ") == r"$\epsilon$$_1$$\lambda$"


@pytest.mark.long
def test_latex_prints_every_letter(tmp_path: Path) -> None:
    engine = shutil.which("tectonic") or shutil.which("pdflatex")
    if engine is None:
        pytest.skip("no TeX is installed (Debian: apt-get install texlive-latex-recommended)")
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\begin{document}"
    (tmp_path / "signs.tex").write_text(head + latex.escape(SIGNS) + r"\end{document}", encoding="utf-8")
    options = [] if engine.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    said = subprocess.run([engine, *options, "signs.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout[-3000:]


@pytest.mark.long
def test_latex_compiles(whole: Report, tmp_path: Path) -> None:
    engine = shutil.which("tectonic") or shutil.which("pdflatex")
    if engine is None:
        pytest.skip("no TeX is installed (Debian: apt-get install texlive-latex-recommended)")
    document.write_files(whole, tmp_path, ["pdf"])
    latex.write(whole, tmp_path)
    options = [] if engine.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    said = subprocess.run([engine, *options, "report.tex"], cwd=tmp_path / "latex", capture_output=True, text=True)
    assert said.returncode == 0, said.stdout[-3000:]
    assert (tmp_path / "latex" / "report.pdf").stat().st_size > 20_000


def test_every_form_says_what_is_missing(tmp_path: Path) -> None:
    found = report(incomplete(), tmp_path)
    assert found.missing == 2
    page = Page(html.page(found))
    assert "INCOMPLETE: 2 planned cells have no result" in page.text
    assert "board CD-5 seed 3 (failed)" in page.text
    for text in (markdown.write(found, tmp_path).read_text(), latex.write(found, tmp_path).read_text()):
        assert "INCOMPLETE: 2" in text
        assert "board CD-5 seed 4 (planned)" in text
    (alike,) = [section for section in found.sections if len(section.missing)]
    alike = dataclasses.replace(alike, missing=alike.missing.assign(state="planned"))
    assert alike.missing_names == ["board CD-5 seeds 3, 4 (planned)"]
    assert "INCOMPLETE" not in html.page(report(learning(Held(), BOTH), tmp_path))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Calls the command on a held store."""

    def call(held: Held, *arguments: str) -> int:
        monkeypatch.setattr("reports.store.Store", lambda uri: held)
        return main(["build", "--out", str(tmp_path / "out"), *arguments])

    return call


def test_the_exit_code_says_whether_all_is_there(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(learning(Held(), BOTH), "--format", "html", "md") == 0  # type: ignore[operator]
    assert command(incomplete(), "--format", "html") == 1  # type: ignore[operator]
    assert "INCOMPLETE: 2 planned cells have no result" in capsys.readouterr().err


def test_a_divergence_is_exit_code_1(command: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = learning(Held(), BOTH)
    held.add("CD-5", "cd", 7, "diverged")
    assert command(held, "--format", "md") == 1  # type: ignore[operator]
    assert "1 cell diverged; the report lists them" in capsys.readouterr().err


def test_figures_and_numbers_are_files(command: object, tmp_path: Path) -> None:
    assert command(learning(Held(), BOTH), "--format", "md") == 0  # type: ignore[operator]
    for image in ("pdf", "svg", "png"):
        assert (tmp_path / "out" / "figures" / f"grbm-paper-figure3-board.{image}").stat().st_size > 0
    assert b"/FontFile" in (tmp_path / "out" / "figures" / "grbm-paper-figure3-board.pdf").read_bytes()
    assert (tmp_path / "out" / "data" / "grbm-paper-ranking-board.csv").read_text().startswith("variant,mean,")


def test_the_pixels_of_images_are_files(tmp_path: Path) -> None:
    held = learning(Held(), {"DSM": ("dsm", 0.3)})
    samples = np.random.default_rng(0).random((40, 4, 5))
    held.arrays["grbm-paper-board-DSM-0", "samples"] = {"samples": samples, "step": np.array(7)}
    document.write_files(report(held, tmp_path), tmp_path, [])
    with np.load(tmp_path / "data" / "grbm-paper-figure4-samples-board.npz") as found:
        assert np.array_equal(found["DSM samples"], samples)


def test_a_store_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["build", "--tracking-uri", f"sqlite:///{tmp_path}/none.db", "--out", out]) == 2
    said = capsys.readouterr().err
    assert f"no such store; `{call('benchmark', 'run')}` makes one" in said
    assert f"`{call('reports', 'claims --reference')}` judges by the results that ship with the package" in said
    assert not (tmp_path / "none.db").exists()


class Failing:
    """A client whose store fails after it was opened."""

    def __init__(self, uri: str) -> None: ...

    def search_experiments(self) -> list[object]:
        return [SimpleNamespace(name="grbm", experiment_id="1")]

    def search_runs(self, *_: object, **__: object) -> list[object]:
        raise MlflowException("the server is gone")


class Three(Failing):
    """A client with a suite, MLflow's own experiment and somebody else's."""

    def search_experiments(self) -> list[object]:
        return [SimpleNamespace(name=name, experiment_id=name) for name in ("Default", "grbm", "other")]

    def search_runs(self, experiments: list[str], condition: str, **_: object) -> Any:
        tags = {"kind": "plan", "preset": "quick"}
        plan = SimpleNamespace(info=SimpleNamespace(run_id="1", start_time=0), data=SimpleNamespace(tags=tags))
        return Answer([plan] if experiments == ["grbm"] and "'plan'" in condition else [])


class Answer(list[object]):
    token = ""


def test_a_suite_that_is_not_there_is_named_beside_those_that_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(store, "check", lambda uri, write: None)
    monkeypatch.setattr(store, "MlflowClient", Three)
    with pytest.raises(InputError, match=r"has no suite 'nosuch': it has grbm$"):
        frame("nosuch", tracking_uri="http://somewhere")


def test_a_store_that_fails_while_it_is_read_is_said_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "check", lambda uri, write: None)
    monkeypatch.setattr(store, "MlflowClient", Failing)
    uri = "postgresql+psycopg2://me:secret@db/mlflow"
    assert main(["build", "--tracking-uri", uri, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == "error: tracking store postgresql+psycopg2://db/mlflow cannot be read: the server is gone.\n"
    assert store.Store(uri).uri == "postgresql+psycopg2://db/mlflow"  # what a report names


def test_an_out_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["build", "--tracking-uri", "sqlite:///x.db", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err
