"""The methods of what is in a store, as their classes declare them: name, family, colour and marker.

They come through MLflow, so that a method of the user's own is drawn as it says. Runs of before 0.2.0 do not say it:
of these the package's methods are known by their id.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.colors import is_color_like
from matplotlib.markers import MarkerStyle

OTHER = "Other"
FAMILIES = (  # in their order
    "Contrastive divergence",
    "Noise contrast",
    "Score matching",
    "Bi-level score matching",
    "Learnt samplers",
    "Latent space",
    "Deep models",
)


@dataclasses.dataclass(frozen=True, order=True)
class Method:
    """A method as figures name and draw it.

    Attributes:
        colour, marker: "" where its variants have colours and markers of their own.
        source: whose variant it is of, "" of who asks; the method is the same whosever it is.
    """

    id: str
    label: str
    family: str = OTHER
    colour: str = ""
    marker: str = ""
    source: str = dataclasses.field(default="", compare=False)


_OF_BEFORE = (
    ("cd", "CD", 0, "#2878c8", "o"), ("pcd", "PCD", 0, "#5c6875", "s"),
    ("langevin_cd", "Langevin CD", 0, "#d765a6", "p"),
    ("langevin_pcd", "Langevin PCD", 0, "#bd7f5c", "H"), ("nce", "NCE", 1, "#e07414", "D"),
    ("vnce", "VNCE", 1, "#9a5200", "d"), ("sm", "SM", 2, "#529a6f", "^"), ("ssm", "SSM", 2, "#848e0f", "v"),
    ("dsm", "DSM", 2, "#138c9d", "<"), ("mdsm", "MDSM", 2, "#81612a", ">"), ("bissm", "BiSSM", 3, "#9a559f", "P"),
    ("bidsm", "BiDSM", 3, "#e1223c", "X"), ("bimdsm", "BiMDSM", 3, "#6d43f0", "*"),
    ("vages_dsm", "VaGES-DSM", 3, "#99536b", "$\u25e3$"), ("vages_mdsm", "VaGES-MDSM", 3, "#9f7df3", "$\u25e2$"),
    ("vages_ksd", "VaGES-KSD", 3, "#f84f18", "$\u25d6$"),
)  # fmt: skip
_SHAPE = re.compile("\\$[\u25a0-\u25ff]\\$")  # a marker that is one of Unicode's geometric shapes
BEFORE = {one: Method(one, label, FAMILIES[family], *look) for one, label, family, *look in _OF_BEFORE}


def method(identity: str, drawn_as: str = "") -> Method:
    """A method by its id and the tag of a run; what of a tag cannot be used is left out."""
    said = _content(drawn_as)
    if not said:
        return BEFORE.get(identity, Method(identity, identity))
    look = said.get("colour", ""), said.get("marker", "")
    drawn = is_color_like(look[0]) and (look[1] in MarkerStyle.markers or _SHAPE.fullmatch(look[1]))
    return Method(identity, said.get("label") or identity, said.get("family") or OTHER, *(look if drawn else ()))


def of_variants(cells: pd.DataFrame) -> dict[str, Method]:
    """The method of every variant; of a method of one id that has changed its look, the look that it was run with last
    is that of all its variants."""
    latest = dict[str, str]()
    for of, tag in zip(cells["method"], cells["drawn_as"], strict=True):
        latest[of] = tag or latest.get(of, "")
    sources = cells["source"] if "source" in cells else [""] * len(cells)
    return {
        variant: dataclasses.replace(method(of, latest[of]), source=source)
        for variant, of, source in zip(cells["variant"], cells["method"], sources, strict=True)
    }


def titles(present: Iterable[Method]) -> dict[str, str]:
    """By id the labels of these methods, with the id where several have one label."""
    labels = {one.id: one.label for one in present}
    several = Counter(labels.values())
    return {of: f"{label} ({of})" if several[label] > 1 else label for of, label in labels.items()}


def order(method: Method) -> tuple[int, str]:
    """Sorts the package's methods as its figures name them, before others."""
    return (list(BEFORE).index(method.id) if method.id in BEFORE else len(BEFORE)), method.id


def families(present: Iterable[Method]) -> list[str]:
    """The families of these methods: the package's in their order, then others by name, and "Other"."""
    found = {one.family for one in present}
    others = sorted(found - {*FAMILIES, OTHER})
    return [name for name in (*FAMILIES, *others, OTHER) if name in found]


def symbols(tag: str) -> dict[str, str]:
    """The symbols that a method declares of its hyper-parameters, by name, from the tag of a run."""
    return dict(_content(tag))


def agreed(declared: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The symbols of several methods; a hyper-parameter of which they disagree has none."""
    found = dict[str, set[str]]()
    for of_method in declared:
        for name, symbol in of_method.items():
            found.setdefault(name, set()).add(symbol)
    return {name: min(said) for name, said in found.items() if len(said) == 1}


def _content(text: str) -> Mapping[str, str]:
    """The texts of a tag, by name; none of one that somebody has altered."""
    try:
        content: Any = json.loads(text or "{}")
        return {name: value for name, value in content.items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError):
        return {}
