"""What a study is: one method on one task, its space, its objectives, its budget of iterations and its seeds."""

import dataclasses
import json
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage

from benchmark.records.metrics import metric_of
from benchmark.system.limits import name_problem
from benchmark.tasks import spaces
from benchmark.tasks.plan import LABELS, Cell
from benchmark.tasks.suite import METRICS, Preset, Suite
from benchmark.tuning.storage import quietly
from bism import Estimator
from bism.errors import InputError, nearest, shortened

TIME = "time/train_seconds"
SAMPLERS = ("tpe", "random", "qmc", "nsga2")
PRUNERS = ("halving", "hyperband", "median", "none")
REPORTS = 9  # intermediate values of a trial, evenly spaced; 1/9 and 1/3 of the iterations are halving's rungs
_FACTOR = 3  # of the trials that come to a rung go on
_KEY = "benchmark"  # the study's attribute with its settings
_MAKING_SECONDS = 5  # that making a study takes at most
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What a study was made with; all who work on it use these.

    config: of a cell, as ``plan`` makes it, without its seed: the values of what is not searched are in its "hyper".
    space: by spelled-out name, in Optuna's JSON.
    paper: the preset's variants: their names, what they have for what is searched, and all their hyper-parameters.
    section, probes, report_seeds: of the suite, for the suite file that ``tune export`` writes.
    """

    suite: str
    preset: str
    task: str
    method: str
    steps: int
    seeds: list[int]
    objectives: list[str]
    sampler: str
    pruner: str
    space: dict[str, str]
    paper: list[dict[str, Any]]
    config: dict[str, Any]
    section: dict[str, Any]
    probes: list[dict[str, Any]]
    report_seeds: list[int]

    @property
    def name(self) -> str:
        """For people: "checkerboard bidsm"."""
        return f"{self.task} {self.method}"

    @property
    def directions(self) -> list[Any]:
        """Of each objective, in Optuna's words."""
        return ["maximize" if metric_of(name).higher else "minimize" for name in self.objectives]

    @property
    def distributions(self) -> spaces.Space:
        """The space."""
        return {name: json_to_distribution(text) for name, text in self.space.items()}

    def hyper(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All hyper-parameters, with ``values`` for those that are searched."""
        return {**self.config["hyper"], **values}


def is_measured(metrics: Sequence[str], method: type[Estimator]) -> list[str]:
    """The metrics of a task that a method's models have."""
    return [metric for metric in METRICS if metric in metrics and metric_of(metric).part in method.trains]


def check_objectives(
    asked: Sequence[str] | None, metrics: Sequence[str], task: str, method: type[Estimator]
) -> list[str]:
    """One or two different objectives that can be measured of the method's models on the task's validation data.

    Where none is asked for, what models are compared by: the exact log-likelihood, else a divergence.
    """
    ours = is_measured(metrics, method)
    if not ours:
        measures = ", ".join(METRICS)
        raise InputError(
            f"task {task}: {method.id} cannot be tuned: none of {measures} is both measured of its models and in "
            "the task's `metrics`; a suite file of your own may name more"
        )
    known, objectives = [*(f"val/{metric}" for metric in ours), TIME], list(asked or [f"val/{ours[0]}"])
    for name in objectives:
        if name.startswith("test/"):
            raise InputError(f"--objectives {name}: tuning looks at validation data alone: {', '.join(known)}")
        if name not in known:
            raise InputError(f"--objectives {name}: task {task} has {nearest(name, known)}")
    if not 1 <= len(objectives) <= 2 or len(set(objectives)) < len(objectives) or objectives[0] == TIME:
        raise InputError(
            f"--objectives must be a metric, or a metric and another objective, got {' '.join(objectives)}"
        )
    return objectives


def check_pruner(pruner: str, objectives: Sequence[str]) -> str:
    """The pruner's name; with two objectives there is nothing to prune by."""
    if len(objectives) > 1 and pruner != "none":
        raise InputError(
            f"--pruner {pruner}: a study with two objectives cannot be pruned, as no intermediate value says which "
            f"trial is better; leave --pruner out, or give one objective"
        )
    return pruner


def make_sampler(name: str, seed: int | None = None) -> BaseSampler:
    """TPE unless told otherwise; trials that others are working on are taken into account."""
    match name:
        case "tpe":
            return TPESampler(seed=seed, constant_liar=True)
        case "random":
            return RandomSampler(seed=seed)
        case "qmc":
            return QMCSampler(seed=seed, warn_independent_sampling=False)
    return NSGAIISampler(seed=seed, population_size=20)


def make_pruner(name: str, steps: int) -> BasePruner:
    """What ends trials early; first asked after a ninth of the iterations."""
    first = max(1, steps // REPORTS)
    match name:
        case "halving":
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=_FACTOR)
        case "hyperband":
            return HyperbandPruner(min_resource=first, max_resource=max(steps, first), reduction_factor=_FACTOR)
        case "median":
            return MedianPruner(n_startup_trials=5, n_warmup_steps=first)
    return NopPruner()


def settings_of(
    suite: Suite,
    preset: str,
    cells: Sequence[Cell],
    method: type[Estimator],
    *,
    steps: int | None = None,
    objectives: Sequence[str] | None,
    sampler: str,
    pruner: str,
    changes: Mapping[str, Any],
    enqueue: bool,
) -> StudySettings:
    """The settings of a study.

    Args:
        cells: what the preset has of this method on this task, planned with the tuning seeds.
        steps: iterations, instead of the preset's.
        changes: of the method's space; those of the suite file come first.

    Raises:
        InputError: an objective, a pruner or a space that cannot be.
    """
    config = {key: value for key, value in cells[0].config.items() if key != "seed"}
    config["steps"] = steps or config["steps"]
    task = config["task"]
    chosen: Preset = suite.presets[preset]
    seeds = sorted({cell.config["seed"] for cell in cells})
    both = sorted(set(seeds) & set(chosen.seeds))
    if both:
        raise InputError(
            f"--seeds: {', '.join(map(str, both))} are among the seeds that preset {preset} reports: tune on others"
        )
    if config["accumulate"] > 1:
        raise InputError(f"task {task}: tuning takes whole minibatches, and preset {preset} has accumulate: more")
    names = check_objectives(objectives, config["metrics"], task, method)
    said = suite.tasks[task].spaces.get(method.id, {})
    space, fixed = spaces.changed(method, spaces.declared(method), {**said, **changes}, config["hyper"])
    if not space:
        raise InputError(f"{method.id}: nothing to search: its space is empty")
    config["hyper"] = {**config["hyper"], **fixed}
    method(**config["hyper"])  # whether these go together
    return StudySettings(
        suite=suite.suite,
        preset=preset,
        task=task,
        method=method.id,
        steps=config["steps"],
        seeds=seeds,
        objectives=names,
        sampler=sampler,
        pruner=check_pruner(pruner, names),
        space={name: distribution_to_json(where) for name, where in space.items()},
        paper=_paper(_alike(cells, space), space, method.id) if enqueue else [],
        config=config,
        section=suite.tasks[task].model_dump(exclude_defaults=True),
        probes=[probe.model_dump() for probe in chosen.tasks[task].probes],
        report_seeds=list(chosen.seeds),
    )


def _alike(cells: Sequence[Cell], space: spaces.Space) -> list[Cell]:
    """The cells that differ from the first in seeds and in what is searched alone; of others a study cannot speak."""

    def rest(cell: Cell) -> Any:
        hyper = {name: value for name, value in cell.config["hyper"].items() if name not in space}
        return hyper, cell.config["model"], cell.config["data_noise"]

    others = {cell.config["variant"] for cell in cells if rest(cell) != rest(cells[0])}
    if others:
        warnings.warn(
            f"{cells[0].config['task']}: {cells[0].config['variant']} is tuned, and not {', '.join(sorted(others))}: "
            f"they differ in the model, its data, or what is not searched",
            stacklevel=3,
        )
    return [cell for cell in cells if rest(cell) == rest(cells[0])]


def _paper(cells: Sequence[Cell], space: spaces.Space, method: str) -> list[dict[str, Any]]:
    """The preset's variants: {"variant": its name, "values": of what is searched, "hyper": all}."""
    found = dict[str, dict[str, Any]]()
    for cell in cells:
        hyper = cell.config["hyper"]
        values = {name: hyper[name] for name in space}
        for name, value in values.items():
            if not spaces.contains(space[name], value):
                raise InputError(
                    f"{method}: the preset's {name} = {value} is not in the space, {spaces.described(space[name])}: "
                    f"widen it with --space {method}.{name}=..., or leave the preset's values out with --no-enqueue"
                )
        entry = {"variant": cell.config["variant"], "values": values, "hyper": hyper}
        found.setdefault(json.dumps(values, sort_keys=True), entry)
    return list(found.values())


def full_name(prefix: str, settings: StudySettings) -> str:
    """A study's name in the storage: "grbm.checkerboard.bidsm"."""
    if not _NAME.fullmatch(prefix) or name_problem(prefix):
        what = name_problem(prefix) or "must consist of letters, digits, '.', '_' and '-'"
        raise InputError(f"--study {shortened(prefix)}: {what}")
    return f"{prefix}.{settings.task}.{settings.method}"


def find_method(name: str, methods: Mapping[str, type[Estimator]]) -> type[Estimator]:
    """A study's method; one from a plug-in must be given again."""
    if name not in methods:
        raise InputError(f"the study's method '{name}' is not among those here: give its file by --plugin")
    return methods[name]


def find_studies(storage: BaseStorage, name: str, where: str) -> list[str]:
    """The studies of this name: the one that is called so, or all that begin with it and a dot."""
    known = sorted(study.study_name for study in storage.get_all_studies())
    found = [one for one in known if one == name or one.startswith(f"{name}.")]
    if not found:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f"no study '{name}' in {where}: {has}")
    return found


