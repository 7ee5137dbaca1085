"""Where a method stands among the results of others: a ranking of all, each of theirs against it, and a verdict."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from benchmark.measures.statistics import LEVEL, paired, written
from benchmark.records.metrics import metric_of
from benchmark.records.params import params
from benchmark.records.results import ENDED, Seed, Variant
from benchmark.system.tables import ranges

BETTER, WORSE, OPEN, APART = "better", "worse", "not told apart", "no two seeds in common"
NOT_FINITE = "no two seeds with finite values"
_NAMED = 3  # variants that a verdict names; of more it names the closest
_SELECTED = "selected/"


def rows(variants: Sequence[Variant]) -> pd.DataFrame:
    """Shipped cells as ``ranking.results`` has those of a run directory: what the task's rule picked of each."""
    found = []
    for one in variants:
        rule, _, select = one.select.partition(" ")
        for seed in one.seeds:
            if seed.state in ENDED:
                selected = {name.removeprefix(_SELECTED): value for name, value in seed.last.items()
                            if name.startswith(f"{_SELECTED}test/")}  # fmt: skip
                labels = {"task": one.task, "method": one.method, "variant": one.variant, "seed": seed.seed,
                          "state": seed.state, "configuration": "theirs", "rule": (rule, select),
                          "averaged": _averaged(one, seed) if rule == "last_tenth" else set[str]()}  # fmt: skip
                found.append({**labels, **seed.last, **selected})
    return pd.DataFrame(found)


def _averaged(variant: Variant, seed: Seed) -> set[str]:
    """The metrics of which there is more than one value in the last tenth of the iterations."""
    late = {name: sum(10 * step >= 9 * variant.steps for step in curve.steps) for name, curve in seed.curves.items()}
    return {name for name, count in late.items() if count > 1}


def incomparable(config: Mapping[str, Any], other: Variant) -> str:
    """Why numbers of two cells cannot stand beside each other at all; "" where they can."""
    if not (other.data_hash and config["data"]["hash"].startswith(other.data_hash)):
        known = f"others: {other.data_hash[:12]}" if other.data_hash else "not known"
        return f"its data are {known}, and here {config['data']['hash'][:12]}"
    ours = f"{config['rule']} {config['select']}"
    if other.select != ours:
        return f"its seeds are represented by {other.select or 'a rule that is not known'}, and here by {ours}"
    return ""


def unlike(config: Mapping[str, Any], other: Variant) -> str:
    """What makes the comparison with a variant an unfair one; "" where nothing does."""
    found = [] if other.steps == config["steps"] else [f"{other.steps:,} iterations, and here {config['steps']:,}"]
    ours = params(dict(config))
    for name, said in (("batch_size", "minibatches of"), ("precision", "precision")):
        if other.param.get(name, ours[name]) != ours[name]:
            found.append(f"{said} {other.param[name]}, and here {ours[name]}")
    models = [{name: value for name, value in of.items() if name.startswith("model")} for of in (other.param, ours)]
    if models[0] and models[0] != models[1]:
        theirs, here = (
            ", ".join(f"{name.removeprefix('model_')} {model[name]}" for name in sorted(model)) for model in models
        )
        found.append(f"another model ({theirs}), and here ({here})")
    return "; ".join(found)


