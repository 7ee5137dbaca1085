"""The report as one HTML file that needs nothing else: no network, no folder beside it."""

import base64
import re
from pathlib import Path
from typing import Any

from reports import hover, style
from reports.artefact import Artefact, Table
from reports.document import TEMPLATES, csv, file_name, render, template
from reports.sections import Report, Section


def write(report: Report, out: Path) -> Path:
    """Writes ``report.html``."""
    file = out / "report.html"
    file.write_text(page(report), encoding="utf-8")
    return file


def page(report: Report) -> str:
    """The page."""
    vendored = {name: (TEMPLATES / "vendor" / f"{name}.min.js").read_text() for name in ("tablesort", "svg-pan-zoom")}
    return template("report.html.j2", autoescape=True).render(
        report=report,
        vendored=vendored,
        svg=_svg,
        series=_series,
        downloads=_downloads,
        rows=_rows,
        anchor=file_name,
    )


def _rows(table: Table) -> list[list[tuple[str, Any]]]:
    """Each row's values as they are written, and what they are sorted by."""
    return [
        [(text, value if text else "") for text, value in zip(texts, values, strict=True)]
        for texts, values in zip(
            table.written.itertuples(index=False), table.frame.itertuples(index=False), strict=True
        )
    ]


def _svg(section: Section, artefact: Artefact) -> str:
    """The figure for the page: its ink is that of the page's text, and its names are its own."""
    text = render(artefact, "svg").decode()
    text = text[text.index("<svg") :].replace(style.INK, "currentColor")
    prefix = file_name(section, artefact) + "-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    width, height = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups()  # type: ignore[union-attr]
    return text.replace(f'width="{width}pt" height="{height}pt"', _sizes(float(width)), 1)


def _series(artefact: Artefact) -> list[dict[str, Any]]:
    """The series that can be pointed at and switched, of a figure that was rendered."""
    assert artefact.figure is not None
    render(artefact, "svg")
    figure = artefact.figure
    figure.set_dpi(72)
    series = hover.series(figure)
    return [{**one, "colour": "currentColor"} if one["colour"] == style.INK else one for one in series]


def _sizes(points: float) -> str:
    """The largest width on the page; on a phone a figure is as wide as the page, and enlarged by a tap."""
    return f'style="max-width: {1.9 * points:.0f}px"'


def _downloads(section: Section, artefact: Artefact) -> list[tuple[str, str, str]]:
    """(label, file name, address that holds the whole file) of what can be downloaded."""
    name = file_name(section, artefact)
    found = [("CSV", f"{name}.csv", "text/csv", csv(artefact).encode())]
    if artefact.figure is not None:
        found = [
            ("PDF", f"{name}.pdf", "application/pdf", render(artefact, "pdf")),
            ("SVG", f"{name}.svg", "image/svg+xml", render(artefact, "svg")),
            *found,
        ]
    return [
        (label, file, f"data:{kind};base64,{base64.b64encode(content).decode()}")
        for label, file, kind, content in found
    ]
