"""How measures, methods, numbers and counts are written in titles, on axes and in captions."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from benchmark.measures import statistics
from benchmark.records.metrics import SPLITS, metric_of
from benchmark.records.selection import RULES, said
from benchmark.system.tables import counted as counted  # one of these words

_HYPERPARAMETERS = {  # name -> what it is, symbol
    "lr": ("learning rate of the model", "β"),
    "lr_posterior": ("learning rate of the posterior", "α"),
    "inner_steps": ("inner steps", "K"),
    "unroll_steps": ("unrolled steps", "N"),
    "sigma": ("noise level", "σ"),
    "sigma_min": ("lowest noise level", ""),
    "sigma_max": ("highest noise level", ""),
    "sigma0": ("fixed noise level", "σ0"),
    "k": ("steps of the chain", "k"),
    "step_size": ("step size", "a"),
    "nu": ("noise vectors per example", "ν"),
    "noise_particles": ("samples of h per noise vector", ""),
    "max_steps": ("sweeps at most", "T"),
    "bandwidth": ("bandwidth of the kernel", "b"),
}
_DIGITS = 3


def measure(metric: str, unit: bool = True) -> str:
    """ "test/log_likelihood" is "test log-likelihood (nats)"; names that are not known stay."""
    split, found = metric.partition("/")[0], metric_of(metric)
    if split not in (*SPLITS, "time") or not found.known:
        return metric
    of = "" if found.of_samples or split == "time" else f"{SPLITS[split]} "
    return f"{of}{found.label}{f' ({found.unit})' if found.unit and unit else ''}"


def short(metric: str) -> str:
    """For the head of a column: "test/log_likelihood" is "log-likelihood"."""
    found = metric_of(metric)
    return found.label if found.known else metric


def hyperparameter(name: str, symbols: Mapping[str, str] | None = None) -> str:
    """ "lr" is "learning rate of the model β"; names that are not known are written with spaces.

    symbols: of hyper-parameters of methods that are not the package's.
    """
    said, letter = _HYPERPARAMETERS.get(name, (name.replace("_", " "), (symbols or {}).get(name, "")))
    return f"{said} {letter}".rstrip() if letter != said else said


def symbol(name: str, symbols: Mapping[str, str] | None = None) -> str:
    """ "lr" is "β"; what has no symbol is named. ``symbols`` as above."""
    said, letter = _HYPERPARAMETERS.get(name, (name.replace("_", " "), (symbols or {}).get(name, "")))
    return letter or said


def rule(select: str, once: bool = False) -> str:
    """What a selection rule takes: "last val/log_likelihood" is "the last iteration".

    once: of something that has one measurement in the last tenth of the iterations.
    """
    name, _, metric = select.partition(" ")
    return said(name or "last", measure(metric, unit=False), once) if name in ("", *RULES) else select


def number(value: float) -> str:
    """Three digits or all before the point: "−64.8", "1,600", "0.00664", "1.23e−08"."""
    return statistics.number(value, _DIGITS).replace("-", "−")


def setting(value: Any) -> str:
    """The value of a hyper-parameter: "0.00215", "5", "same"; nothing where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def ranges(numbers: list[int]) -> str:
    """ "0 to 4, 7" of 0, 1, 2, 3, 4, 7."""
    found = list[list[int]]()
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in found)


def missing(count: int) -> str:
    """What a figure or table says that lacks cells; nothing where it lacks none."""
    return "" if not count else f"INCOMPLETE: {counted(count, 'cell')} {'is' if count == 1 else 'are'} missing"


def lacking(count: int) -> str:
    """What a report says that lacks results; nothing where it lacks none."""
    return (
        "" if not count else f"INCOMPLETE: {counted(count, 'planned cell')} {'has' if count == 1 else 'have'} no result"
    )


def mean_of(curves: Any) -> str:
    """What a curve and the band around it are, of a frame with ``variant`` and ``seed``: as many seeds as are drawn."""
    counts = curves.groupby("variant")["seed"].nunique()
    fewest, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "1 seed, and so no band"
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    return f"mean over {seeds} and its 95% band (Student's t)" + (", none around one seed" if fewest == 1 else "")


def below_zero(metric: str, means: Any, half_widths: Any) -> str:
    """That intervals reach below 0 where no value of the metric is, as a sentence that follows others; nothing where
    none does."""
    if not metric_of(metric).positive or not (means < half_widths).any():
        return ""
    return " No value is below 0: intervals that reach there are symmetric around means of few seeds."


def seed_at(seed: int, contents: Iterable[Mapping[str, Any]]) -> str:
    """Of which seed and iteration ("step") pictures are: "seed 0 of each variant, at iteration 20,000"."""
    steps = sorted({int(content["step"]) for content in contents})
    at = f"iteration {steps[0]:,}" if len(steps) == 1 else f"iterations {steps[0]:,} to {steps[-1]:,}"
    return f"seed {seed} of each variant, at {at}"


def capital(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def how(contents: Iterable[Mapping[str, Any]]) -> str:
    """How samples were drawn."""
    said = [str(content.get("how", "drawn in a way that was not recorded")) for content in contents]
    return " or ".join(dict.fromkeys(said))
