"""From a study's best trial to what ``run`` trains: a suite with the preset ``tuned``."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml

from benchmark.system.credentials import unsecret
from benchmark.tasks.suite import Suite
from benchmark.tuning.show import best
from benchmark.tuning.storage import read_storage
from benchmark.tuning.study import StudySettings, find_method, find_studies, read
from bism import Estimator
from bism.errors import InputError

PRESET = "tuned"


def tuned_suite(storage_name: str, names: Sequence[str], methods: Mapping[str, type[Estimator]]) -> Suite:
    """A suite of the best of each study, beside the preset's own variants of the same methods, for as many iterations
    as they were tuned with, on the report's seeds.

    Args:
        names: of studies, or what several begin with.

    Raises:
        InputError: no such study, one without a complete trial, or studies that do not go together.
    """
    storage = read_storage(storage_name)
    found = dict[str, optuna.Study]()
    for name in names:
        for one in find_studies(storage, name, unsecret(storage_name)):
            found[one] = optuna.load_study(storage=storage, study_name=one)
    settings = {name: read(study) for name, study in found.items()}
    suites = {one.suite for one in settings.values()}
    if len(suites) > 1:
        raise InputError(f"studies of several suites, {', '.join(sorted(suites))}, cannot be run as one: name fewer")
    tasks: dict[str, list[tuple[StudySettings, optuna.trial.FrozenTrial]]] = {}
    for name, study in found.items():
        trial = best(study)
        if trial is None:
            raise InputError(f"study {name} has no complete trial: tune on, or name other studies")
        tasks.setdefault(settings[name].task, []).append((settings[name], trial))
    first = next(iter(settings.values()))
    content = {
        "suite": first.suite,
        "description": f"Tuned: the best trials of {', '.join(found)}",
        "default_preset": PRESET,
        "tasks": {task: _plain(entries[0][0].section) for task, entries in tasks.items()},
        "presets": {
            PRESET: {
                "description": "each method with its best values, by validation data of other seeds, beside the "
                f"preset {first.preset}'s",
                "seeds": first.report_seeds,
                "evaluations": first.config["evaluations"],
                "tasks": {task: _task(task, entries, methods) for task, entries in tasks.items()},
            }
        },
    }
    return Suite.model_validate(content)


def check_seeds(storage_name: str, names: Sequence[str], seeds: Iterable[int]) -> None:
    """The seeds that are reported on must not be among those that were tuned on."""
    storage = read_storage(storage_name)
    for name in names:
        for one in find_studies(storage, name, unsecret(storage_name)):
            settings = read(optuna.load_study(storage=storage, study_name=one))
            both = sorted(set(settings.seeds) & set(seeds))
            if both:
                raise InputError(f"--seeds: {', '.join(map(str, both))} are among the seeds that {one} was tuned on")


def export(storage_name: str, names: Sequence[str], file: Path, methods: Mapping[str, type[Estimator]]) -> None:
    """Writes the suite as a file.

    Raises:
        InputError: as ``tuned_suite``, or the file cannot be written.
    """
    suite = tuned_suite(storage_name, names, methods)
    text = yaml.safe_dump(_compact(suite), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}") from error


def _task(
    task: str, entries: Sequence[tuple[StudySettings, optuna.trial.FrozenTrial]], methods: Mapping[str, type[Estimator]]
) -> dict[str, Any]:
    steps = {settings.steps for settings, _ in entries}
    if len(steps) > 1:
        raise InputError(f"task {task}: studies of {sorted(steps)} iterations cannot be compared: name fewer")
    variants = list[dict[str, Any]]()
    for settings, trial in entries:
        method, config = find_method(settings.method, methods), settings.config
        best_hyper = settings.hyper(trial.params)
        named = {one["variant"]: one["hyper"] for one in settings.paper}
        if any(method(**hyper) == method(**best_hyper) for hyper in named.values()):  # the preset's own values won:
            named = {  # one cell, which is both the baseline and what was found, and says so
                name + (" (preset and tuned)" if method(**hyper) == method(**best_hyper) else ""): hyper
                for name, hyper in named.items()
            }
        else:
            named = {f"{method(**best_hyper).name} tuned": best_hyper, **named}
        for name, hyper in named.items():
            model = {} if _task_model(settings) == config["model"] else {"model": _model(config["model"])}
            variants.append(
                {
                    "method": settings.method,
                    "name": name,
                    "set": _unusual(method, hyper),
                    "data_noise": config["data_noise"],
                    **model,
                }
            )
    first = entries[0][0]
    return {"steps": steps.pop(), "precision": first.config["precision"], "probes": first.probes, "variants": variants}


def _unusual(method: type[Estimator], hyper: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that are not at their defaults."""
    usual = {field.name: field.default for field in dataclasses.fields(method)}
    return {name: value for name, value in hyper.items() if value != usual[name]}


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key != "visible"}


def _task_model(settings: StudySettings) -> dict[str, Any]:
    return {**settings.section["model"], "visible": settings.config["model"]["visible"]}


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    """A task's section without where to search: what is exported is found."""
    return {key: value for key, value in section.items() if key != "spaces"}


def _compact(suite: Suite) -> dict[str, Any]:
    """What a person would write: without what is at its default."""
    content: dict[str, Any] = suite.model_dump(exclude_defaults=True)
    return content
