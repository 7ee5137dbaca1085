"""The report in Markdown, with images beside it: for a README."""

from pathlib import Path

from reports.artefact import Table
from reports.document import file_name, template
from reports.sections import Report


def write(report: Report, out: Path) -> Path:
    """Writes ``report.md``; its images are PNG files in ``figures/``."""
    text = template("report.md.j2").render(report=report, anchor=file_name, table=table)
    file = out / "report.md"
    file.write_text(text, encoding="utf-8")
    return file


def table(content: Table) -> str:
    """A table of pipes; numbers to the right."""
    written = content.written.map(lambda text: text.replace("|", "\\|").replace("\n", " "))
    align = ["right" if content.is_number(str(name)) else "left" for name in written]
    headers = [str(name).replace("|", "\\|") for name in written]
    return written.to_markdown(index=False, headers=headers, colalign=align, disable_numparse=True)
