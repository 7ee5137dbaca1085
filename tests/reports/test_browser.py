"""The report's page in a real browser, and MLflow's own pages on a quick run."""

import contextlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.tracking.store import runs_page
from bism.errors import InputError
from reports import document, frame, html
from reports.store import Store
from tests.harness.faults import ENVIRONMENT, free_port, until
from tests.harness.tiny import command, replaced, write
from tests.reports.stores import BOTH, Held, incomplete, learning
from tests.reports.test_document import report

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page that was opened, with what went wrong and what was asked for."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.errors, self.asked = list[str](), list[str]()
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of cells made by hand."""
    folder = tmp_path_factory.mktemp("report")
    return html.write(report(learning(Held(), BOTH), folder), folder)


def opened(browser: Any, file: Path, **context: Any) -> Visit:
    visit = Visit(browser, **context)
    visit.page.goto(file.as_uri())
    return visit


def test_the_page_opens_without_errors_and_asks_for_nothing(browser: Any, file: Path) -> None:
    visit = opened(browser, file)
    assert visit.errors == []
    assert [url for url in visit.asked if not url.startswith("data:")] == [file.as_uri()]
    figures = visit.page.locator("figure .plot svg")
    assert figures.count() >= 4
    for index in range(figures.count()):
        box = figures.nth(index).bounding_box()
        assert box["width"] > 200
        assert box["height"] > 80


def column(page: Any, table: str, number: int) -> list[str]:
    return [text.strip() for text in page.locator(f"{table} tbody tr td:nth-child({number})").all_inner_texts()]


def test_tables_sort_by_their_numbers(browser: Any, file: Path) -> None:
    page, table = opened(browser, file).page, "#grbm-paper-ranking-board table"
    head = page.locator(f"{table} th", has_text="mean").first
    head.click()
    once = column(page, table, 2)
    head.click()
    twice = column(page, table, 2)
    assert once == twice[::-1]
    assert sorted(once, key=float) in (once, twice)
    page.locator(f"{table} th", has_text="variant").first.click()
    names = ["BiDSM-5", "CD-5", "CD-10", "Mine"]  # 5 before 10
    assert column(page, table, 1) in (names, names[::-1])


def test_what_is_not_known_is_last_in_either_order(browser: Any, tmp_path: Path) -> None:
    held = learning(Held(), BOTH)
    learning(held, {"One": ("sm", 0.1)}, seeds=1)  # without an interval
    page, table = opened(browser, html.write(report(held, tmp_path), tmp_path)).page, "#grbm-paper-ranking-board table"
    for _ in range(2):
        page.locator(f"{table} th", has_text="95%").click()
        assert column(page, table, 3)[-1] == ""
        assert "" not in column(page, table, 3)[:-1]


def test_a_figure_is_enlarged_and_zoomed(browser: Any, file: Path) -> None:
    visit = opened(browser, file)
    page = visit.page
    page.locator("#grbm-paper-figure3-board .plot").click()
    drawn = page.locator("dialog[open] svg .svg-pan-zoom_viewport")
    drawn.wait_for()
    before = drawn.get_attribute("transform")
    page.locator("dialog svg").hover()
    page.mouse.wheel(0, -400)
    page.wait_for_function(
        "before => document.querySelector('dialog .svg-pan-zoom_viewport').getAttribute('transform') !== before",
        arg=before,
    )
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    assert visit.errors == []


def test_two_fingers_zoom(browser: Any, file: Path) -> None:
    page = opened(browser, file, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).page
    page.locator("#grbm-paper-figure3-board .plot").tap()
    drawn = page.locator("dialog[open] svg .svg-pan-zoom_viewport")
    drawn.wait_for()

    def scale() -> float:
        return float(drawn.evaluate("group => group.transform.baseVal.consolidate().matrix.a"))

    before, device = scale(), page.context.new_cdp_session(page)
    for kind, reach in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        fingers = [{"x": 195 + side * reach, "y": 420, "id": side + 1} for side in (-1, 1)]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(200)
    assert scale() / before == pytest.approx(2, rel=0.02)
    page.get_by_role("button", name="Zoom in").tap()
    page.wait_for_timeout(200)
    assert scale() / before == pytest.approx(3, rel=0.02)
    assert page.locator("dialog .touch").is_visible()
    assert not page.locator("dialog .mouse").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_and_page_follow_the_scheme_and_the_button(browser: Any, file: Path, scheme: str) -> None:
    page = opened(browser, file, color_scheme=scheme).page
    shade = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure .plot svg')).color"
    light, dark = ("rgb(255, 255, 255)", "rgb(27, 30, 36)"), ("rgb(20, 22, 26)", "rgb(228, 230, 234)")
    assert (page.evaluate(shade), page.evaluate(ink)) == (light if scheme == "light" else dark)
    page.locator("nav button.theme").click()
    assert (page.evaluate(shade), page.evaluate(ink)) == (dark if scheme == "light" else light)


def test_a_phone_shows_it_without_scrolling_sideways(browser: Any, file: Path) -> None:
    page = opened(browser, file, viewport={"width": 390, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.evaluate("document.querySelector('nav details').open")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("document.querySelector('nav details').open")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.locator(".plot").count() >= 4
    for plot in page.locator(".plot").all():  # nothing of a figure is cut, and a tap makes its letters legible
        assert plot.evaluate("plot => plot.scrollWidth <= plot.clientWidth")
        box = plot.locator("svg").bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
        plot.click()
        drawn = page.locator("dialog[open] svg .svg-pan-zoom_viewport")
        drawn.wait_for()
        page.wait_for_timeout(100)
        assert drawn.evaluate("group => 6.5 * group.getScreenCTM().a") >= 8.5
        page.keyboard.press("Escape")
        page.locator("dialog[open]").wait_for(state="detached")


def test_curves_have_values_and_are_switched_off(browser: Any, file: Path) -> None:
    import json

    page = opened(browser, file).page
    figure = page.locator("#grbm-paper-figure3-board figure")
    figure.scroll_into_view_if_needed()
    curves = json.loads(figure.locator("script.series").text_content())
    number = next(place for place, one in enumerate(curves) if one["name"] == "CD-5")
    x, y, said = curves[number]["points"][-1]
    svg = figure.locator(".plot svg")
    scale = svg.bounding_box()["width"] / svg.evaluate("svg => svg.viewBox.baseVal.width")
    svg.hover(position={"x": x * scale, "y": y * scale}, force=True)
    assert page.locator("#value").inner_text() == said
    parts = figure.locator(f"[id*='-series-{number}-']")
    assert parts.first.is_visible()
    button = figure.locator(".legend button", has_text="CD-5")
    button.click()
    assert not any(part.is_visible() for part in parts.all())
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert parts.first.is_visible()


def test_downloads_have_their_names(browser: Any, file: Path, tmp_path: Path) -> None:
    page = opened(browser, file).page
    with page.expect_download() as waiting:
        page.locator("#grbm-paper-figure3-board .tools a", has_text="SVG").click()
    assert waiting.value.suggested_filename == "grbm-paper-figure3-board.svg"


def test_what_is_missing_is_seen(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, html.write(report(incomplete(), tmp_path), tmp_path)).page
    assert "INCOMPLETE" in page.locator(".alarm").first.inner_text()


# --- a real run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A quick run with three evaluated variants, in a store of its own."""
    folder = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{folder}/mlflow.db"
    write(folder, replaced(("hidden: 3}", "hidden: 3}\n    metrics: [log_likelihood, fisher_divergence]")))
    said = command(folder, "run", "--suite", "tiny.yaml", "--tracking-uri", uri)
    assert (said.code, said.err) == (0, "")
    return folder, uri


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_what_is_plotted_is_what_mlflow_has(tracked: tuple[Path, str], tmp_path: Path) -> None:
    """Every number of Figure 3 against MLflow's own client, one call per run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracked[1])
    found = document.collect(Store(tracked[1]), tmp_path)
    (section,) = found.sections
    (figure,) = [artefact for artefact in section.artefacts if artefact.name == "figure3-board"]
    (experiment,) = [one for one in client.search_experiments() if one.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")
    assert {run.info.run_id for run in runs} == set(figure.runs)
    for variant in ("CD-1", "BiDSM-5"):
        of_variant = [run.info.run_id for run in runs if run.data.tags["variant"] == variant]
        values: dict[int, list[float]] = {}
        for run in of_variant:
            for point in client.get_metric_history(run, "test/log_likelihood"):
                values.setdefault(point.step, []).append(point.value)
        rows = figure.numbers[figure.numbers["variant"] == variant]
        assert rows["step"].tolist() == sorted(values)
        assert rows["mean"].tolist() == pytest.approx(
            [sum(values[step]) / len(values[step]) for step in sorted(values)]
        )
        assert figure.figure is not None
        (line,) = [line for axes in figure.figure.axes for line in axes.lines if line.get_label() == variant]
        assert list(line.get_ydata()) == pytest.approx(rows["mean"].tolist())


@pytest.fixture(scope="module")
def server(tracked: tuple[Path, str]) -> Iterator[str]:
    """MLflow's UI on that store."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", "ui", "--tracking-uri", tracked[1], "--port", str(port)],
        cwd=tracked[0], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError):
            return urllib.request.urlopen(f"{address}/health", timeout=2).status == 200
        return False

    try:
        until(process, answers)
        yield address
    finally:
        import os
        import signal

        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_gives_the_same_report(tracked: tuple[Path, str], server: str, tmp_path: Path) -> None:
    """Read over HTTP, many runs a call, as from the database."""
    ours, theirs = (document.collect(Store(uri), tmp_path / name) for name, uri in (("a", tracked[1]), ("b", server)))
    for one, other in zip(ours.sections, theirs.sections, strict=True):
        for left, right in zip(one.artefacts, other.artefacts, strict=True):
            assert left.numbers.to_csv() == right.numbers.to_csv()


