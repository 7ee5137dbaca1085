"""What tuning found, beside the preset's values under the same budget."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from reports import terms
from reports.artefact import Artefact, Table, fixed
from reports.studies import ENDED, Studies, Study, basis, differing

_BEST, _PAPER, _DIFFERENCE, _SECONDS = "best", "preset's best", "difference", "s of training"
_MAY_DIFFER = {"objective": "objective", "preset": "preset", "seeds": "seeds", "steps": "iterations"}
_EDGE = 0.02  # of a range, or of its logarithm


def build(studies: Studies) -> Iterator[Artefact]:
    """For each task the best trial of each method, and its hyper-parameters."""
    for task in studies.tasks:
        of_task = studies.of(task)
        frame, runs = best(of_task), [run for study in of_task for run in study.runs]
        several = any(len(study.objectives) > 1 for study in of_task)
        values = fixed(frame[_DIFFERENCE], 2, least=3)
        yield Artefact(
            name=f"best-{task}",
            title=f"Best trials and the preset's values ({task})",
            caption=f"{basis(of_task)}. Beside the best complete trial of each method stands the best of those with "
            "the preset's values, which were trained under the same budget; difference: best − preset's, 0 where the "
            "preset's values are the best. Training time is that of all trials, pruned and failed ones too."
            + (" Where two objectives were searched for, the best is that of the first." if several else ""),
            numbers=frame,
            runs=runs,
            table=Table(
                frame.drop(columns=[name for name in ("not ended",) if not frame[name].any()]),
                {_BEST: values, _PAPER: values, _SECONDS: fixed(frame[_SECONDS], 3), "trial": "{:.0f}",
                 _DIFFERENCE: fixed(frame[_DIFFERENCE], 2, least=3, sign="+")},
            ),
        )  # fmt: skip
        chosen = settings(of_task)
        if len(chosen):
            written = pd.DataFrame({
                "method": chosen["method"],
                "hyper-parameter": [terms.hyperparameter(name, {name: symbol}) for name, symbol in
                                    zip(chosen["name"], chosen["symbol"], strict=True)],
                "best": chosen["best"].map(terms.setting),
                "preset's": chosen["preset's"].map(terms.setting),
                "searched": chosen["searched"],
                "end of range": chosen["end of range"],
            })  # fmt: skip
            ends = (chosen["end of range"] != "").any()
            yield Artefact(
                name=f"best-values-{task}",
                title=f"Hyper-parameters of the best trials ({task})",
                caption="Of the best trial of each method, and of the best one with the preset's values."
                + (
                    " End of range: the best value lies there; a better one may lie beyond, where there are values."
                    if ends
                    else ""
                ),
                numbers=chosen,
                runs=runs,
                table=Table(written if ends else written.drop(columns="end of range")),
            )


def best(studies: Sequence[Study]) -> pd.DataFrame:
    """One row per study."""
    rows = []
    for study in studies:
        ours, papers = study.best(), study.best("paper")
        states = study.trials["state"]
        rows.append(
            {
                "method": study.label,
                **{head: str(getattr(study, name)) for name, head in _MAY_DIFFER.items() if differing(studies, name)},
                _BEST: math.nan if ours is None else float(ours[study.objective]),
                "trial": math.nan if ours is None else float(ours["trial"]),
                _PAPER: math.nan if papers is None else float(papers[study.objective]),
                "preset's variant": "" if papers is None else papers["variant"],
                _DIFFERENCE: math.nan if ours is None or papers is None
                else float(ours[study.objective] - papers[study.objective]),
                "trials": len(states),
                **{state: int((states == state).sum()) for state in ENDED},
                "not ended": int((~states.isin(ENDED)).sum()),
                _SECONDS: float(study.trials["seconds"].sum()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def settings(studies: Sequence[Study]) -> pd.DataFrame:
    """One row per method and hyper-parameter that was searched or that the best trial has."""
    rows = []
    for study in studies:
        ours, papers = study.best(), study.best("paper")
        if ours is None:
            continue
        for name in [str(column)[6:] for column in study.trials if str(column).startswith("param.")]:
            found, searched = ours[f"param.{name}"], study.space.get(name, {})
            rows.append(
                {
                    "method": study.label,
                    "name": name,
                    "symbol": study.symbols.get(name, ""),
                    "best": found,
                    "preset's": None if papers is None else papers[f"param.{name}"],
                    "searched": space(searched),
                    "end of range": end(found, searched),
                }
            )
    return pd.DataFrame(rows)


def space(searched: Mapping[str, Any]) -> str:
    """Where a hyper-parameter was searched: "0.0001 to 0.1, logarithmic"; "0, 1, 5"."""
    if "choices" in searched:
        return ", ".join(map(terms.setting, searched["choices"]))
    if "low" not in searched:
        return ""
    text = f"{terms.setting(searched['low'])} to {terms.setting(searched['high'])}"
    return text + (", logarithmic" if searched.get("log") else "")


def end(found: Any, searched: Mapping[str, Any]) -> str:
    """ "lowest" or "highest" where a number lies at an end of its range; a single value and names have no ends."""
    low, high = searched.get("low"), searched.get("high")
    choices = searched.get("choices", [])
    if choices and all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in choices):
        low, high = min(choices), max(choices)
    if low is None or high is None or low == high or not isinstance(found, (int, float)):
        return ""
    scale = math.log if searched.get("log") else float
    place = (scale(found) - scale(low)) / (scale(high) - scale(low))
    return "lowest" if place <= _EDGE else "highest" if place >= 1 - _EDGE else ""
