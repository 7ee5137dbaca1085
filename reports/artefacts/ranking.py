"""The ranking of a task, and what can be said of the differences: paired over seeds, corrected for their number."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import statistics, style, words
from reports.artefact import Artefact, Table, fixed
from reports.sweep import Sweep, better_is_high, selected, variants

_VALUES, _BOUNDS, _P = ("mean", "± 95%", "median", "worst", "best"), ("difference", "low", "high"), ("p", "p (Holm)")


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task with variants to compare the ranking, and every variant against the best over common seeds."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None or sweep.of(task, None)["variant"].nunique() < 2:
            continue
        high, missing, runs = better_is_high(metric), len(sweep.missing(task)), list(done["run"])
        rules = ", ".join(sorted(set(map(words.rule, done["select"]))))
        frame = ranking(sweep, task, metric)
        yield Artefact(
            name=f"ranking-{task}",
            title=f"Ranking ({task})",
            caption=f"{words.capital(words.measure(metric))} of {task}, best first; mean over seeds, half-width of its "
            f"95% interval (Student's t), median, worst and best seed. Taken at {rules}. Diverged seeds are counted "
            f"and not averaged.",
            numbers=frame,
            runs=runs,
            missing=missing,
            table=Table(frame, dict.fromkeys(_VALUES, fixed(frame["± 95%"], 1, least=3))),
        )
        compared = against_best(done[["seed", "variant"]].assign(value=selected(done, metric)), high)
        if len(compared):
            best = compared.attrs["best"]
            figure, near = draw(compared, done, metric)
            signed = fixed(compared[list(_BOUNDS)].to_numpy().ravel(), 1, least=3, sign="+")
            formats = dict.fromkeys(_BOUNDS, signed) | dict.fromkeys(_P, fixed(compared["p"], 1, least=3))
            yield Artefact(
                name=f"comparisons-{task}",
                title=f"Every variant against {best} ({task})",
                caption=f"{words.capital(words.measure(metric))}: difference to {best}, the best mean, over the seeds "
                f"that both have: mean with its 95% bootstrap interval (BCa"
                + ("" if compared["low"].notna().all() else "; none is known of fewer than three seeds")
                + f"), the probability that a seed of {best} is better than one of the variant, and the p-value of a "
                f"paired sign-flip test, alone and corrected for {words.counted(len(compared), 'comparison')} (Holm). "
                f"With n seeds no p-value is below 2¹⁻ⁿ."
                + (f" The axis is linear up to ±{words.number(near)} and logarithmic beyond." if near else ""),
                alt="Differences to the best variant with their intervals: "
                + ", ".join(f"{row['variant']} {words.number(row['difference'])}"
                            for row in compared.to_dict("records")) + ".",
                numbers=compared,
                runs=runs,
                missing=missing,
                figure=style.mark(figure, missing),
                table=Table(compared.dropna(axis="columns", how="all"), formats | {"P(best is better)": "{:.2f}"}),
            )  # fmt: skip


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
    return pd.DataFrame(rows).sort_values("mean", ascending=not high, ignore_index=True, na_position="last")


def against_best(cells: pd.DataFrame, high: bool) -> pd.DataFrame:
    """Every variant against the best mean, over the seeds that both have.

    Args:
        cells: variant, seed, value.

    Returns:
        Best first; ``attrs["best"]`` names the best. Empty without two variants with two seeds in common.
    """
    table = cells.pivot_table(index="seed", columns="variant", values="value")
    means = table.mean().sort_values(ascending=not high)
    if len(means) < 2:
        return pd.DataFrame()
    best, sign = str(means.index[0]), 1.0 if high else -1.0
    rows = []
    for variant in means.index[1:]:
        both = table[[best, variant]].dropna()
        if len(both) < 2:
            continue
        difference = both[variant] - both[best]
        low, top = statistics.bootstrap(difference)
        rows.append(
            {
                "variant": variant,
                "seeds": len(both),
                "difference": difference.mean(),
                "low": low,
                "high": top,
                "P(best is better)": statistics.improvement(sign * both[best], sign * both[variant]),
                "p": statistics.paired_p(difference),
            }
        )
    frame = pd.DataFrame(rows)
    if len(frame):
        frame["p (Holm)"] = statistics.holm(list(frame["p"]))
    frame.attrs["best"] = best
    return frame


def draw(compared: pd.DataFrame, cells: pd.DataFrame, metric: str) -> tuple[Figure, float]:
    """Differences to the best as points with their intervals.

    Returns:
        The figure, and up to where its axis is linear where it is logarithmic beyond, else 0.
    """
    method, best = dict(zip(cells["variant"], cells["method"], strict=True)), compared.attrs["best"]
    compared = compared[: style.MANY]
    sizes = np.abs(compared["difference"])
    near = float(sizes.median()) if sizes.max() > 30 * sizes.median() else 0.0
    with style.look():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 0.6 + 0.19 * len(compared)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(compared.to_dict("records")):
            colour = style.colour(method[row["variant"]])
            if not math.isnan(row["low"]):
                axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
            axes.plot(row["difference"], place, marker=style.marker(method[row["variant"]]), color=colour)
        axes.axvline(0, color=style.INK, linewidth=0.6)
        axes.set_yticks(range(len(compared)), compared["variant"])
        axes.set_ylim(len(compared) - 0.4, -0.6)
        axes.margins(x=0.08)
        if near:
            axes.set_xscale("symlog", linthresh=near)
        axes.set_xlabel(f"{words.measure(metric)}:\ndifference to {best}")
    return figure, near
