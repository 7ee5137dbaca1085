"""The report in LaTeX: a document that compiles, and each table (booktabs) in a file of its own to \\input."""

import unicodedata
from pathlib import Path

from reports.artefact import Artefact, Table
from reports.document import file_name, template
from reports.sections import Report

_SYNTAX = {"block_start_string": "<%", "block_end_string": "%>", "variable_start_string": "<<",
           "variable_end_string": ">>", "comment_start_string": "<#", "comment_end_string": "#>"}  # fmt: skip
_TEXT_WIDTH = 6.5  # inches: A4 without its margins
_LONG_WIDTH = 0.62  # of the text, which a column of long texts takes
_LONG = 40  # rows, beyond which a table breaks over pages
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "±": r"$\pm$", "·": r"$\cdot$", "<": "$<$",
    ">": "$>$", "|": r"\textbar{}", '"': "''", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "α": r"$\alpha$",
    "β": r"$\beta$", "σ": r"$\sigma$", "ν": r"$\nu$", "κ": r"$\kappa$", "φ": r"$\varphi$", "θ": r"$\theta$",
    "‖": r"$\|$", "⁰": r"$^0$", "⁴": r"$^4$", "⁵": r"$^5$", "²": r"$^2$", "¹": "$^1$", "⁻": "$^-$", "ⁿ": "$^n$",
    "∞": r"$\infty$",
}  # fmt: skip
_GREEK = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"  # symbols of anybody's hyper-parameters


def _greek(letter: str) -> str:
    name = unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")
    return rf"$\{name if letter.islower() else name.title()}$"


_ESCAPES = {
    **{letter: _greek(letter) for letter in _GREEK},
    **{chr(ord("₀") + digit): f"$_{digit}$" for digit in range(10)},
    **_ESCAPES,
}

_KNOWN = set("–—‘’“”„…•§©®°«»¿¡ßæÆøØœŒłŁ")  # beside accented letters
_RAISED = {"<sub": "_", "<super": "^"}
_GREEK_CAPITALS = set("ΓΔΘΛΞΠΣΥΦΨΩ")


def write(report: Report, out: Path) -> Path:
    """Writes ``latex/report.tex`` and ``latex/tables/*.tex``; its images are the PDF files in ``figures/``."""
    out = out / "latex"
    out.mkdir(parents=True, exist_ok=True)
    for section in report.sections:
        for artefact in section.artefacts:
            if artefact.table is not None:
                (out / "tables").mkdir(parents=True, exist_ok=True)
                file = out / "tables" / f"{file_name(section, artefact)}.tex"
                file.write_text(tabular(artefact.table), encoding="utf-8")
    page = template("report.tex.j2", **_SYNTAX)
    file = out / "report.tex"
    given = {"anchor": file_name, "escape": escape, "width": width, "long": lambda table: len(table.frame) > _LONG}
    file.write_text(page.render(report=report, **given), encoding="utf-8")
    return file


def width(artefact: Artefact) -> str:
    """A figure's own width, or that of the text where it is wider."""
    return f"{artefact.width:g}in" if artefact.width < _TEXT_WIDTH else r"\linewidth"


def escape(text: str) -> str:
    """Text as LaTeX prints it; a letter that it does not know by its number."""
    return "".join(_ESCAPES.get(letter) or _printed(letter) for letter in str(text))


def _printed(letter: str) -> str:
    if letter.isascii() or letter in _KNOWN:
        return letter if letter.isprintable() else " "
    kind, _, codes = unicodedata.decomposition(letter).rpartition("> ")
    if kind in _RAISED:
        return f"${_RAISED[kind]}{{{escape(unicodedata.normalize('NFKD', letter))}}}$"
    alphabet, _, name = unicodedata.name(letter, "").partition(" LETTER ")
    if alphabet in ("GREEK SMALL", "GREEK CAPITAL") and name.isalpha() and name != "OMICRON":
        written = name.lower() if alphabet == "GREEK SMALL" else name.capitalize()
        return f"$\\{written}$" if alphabet == "GREEK SMALL" or letter in _GREEK_CAPITALS else f"[{written}]"
    accented = letter.isalpha() and ord(letter) < 0x180 and codes and chr(int(codes.split()[0], 16)).isascii()
    return letter if accented else f"[U+{ord(letter):04X}]"


def tabular(table: Table) -> str:
    """The table in booktabs' style, without float or caption; long ones break over pages."""
    written = table.written.map(escape)
    written.columns = [escape(name) for name in written.columns]
    numbers = [table.is_number(str(name)) for name in table.frame]
    styled = written.style.hide(axis="index")
    text: str = styled.to_latex(
        column_format="".join(
            rf">{{\raggedright\arraybackslash}}p{{{_LONG_WIDTH}\linewidth}}"
            if name == table.long
            else "r"
            if number
            else "l"
            for name, number in zip(table.frame, numbers, strict=True)
        ),
        hrules=True,
        environment="longtable" if len(written) > _LONG else None,
    )
    return text
