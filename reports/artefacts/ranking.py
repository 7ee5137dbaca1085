"""The ranking of a task, and what can be said of the differences: paired over seeds, for any pair that one may pick."""

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import statistics, style, terms
from reports.artefact import Artefact, Table, fixed
from reports.methods import Method, of_variants
from reports.sweep import Sweep, better_is_high, selected, variants

_LETTER = 0.058  # inches of a letter along the axis
_VALUES, _BOUNDS = ("mean", "± 95%", "median", "worst", "best"), ("difference", "low", "high")
_BOUND, _OF_BOUNDS = "bound or estimate", "test/log_likelihood_bound"
_WORSE, _BETTER, _NONE, _APART = "worse", "better", "no conclusion", "no two seeds in common"


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task with variants to compare the ranking, and every variant against the best over common seeds."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None or sweep.of(task, None)["variant"].nunique() < 2:
            continue
        high, missing, runs = better_is_high(metric), len(sweep.missing(task)), list(done["run"])
        frame = ranking(sweep, task, metric)
        yield Artefact(
            name=f"ranking-{task}",
            title=f"Ranking ({task})",
            caption=f"{terms.capital(terms.measure(metric))} of {task}, best first; mean over seeds, half-width of its "
            f"95% interval (Student's t), median, worst and best seed. {rules(sweep, task, metric)} Diverged seeds are "
            f"counted and not averaged.{unknown(sweep, task, metric)}",
            numbers=frame,
            runs=runs,
            missing=missing,
            table=Table(
                frame,
                measured=dict.fromkeys((*_VALUES, *frame.columns.intersection([_BOUND])), ""),
                half_widths=frame["± 95%"],
            ),
        )
        values = selected(done, metric).replace([math.inf, -math.inf], math.nan)  # compared with none, as NaN
        compared = against_best(done[["seed", "variant"]].assign(value=values), high)
        if len(compared):
            best = compared.attrs["best"]
            figure, near = draw(compared, of_variants(sweep.of(task, None)), metric)
            yield Artefact(
                name=f"comparisons-{task}",
                title=f"Every variant against {best} ({task})",
                caption=f"{terms.capital(terms.measure(metric))}: {explained(compared)} {rules(sweep, task, metric)}"
                f"{unknown(sweep, task, metric)}"
                + ("" if frame["diverged"].sum() == 0 else " A seed that diverged is compared with none: what is "
                   "compared are the trainings that came to their end.")
                + (f" The axis is linear up to ±{terms.number(near)} and logarithmic beyond." if near else ""),
                alt="Differences to the best variant with their intervals: "
                + ", ".join(f"{row['variant']} {terms.number(row['difference'])} ({row['conclusion']})"
                            for row in compared.to_dict("records")) + ".",
                numbers=compared,
                runs=runs,
                missing=missing,
                figure=style.mark(figure, missing),
                table=shown(compared),
            )  # fmt: skip


def rules(sweep: Sweep, task: str, metric: str) -> str:
    """What stands for a seed, as a sentence."""
    done, curves = sweep.of(task), sweep.curves(task, metric)
    steps = curves["run"].map(done.set_index("run")["steps"])
    late = curves[10 * curves["step"] >= 9 * steps].groupby("run")["step"].nunique().reindex(done["run"]).fillna(0)
    said = {terms.rule(select, once) for select, once in zip(done["select"], late < 2, strict=True)}
    return f"A seed's value: {' or '.join(sorted(said))}."


def ranking(sweep: Sweep, task: str, metric: str) -> pd.DataFrame:
    """One row per variant, best first."""
    done, everything, high = sweep.of(task), sweep.of(task, None), better_is_high(metric)
    rows = []
    for variant in variants(everything):
        values = selected(done[done["variant"] == variant], metric).dropna()
        states = everything[everything["variant"] == variant]["state"]
        mean, half_width = statistics.interval(values)
        rows.append(
            {
                "variant": variant,
                "mean": mean,
                "± 95%": half_width,
                "median": values.median(),
                "worst": values.min() if high else values.max(),
                "best": values.max() if high else values.min(),
                "seeds": len(values),
                "diverged": int((states == "diverged").sum()),
                "missing": int((~states.isin(["done", "diverged"])).sum()),
            }
        )
    frame = pd.DataFrame(rows)
    if bounds := _bounds(done, metric):
        frame.insert(6, _BOUND, frame["variant"].map(bounds))
    return frame.sort_values("mean", ascending=not high, ignore_index=True, na_position="last")


