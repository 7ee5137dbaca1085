"""Energies in latent space: steps of chains against quality and cost, likelihoods, samples, and what codes are for."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from reports import style, terms, timing
from reports.artefact import Artefact, Table, fixed
from reports.artefacts.ablations import averages
from reports.methods import of_variants
from reports.sweep import Sweep

_STEPS = {"prior": "param.prior_steps", "posterior": "param.posterior_steps"}
_MS = "ms per iteration and seed"


def build(sweep: Sweep) -> Iterator[Artefact]:
    """For each task what it has the cells for."""
    for task in sweep.tasks:
        yield from _steps(sweep, task)


# --- steps of chains ------------------------------------------------------------------------------------------------


def _steps(sweep: Sweep, task: str) -> Iterator[Artefact]:
    """Quality and cost against the steps of the prior's chains, and against those of the posterior's."""
    metric, done = sweep.measures(task), sweep.of(task)
    if metric is None or not all(column in done for column in _STEPS.values()):
        return
    for method, cells in done[done[list(_STEPS.values())].notna().all(axis="columns")].groupby("method"):
        curves = {
            chains: averages(_alike(cells, other), metric, {_STEPS[chains]: "steps"})
            for chains, other in (("prior", "posterior"), ("posterior", "prior"))
        }
        shown = {chains: curve for chains, curve in curves.items() if len(curve) > 2}
        if not shown:
            continue
        label, missing = next(iter(of_variants(cells).values())).label, len(sweep.missing(task))
        numbers = pd.concat([curve.assign(chains=chains) for chains, curve in shown.items()], ignore_index=True)
        yield Artefact(
            name=f"chain-steps-{method}-{task}",
            title=f"{label}: steps of the chains ({task})",
            caption=f"{terms.capital(terms.measure(metric))}, and a seed's share of the time of an iteration, against "
            f"the Langevin steps on the prior and on the posterior; of each with the other's at "
            f"{' and '.join(f'{_most(cells, _STEPS[chains]):g} on the {chains}' for chains in _STEPS)}. Means over "
            f"{terms.counted(int(numbers['seeds'].max()), 'seed')} at most, with 95% intervals (Student's t). Times: "
            f"{timing.conditions(cells)}.",
            alt=f"{terms.capital(terms.measure(metric))}: "
            + "; ".join(f"{row['steps']:g} steps on the {row['chains']}: {terms.number(row['quality'])}"
                        for row in numbers.to_dict("records")) + ".",
            numbers=numbers,
            runs=list(cells["run"]),
            missing=missing,
            figure=style.mark(draw_steps(shown, metric), missing),
            table=Table(numbers[["chains", *numbers.columns.drop("chains")]],
                        {_MS: fixed(numbers[_MS], 3), "steps": "{:g}"}, {"quality": "", "± 95%": ""}, numbers["± 95%"]),
        )  # fmt: skip


def _most(cells: pd.DataFrame, column: str) -> float:
    """The value that most variants have."""
    return float(cells.drop_duplicates("variant")[column].astype(float).mode().iloc[-1])


def _alike(cells: pd.DataFrame, chains: str) -> pd.DataFrame:
    """The cells whose number of steps on these chains is that of most."""
    column = _STEPS[chains]
    return cells[cells[column].astype(float) == _most(cells, column)]


def draw_steps(curves: dict[str, pd.DataFrame], metric: str) -> Figure:
    """Quality and cost against steps, a curve for each of the two kinds of chains."""
    with style.look():
        figure = Figure(figsize=(style.TEXT_WIDTH, 2.4), layout="constrained")
        quality, cost = figure.subplots(1, 2, sharex=True)
        for place, (chains, curve) in enumerate(curves.items()):
            look = {"label": f"on the {chains}", "linestyle": style.dashes(place), "marker": "os"[place],
                    "color": f"C{place}"}  # fmt: skip
            bars = curve["± 95%"].fillna(0.0)
            quality.errorbar(curve["steps"], curve["quality"], yerr=bars if bars.any() else None, **look)
            cost.plot(curve["steps"], curve[_MS], **look)
        quality.set(ylabel=terms.measure(metric), xlabel="Langevin steps")
        cost.set(ylabel=_MS, xlabel="Langevin steps", ylim=(0, None))
        quality.legend()
    return figure