def test_the_address_of_the_terminal_lists_a_run_s_cells(browser: Any, server: str) -> None:
    """Flat: below their parent, as MLflow sorts by default, they would be hidden."""
    page = Visit(browser, viewport={"width": 1600, "height": 1000}).page
    page.goto(server + runs_page("1", preset="test"))
    for name in ("BiDSM-5 seed 0, board", "BiDSM-5 seed 1, board", "CD-1 seed 0, board", "CD-1 seed 1, board"):
        page.get_by_text(name, exact=True).first.wait_for()
    assert page.get_by_text("tiny/test", exact=True).count() == 0  # the parent
    nested = Visit(browser, viewport={"width": 1600, "height": 1000}).page
    nested.goto(f"{server}/#/experiments/1/runs")
    nested.get_by_text("tiny/test", exact=True).first.wait_for()
    assert nested.get_by_text("CD-1 seed 0, board", exact=True).count() == 0  # why the address says more


def test_a_name_that_is_no_suite_is_told_those_that_are(tracked: tuple[Path, str]) -> None:
    with pytest.raises(InputError, match=r"has no suite 'nosuch': it has tiny$"):
        frame("nosuch", tracking_uri=tracked[1])


def test_mlflows_ui_lists_and_compares_the_runs(browser: Any, server: str) -> None:
    visit = Visit(browser, viewport={"width": 1600, "height": 1000})
    page = visit.page
    condition = urllib.parse.quote("tags.kind = 'cell' and tags.method = 'bidsm'")
    page.goto(f"{server}/#/experiments/1/runs?searchFilter={condition}")
    page.get_by_text("Group by").click()
    page.get_by_text("variant", exact=True).first.click()
    page.get_by_text("Group: BiDSM-5").first.wait_for()
    for name in ("BiDSM-5 seed 0, board", "BiDSM-5 seed 1, board"):
        page.get_by_text(name).first.wait_for()
    assert page.get_by_text("CD-1 seed").count() == 0  # filtered
    page.goto(f"{page.url}&compareRunsMode=CHART")
    for chart in ("test/log_likelihood", "val/log_likelihood", "time/train_seconds"):
        page.get_by_placeholder("Search metric charts").fill(chart)  # those out of sight are not drawn
        page.get_by_text(chart, exact=True).first.wait_for()