def _bounds(done: pd.DataFrame, metric: str) -> dict[str, float]:
    """Means over seeds of what variants have in the place of the metric."""
    if metric != "test/log_likelihood" or _OF_BOUNDS not in done:
        return {}
    found = selected(done, _OF_BOUNDS).where(selected(done, metric).isna()).groupby(done["variant"]).mean().dropna()
    return {str(variant): float(value) for variant, value in found.items()}


def unknown(sweep: Sweep, task: str, metric: str) -> str:
    """Of which variants that ended there is no value, as sentences that follow others."""
    done = sweep.of(task)
    known, bounds = set(done["variant"][selected(done, metric).notna()]), _bounds(done, metric)
    without = [variant for variant in variants(done) if variant not in known]
    bounded, rest = [one for one in without if one in bounds], [one for one in without if one not in bounds]
    return (
        f" Of {' and '.join(bounded)} bounds or estimates alone are known, which the ranking gives." if bounded else ""
    ) + (f" Of {' and '.join(rest)} no value is known." if rest else "")


def against_best(cells: pd.DataFrame, high: bool) -> pd.DataFrame:
    """Every variant against the best mean, over the seeds that both have (``statistics.paired``).

    The best is chosen by the data that it is then compared on, so that every interval and p-value is that of one among
    all pairs of variants. It is chosen among those of at least two seeds.

    Args:
        cells: variant, seed, value.

    Returns:
        Best first; ``attrs["best"]`` names the best, ``attrs["pairs"]`` how many there are. Empty without two variants
        with two seeds in common.
    """
    table = cells.pivot_table(index="seed", columns="variant", values="value")
    means = table.mean().sort_values(ascending=not high)
    several = means[table.count().reindex(means.index) > 1]
    if len(several) < 2:
        return pd.DataFrame()
    best, pairs, sign = str(several.index[0]), math.comb(len(several), 2), 1.0 if high else -1.0
    others = [str(variant) for variant in means.index if variant != best]
    differences = (table[others].to_numpy() - table[[best]].to_numpy()).T
    mean, half_width, p = statistics.paired(differences, pairs)
    if np.isnan(mean).all():
        return pd.DataFrame()
    frame = pd.DataFrame(
        {
            "variant": others,
            "seeds": (~np.isnan(differences)).sum(1),
            "difference": mean,
            "low": mean - half_width,
            "high": mean + half_width,
            "pairs won": [_won(sign * table[variant], sign * table[best]) for variant in others],
            "p": p,
            "conclusion": [_conclusion(sign * d, of) for d, of in zip(mean, p, strict=True)],
        }
    )
    frame.attrs |= {"best": best, "pairs": pairs}
    return frame


def _won(ours: pd.Series, theirs: pd.Series) -> float:
    both = pd.concat([ours, theirs], axis=1).dropna()
    return statistics.improvement(both.iloc[:, 0], both.iloc[:, 1])


def _conclusion(difference: float, p: float) -> str:
    """In words, at the level of the intervals."""
    if math.isnan(p):
        return _APART
    if p > 1 - statistics.LEVEL:
        return _NONE
    return _WORSE if difference < 0 else _BETTER


