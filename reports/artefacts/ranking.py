"""The ranking of a task, and what can be said of the differences: paired over seeds, corrected for their number."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import statistics, style
from reports.artefact import Artefact, Table
from reports.sweep import Sweep, better_is_high, selected, variants

_FORMATS = {"mean": "{:.3f}", "± 95%": "{:.3f}", "median": "{:.3f}", "worst": "{:.3f}", "best": "{:.3f}",
            "difference": "{:+.3f}", "low": "{:+.3f}", "high": "{:+.3f}", "P(best is better)": "{:.2f}",
            "p": "{:.3f}", "p (Holm)": "{:.3f}"}  # fmt: skip


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task the ranking, and every variant against the best where there are seeds to compare."""
    for task in sweep.tasks:
        metric, done = sweep.measures(task), sweep.of(task)
        if metric is None:
            continue
        high, missing, runs = better_is_high(metric), len(sweep.missing(task)), list(done["run"])
        rule = ", ".join(sorted(set(done["select"]))) or "last"
        frame = ranking(sweep, task, metric)
        yield Artefact(
            name=f"ranking-{task}",
            title=f"Ranking ({task})",
            caption=f"{metric} of {task}, best first; mean over seeds, half-width of its 95% interval (Student's t), "
            f"median, worst and best seed. Taken where the selection rule says ({rule}). Diverged seeds are counted "
            f"and not averaged.",
            numbers=frame,
            runs=runs,
            missing=missing,
            table=Table(frame, _FORMATS),
        )
        compared = against_best(done[["seed", "variant"]].assign(value=selected(done, metric)), high)
        if len(compared):
            best = compared.attrs["best"]
            yield Artefact(
                name=f"comparisons-{task}",
                title=f"Every variant against {best} ({task})",
                caption=f"Difference to {best}, the best mean, over the seeds that both have: mean with its 95% "
                f"bootstrap interval (BCa), the probability that a seed of {best} is better than one of the variant, "
                f"and the p-value of a paired sign-flip test, alone and corrected for {len(compared)} comparisons "
                f"(Holm). With n seeds no p-value is below 2^(1-n).",
                alt="Differences to the best variant with their intervals: "
                + ", ".join(f"{row.variant} {row.difference:+.3g}" for row in compared.itertuples()) + ".",
                numbers=compared,
                runs=runs,
                missing=missing,
                figure=style.mark(draw(compared, done, metric), missing),
                table=Table(compared, _FORMATS),
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


def draw(compared: pd.DataFrame, cells: pd.DataFrame, metric: str) -> Figure:
    """Differences to the best as points with their intervals, on an axis that is linear near zero."""
    method, best = dict(zip(cells["variant"], cells["method"], strict=True)), compared.attrs["best"]
    compared = compared[: style.MANY]
    with style.look():
        figure = Figure(figsize=(style.COLUMN_WIDTH, 0.5 + 0.19 * len(compared)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(compared.to_dict("records")):
            colour = style.colour(method[row["variant"]])
            if not math.isnan(row["low"]):
                axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
            axes.plot(row["difference"], place, marker=style.marker(method[row["variant"]]), color=colour)
        axes.axvline(0, color=style.INK, linewidth=0.6)
        axes.set_yticks(range(len(compared)), compared["variant"])
        axes.invert_yaxis()
        small = float(np.abs(compared["difference"]).median())
        if small > 0 and np.abs(compared["difference"]).max() > 30 * small:
            axes.set_xscale("symlog", linthresh=small)
        axes.set_xlabel(f"{metric}: difference to {best}")
    return figure