def against(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Each variant of theirs against each of ours: our value minus theirs, over the seeds that both have.

    All intervals hold at once with a probability of at least ``LEVEL``: each is one of a family of as many as there
    are comparisons of two common seeds and more (Bonferroni; ``statistics.paired``).

    Args:
        ours, theirs: variant, seed, and the metric; of cells that are done.

    Returns:
        ours, variant, seeds, difference, low, high, p, conclusion; best of theirs first. ``attrs["family"]``.
    """
    higher = metric_of(metric).higher
    table = [of.pivot_table(index="seed", columns="variant", values=metric, dropna=False) for of in (ours, theirs)]
    seeds = sorted({*table[0].index, *table[1].index})
    mine, other = (part.reindex(seeds).replace([math.inf, -math.inf], math.nan) for part in table)
    have, they = (pd.crosstab(of["seed"], of["variant"]).reindex(seeds, fill_value=0) > 0 for of in (ours, theirs))
    order = other.mean().sort_values(ascending=not higher, na_position="last").index
    pairs = [(own, name) for own in mine for name in order]
    differences = np.array([mine[own].to_numpy() - other[name].to_numpy() for own, name in pairs])
    if not pairs:
        return pd.DataFrame(columns=["ours", "variant", "seeds", "difference", "low", "high", "p", "conclusion"])
    family = int(((~np.isnan(differences)).sum(1) > 1).sum())
    mean, half, p = paired(differences, max(1, family))
    sign = 1.0 if higher else -1.0
    frame = pd.DataFrame(
        {
            "ours": [own for own, _ in pairs],
            "variant": [name for _, name in pairs],
            "seeds": (~np.isnan(differences)).sum(1),
            "difference": mean,
            "low": mean - half,
            "high": mean + half,
            "p": p,
            "conclusion": [_conclusion(sign * d, of, int((have[own] & they[name]).sum()))
                           for d, of, (own, name) in zip(mean, p, pairs, strict=True)],
        }
    )  # fmt: skip
    frame.attrs |= {"family": family, "common": sorted(set(mine.index[mine.notna().any(axis=1)]) & set(
        other.index[other.notna().any(axis=1)]))}  # fmt: skip
    return frame


def detectable(seeds: int, family: int) -> float:
    """From how many standard deviations of the pairs' differences on a mean difference is found."""
    return -float(special.stdtrit(seeds - 1, (1 - LEVEL) / (2 * family))) / math.sqrt(seeds)


def _conclusion(difference: float, p: float, common: int) -> str:
    """common: how many seeds both have, whatever their values."""
    if math.isnan(p):
        return APART if common < 2 else NOT_FINITE
    if p > 1 - LEVEL:
        return OPEN
    return BETTER if difference > 0 else WORSE


def verdict(name: str, compared: pd.DataFrame, metric: str) -> str:
    """What came of it for one of ours, in a sentence.

    Args:
        compared: the rows of ``against`` that are of it.
    """
    unit, parts = metric_of(metric).unit, list[str]()
    for conclusion, said in ((BETTER, "better than"), (WORSE, "worse than"), (OPEN, "not told apart from")):
        part = compared[compared["conclusion"] == conclusion]
        if len(part):
            parts.append(f"{said} {_which(part, len(compared), unit)}")
    apart, unknown = (int((compared["conclusion"] == why).sum()) for why in (APART, NOT_FINITE))
    without = apart + unknown
    if not parts:
        reasons = [
            f"{said} {'any' if count == len(compared) else count} of {len(compared)} variants"
            for count, said in (
                (apart, "it has no two seeds in common with"),
                (unknown, "no two seeds have finite values in both it and"),
            )
            if count
        ]
        return f"{name} cannot be compared: {', and '.join(reasons)}."
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    family, seeds = compared.attrs["family"], ranges(compared.attrs["common"])
    return (
        f"{name} is {listed}, by {metric_of(metric).label} over the seeds {seeds} that both have; the {LEVEL:.0%} "
        f"intervals hold all at once ({'one comparison' if family == 1 else f'{family} comparisons'})"
        + (f"; {without} could not be compared" if without else "")
        + "."
    )


def _which(part: pd.DataFrame, all_of_them: int, unit: str) -> str:
    """The variants by name with their differences, or how many they are and the closest of them."""
    if len(part) <= _NAMED:
        return _listed([_one(row, unit) for row in part.to_dict("records")])
    closest = part.iloc[[int(part["difference"].abs().argmin())]].to_dict("records")[0]
    which = f"{len(part)} of {all_of_them}" if len(part) < all_of_them else f"any of {all_of_them}"
    return f"{which} variants (the closest: {_one(closest, unit)})"


def numbers(row: Mapping[Any, Any]) -> list[str]:
    """The difference, and the ends of its interval: where one is not 0 it is not written so, for readers look at its
    sign."""
    half = (row["high"] - row["low"]) / 2
    found = [written(row[name], half, "+") for name in ("difference", "low", "high")]
    return [found[0]] + [
        written(row[name], abs(row[name]), "+") if row[name] and not text.strip("0.") else text
        for name, text in zip(("low", "high"), found[1:], strict=True)
    ]


def _one(row: Mapping[Any, Any], unit: str) -> str:
    """ "CD-1 (+0.021, +0.003 to +0.039 nats)"."""
    difference, low, high = numbers(row)
    return f"{row['variant']} ({difference}, {low} to {high}{f' {unit}' if unit else ''})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
