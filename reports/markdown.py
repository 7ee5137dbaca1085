"""The report in Markdown, with images beside it: for a README."""

from pathlib import Path

import jinja2

from reports.artefact import Table
from reports.document import Report, file_name
from reports.html import TEMPLATES


def write(report: Report, out: Path) -> Path:
    """Writes ``report.md``; its images are PNG files in ``figures/``."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=False, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # fmt: skip
    text = environment.get_template("report.md.j2").render(report=report, anchor=file_name, table=table)
    file = out / "report.md"
    file.write_text(text, encoding="utf-8")
    return file


def table(content: Table) -> str:
    """A table of pipes; numbers to the right."""
    written = content.written.map(lambda text: text.replace("|", "\\|").replace("\n", " "))
    align = ["right" if name in content.formats or content.frame[name].dtype.kind in "if" else "left"
             for name in written]  # fmt: skip
    headers = [str(name).replace("|", "\\|") for name in written]
    return written.to_markdown(index=False, headers=headers, colalign=align, disable_numparse=True)
