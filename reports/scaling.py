"""What an iteration costs against seeds, hidden units, K and N, from the records of ``python -m benchmark speed``."""

import json
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.system.invocation import call
from bism.errors import InputError
from reports import methods, style

COLUMNS = ("task", "variant", "method", "seeds", "hidden", "hyper", "train_ms_per_step", "ceiling_ms_per_step")
_N, _K = "unroll_steps", "inner_steps"


def frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """A tidy frame of the records, with K and N as columns (absent where a method has none).

    Raises:
        InputError: these are not such records.
    """
    table = pd.DataFrame(records)
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise InputError(
            f"the records have no {', '.join(lacking)}; `{call('benchmark', 'speed --json FILE')}` writes them"
        )
    table["drawn_as"] = [json.dumps(record.get("drawn_as", {})) for record in records]
    for name in (_K, _N):
        table[name] = [hyper.get(name) for hyper in table["hyper"]]
    return table


def draw(table: pd.DataFrame) -> Figure:
    """Four panels on logarithmic axes; the dotted lines are what the machine could do at best.

    Each panel varies one thing. Held fixed are the fewest hidden units, K = 5 and N = 5, and in all panels but the
    first the number of seeds nearest to 10.
    """
    fewest = table[table["hidden"] == table["hidden"].min()]
    bilevel = fewest[fewest[_N].notna()]
    some = min(table["seeds"].unique(), key=lambda seeds: abs(seeds - 10))
    usual = table[table[_N].isna() | ((table[_N] == 5) & (table[_K] == 5))]
    panels = (
        ("seeds", "seeds", usual[usual["hidden"] == fewest["hidden"].min()]),
        ("hidden", "hidden units", usual[usual["seeds"] == some]),
        (_K, "inner steps K, at N = 0", bilevel[(bilevel["seeds"] == some) & (bilevel[_N] == 0)]),
        (_N, "unrolled steps N, at K = 5", bilevel[(bilevel["seeds"] == some) & (bilevel[_K] == 5)]),
    )
    with style.look():
        figure, named = Figure(figsize=(style.TEXT_WIDTH, 5.0), layout="constrained"), dict[str, Any]()
        for axes, (column, label, cells) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            _panel(axes, cells, column)
            axes.set(xlabel=label, ylim=(0, None) if column in (_K, _N) else None)
            axes.set_title("" if column == "seeds" else f"{some} seeds")
            handles, names = axes.get_legend_handles_labels()
            named |= dict(zip(names, handles, strict=True)) if column not in (_K, _N) or not named else {}
        figure.supylabel("ms per iteration, all seeds together")
        if named:
            named["what the machine could do at best"] = Line2D([], [], linestyle=":", color=style.INK)
            figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Any, cells: pd.DataFrame, column: str) -> None:
    """One line per method; steps are on linear axes, sizes on logarithmic ones."""
    for method, rows in cells.groupby("method", sort=False):
        rows = rows.sort_values(column).drop_duplicates(column)
        of, label = methods.method(str(method), rows["drawn_as"].iloc[0]), rows["variant"].iloc[0]
        bilevel = rows[_N].notna().all() and column in (_K, _N)
        name, colour = of.label if bilevel else str(label), style.colour(of)
        axes.plot(rows[column], rows["train_ms_per_step"], "o-", markersize=3, color=colour, label=name)
        axes.plot(rows[column], rows["ceiling_ms_per_step"], ":", color=colour)
    if column not in (_K, _N):
        axes.set(xscale="log", yscale="log")
