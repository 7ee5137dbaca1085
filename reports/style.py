"""One look for all figures: a colour and a line style per variant, sizes, fonts."""

from typing import Any

import seaborn as sns
from matplotlib import rc_context

COLUMN_WIDTH = 3.25  # inches
TEXT_WIDTH = 6.75
_FAMILIES = {  # method ids by family, in the order of panels and legends
    "Contrastive divergence": ("cd", "pcd"),
    "Noise contrast": ("nce", "vnce"),
    "Score matching": ("sm", "ssm", "dsm", "mdsm"),
    "Bi-level score matching": ("bissm", "bidsm", "bimdsm"),
}
_METHODS = [method for members in _FAMILIES.values() for method in members]
_COLOURS = dict(zip(_METHODS, [*sns.color_palette("colorblind", 8), "#000000", "#0b6e2e", "#6a3d9a"], strict=True))
_DASHES = ("-", "--", ":", "-.")
_SETTINGS: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 6.5, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.1, "pdf.fonttype": 42, "savefig.dpi": 200,
}  # fmt: skip


def look() -> Any:
    """Context in which figures are drawn."""
    return rc_context(_SETTINGS)


def family(method: str) -> str:
    """The family a method belongs to; methods of the user's own are "Other"."""
    return next((name for name, members in _FAMILIES.items() if method in members), "Other")


def families() -> list[str]:
    """All families in their order."""
    return [*_FAMILIES, "Other"]


def colour(method: str) -> Any:
    """A method's colour, the same in every figure."""
    return _COLOURS.get(method, "#777777")


def dashes(position: int) -> str:
    """The line style of a method's n-th variant."""
    return _DASHES[position % len(_DASHES)]
