"""The bound report as PDF, set by Typst: vector figures, embedded fonts, an outline."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import typst

from reports import terms
from reports.artefact import Artefact, Table
from reports.document import TEMPLATES, file_name, render
from reports.sections import Report, Section


def write(report: Report, out: Path) -> Path:
    """Writes ``report.pdf``. What it says is handed to the template as data: no text is taken for markup."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = []
        for section in report.sections:
            parts = []
            for part in section.parts:
                shown = [_artefact(section, artefact, folder) for artefact in part.artefacts]
                parts.append(
                    {"title": part.title, "facts": [fact for fact in part.facts if fact[1]], "artefacts": shown}
                )
            sections.append(
                {
                    "title": section.title,
                    "note": section.note,
                    "missing": terms.lacking(len(section.missing)),
                    "missing_names": section.missing_names,
                    "parts": parts,
                }
            )
        missing = terms.lacking(report.missing)
        content = {"uri": report.uri, "made": report.made, "missing": missing, "sections": sections}
        (folder / "report.json").write_text(json.dumps(content))
        shutil.copy(TEMPLATES / "report.typ", folder)
        file = out / "report.pdf"
        typst.compile(folder / "report.typ", output=file)
    return file


def _artefact(section: Section, artefact: Artefact, folder: Path) -> dict[str, Any]:
    """What the template shows; the image is written to the folder."""
    image = None
    if artefact.figure is not None:
        image = f"{file_name(section, artefact)}.svg"
        (folder / image).write_bytes(render(artefact, "svg"))
    return {
        "title": artefact.title,
        "caption": artefact.caption,
        "alt": artefact.alt,
        "missing": terms.missing(artefact.missing) if image is None else "",
        "image": image,
        "width": artefact.width,
        "table": _table(artefact.table),
    }


def _table(table: Table | None) -> dict[str, Any] | None:
    if table is None:
        return None
    numbers = [table.is_number(str(name)) for name in table.frame]
    rows = table.written.to_numpy().tolist()
    columns = [str(name) for name in table.frame]
    return {"columns": columns, "numbers": numbers, "rows": rows, "long": [name == table.long for name in columns]}