def read(study: optuna.Study) -> StudySettings:
    """The settings that a study was made with.

    Raises:
        InputError: it was made by something else.
    """
    content: Any = study.user_attrs.get(_KEY)
    try:
        return StudySettings(**{field.name: content[field.name] for field in dataclasses.fields(StudySettings)})
    except (KeyError, TypeError):
        raise InputError(f"study {study.study_name} was not made by 'tune': give another --study name") from None


def open_study(storage: BaseStorage, name: str, settings: StudySettings | None = None) -> optuna.Study:
    """A study to work on; made, with the paper's values enqueued, where there is none.

    Raises:
        InputError: it was made with other settings.
    """
    if settings is not None:
        made = _made(storage, name, settings)
        _check_same(read(made), settings, name)
    found = optuna.load_study(storage=storage, study_name=name)
    ours = read(found)
    return optuna.load_study(
        storage=storage,
        study_name=name,
        sampler=make_sampler(ours.sampler),
        pruner=make_pruner(ours.pruner, ours.steps),
    )


def _made(storage: BaseStorage, name: str, settings: StudySettings) -> optuna.Study:
    """The study, with its settings and the paper's values; who makes it writes these, and others wait for them."""
    try:
        made, ours = optuna.create_study(storage=storage, study_name=name, directions=settings.directions), True
    except optuna.exceptions.DuplicatedStudyError:
        made, ours = optuna.load_study(storage=storage, study_name=name), False
    waiting = threading.Event()
    for _ in range(0 if ours else _MAKING_SECONDS * 10):
        if _KEY in made.user_attrs:
            break
        waiting.wait(0.1)
    if _KEY not in made.user_attrs:  # new, or its maker was killed before this
        with quietly():
            made.set_metric_names(settings.objectives)
        for one in settings.paper:
            made.enqueue_trial(one["values"], {"origin": "paper", "variant": one["variant"]}, skip_if_exists=True)
        made.set_user_attr(_KEY, {**dataclasses.asdict(settings), "data": settings.config["data"]})
    return made


def _check_same(theirs: StudySettings, ours: StudySettings, name: str) -> None:
    first, second = (json.loads(json.dumps(dataclasses.asdict(one))) for one in (theirs, ours))
    for content in (first, second):  # how a method is called and drawn may have changed since
        content["config"] = {key: value for key, value in content["config"].items() if key not in LABELS}
    for key in first:
        if first[key] != second[key]:
            was, now = _difference(first[key], second[key])
            raise InputError(
                f"study {name} was made with {key} = {was}, not {now}: go on as it was made, or give another --study"
            )


def _difference(was: Any, now: Any) -> tuple[Any, Any]:
    """The part in which two values differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        changed = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        return {key: was.get(key) for key in changed}, {key: now.get(key) for key in changed}
    return was, now