def explained(compared: pd.DataFrame) -> str:
    """What is compared, how, and what came of it."""
    best, pairs = compared.attrs["best"], compared.attrs["pairs"]
    concluded = compared["conclusion"].isin([_WORSE, _BETTER])
    unknown = int((compared["conclusion"] == _NONE).sum())
    seeds = sorted(set(compared["seeds"][compared["p"].notna()]))
    text = (
        f"difference to {best}, which has the best mean, over the {_range(seeds)} seeds that both have (paired), with "
        f"its {statistics.LEVEL:.0%} interval (Student's t). "
    )
    if pairs > 1:
        text += (
            f"{best} was chosen by the same data; the intervals and the p-values are therefore those of one among "
            f"{terms.counted(pairs, 'pair')} of variants (Bonferroni): all intervals hold at once, whichever one looks "
            f"at. "
        )
    text += f"Pairs won: the share of pairs of seeds in which the variant is better than {best}; it is no test. "
    if compared["p"].isna().any():
        text += "Where p is blank there are no two seeds in common, and no test is possible. "
    if not concluded.any():
        return text + f"No conclusion: {_range(seeds)} seeds do not tell any of these variants from {best}."
    if unknown:
        text += f"No conclusion is possible about {terms.counted(unknown, 'variant')} (hollow) with these seeds: each "
        text += f"may be as good as {best}, or better."
    return text.rstrip()


def _range(counts: list[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def shown(compared: pd.DataFrame) -> Table:
    """The comparisons for people; without a p-value where no two seeds are in common."""
    formats = {"pairs won": "{:.2f}", "p": fixed(compared["p"], 1, least=3)}
    half_widths = (compared["high"] - compared["low"]) / 2
    return Table(compared, formats, dict.fromkeys(_BOUNDS, "+"), half_widths)


def draw(compared: pd.DataFrame, method: dict[str, Method], metric: str) -> tuple[Figure, float]:
    """Differences to the best as points with their intervals.

    Args:
        method: of every variant of the task.

    Returns:
        The figure, and up to where its axis is linear where it is logarithmic beyond, else 0.
    """
    looks, best = style.looks(method), compared.attrs["best"]
    compared = compared[: style.MANY]
    near, furthest = np.nanmedian(compared["difference"].abs()), np.nanmax(compared[list(_BOUNDS)].abs())
    near = float(near) if furthest > 30 * near else 0.0
    with style.look():
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(compared.to_dict("records")):
            name, look = row["variant"], looks[row["variant"]]
            if not math.isnan(row["low"]):
                axes.plot([row["low"], row["high"]], [place, place], color=look.colour, linewidth=1.6, gid=f"_{name}")
            fill = "none" if row["conclusion"] == _NONE else look.colour
            axes.plot([row["difference"]], [place], marker=look.marker, linestyle="", color=look.colour, gid=name,
                      markerfacecolor=fill)  # fmt: skip
        axes.axvline(0, color=style.INK, linewidth=0.6)
        style.names(axes, list(compared["variant"]))
        axes.margins(x=0.08)
        if near:
            axes.set_xscale("symlog", linthresh=near)
            _few_ticks(axes, near)
        else:
            axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"{terms.measure(metric)}:\n" + textwrap.fill(f"difference to {best}", 44))
        style.below_power(axes)
    return figure, near


def _few_ticks(axes: Axes, near: float) -> None:
    """Along an axis that is logarithmic beyond ``near``: 0, and powers of ten as far apart as they and their numbers
    need to be."""
    low, high = axes.get_xlim()
    first, last = math.ceil(math.log10(near)), math.floor(math.log10(max(abs(low), abs(high))))
    for apart in range(1, last - first + 2):
        powers = [10.0**power for power in range(first, last + 1, apart)]
        at = [-power for power in powers[::-1] if -power >= low] + [0.0] + [power for power in powers if power <= high]
        written = [f"{place:,g}".replace("-", "−") for place in at]
        if _have_room(axes, at, written):
            break
    axes.set_xticks(at, written)
    axes.minorticks_off()


def _have_room(axes: Axes, at: Sequence[float], written: Sequence[str]) -> bool:
    """Whether numbers along the horizontal axis leave each other free."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    style.as_written(figure)
    figure.draw_without_rendering()  # which lays it out
    places = axes.transData.transform([(x, 0.0) for x in at])[:, 0] / figure.dpi
    letters = np.array([len(text) + 1 for text in written]) * _LETTER
    return bool((np.diff(places) >= (letters[1:] + letters[:-1]) / 2).all())
