"""From a suite and the user's choices to cells."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.data.catalogue import CATALOGUE
from benchmark.data.datasets import DataSet, load
from benchmark.measures.probes import PROBES
from benchmark.records.rundir import Record
from benchmark.system.limits import CELLS
from benchmark.system.tables import ranges
from benchmark.tasks.advice import noted
from benchmark.tasks.models import MODELS, build_model, takes_images
from benchmark.tasks.registry import drawn_as, find
from benchmark.tasks.suite import ModelEntry, Preset, PresetTask, ProbeEntry, Suite, Variant, expand
from benchmark.tasks.trainable import check_size, check_trainable, check_visible
from bism import Estimator
from bism.checks import check_shards
from bism.contract import check_cost
from bism.errors import InputError, nearest, shown
from bism.hyperparameters import resolve, specs, symbols

LABELS = (
    "variant",
    "paper",
    "reference",
    "description",
    "pictures",
    "rule",
    "preset_label",
    "advice",
    "symbols",
    "drawn_as",
    "cost",
)  # in config.json, but not what a cell is


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the command line asks for; None leaves it to the preset."""

    preset: str | None = None
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    steps: int | None = None
    overrides: Sequence[tuple[str, str, Any]] = ()  # (method, hyper-parameter, value)
    data_parallel: int = 1
    variants: Sequence[str] | None = None  # by the names that the preset has for them


@dataclasses.dataclass(frozen=True)
class Cell:
    """One thing to train: a configuration and a seed. The id is the hash of what is computed, not of its labels."""

    config: dict[str, Any]

    @functools.cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits of sha256 over the configuration."""
        content = {key: value for key, value in self.config.items() if key not in LABELS}
        data = content.get("data")
        if isinstance(data, dict) and "scaling" in data:  # its numbers follow from the data, but for their last digits
            content["data"] = {**data, "scaling": data["scaling"]["kind"]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def record(self) -> Record:
        """Its row in the index, as planned."""
        keys = ("suite", "preset", "task", "method", "variant", "seed", "steps")
        return Record(id=self.id, state="planned", **{key: self.config[key] for key in keys})


def choose_preset(suite: Suite, choices: Choices) -> tuple[str, Preset]:
    """The preset asked for, or the suite's default."""
    name = choices.preset or suite.default_preset
    if name not in suite.presets:
        raise InputError(f"suite {suite.suite} has no preset '{name}': {nearest(name, suite.presets)}")
    return name, suite.presets[name]


def choose_tasks(preset: Preset, choices: Choices) -> list[str]:
    """The tasks asked for, or all of the preset's."""
    for task in choices.tasks or ():
        if task not in preset.tasks:
            raise InputError(f"no task '{task}': {nearest(task, preset.tasks)}")
    return [task for task in preset.tasks if not choices.tasks or task in choices.tasks]


def differences(preset: Preset, choices: Choices) -> list[str]:
    """What the command line asks for that is not as the preset has it, beside which of its tasks and methods."""
    tasks, found = choose_tasks(preset, choices), list[str]()
    steps = {preset.tasks[task].steps for task in tasks}
    if choices.steps and steps != {choices.steps}:
        found.append(f"{choices.steps:,} iterations (for {', '.join(f'{one:,}' for one in sorted(steps))})")
    if choices.seeds is not None and list(choices.seeds) != list(preset.seeds):
        found.append(f"seeds {ranges(choices.seeds)} (for {ranges(preset.seeds)})")
    return [*found, *(f"{method}.{key}={value}" for method, key, value in choices.overrides)]


def load_data(suite: Suite, tasks: Iterable[str], folder: Path) -> dict[str, DataSet]:
    """The data of every task, before anything trains."""
    found = {task: load(suite.tasks[task].data.model_dump(), folder) for task in tasks}
    return {task: for_model(task, suite.tasks[task].model.name, data) for task, data in found.items()}


def for_model(task: str, model: str, data: DataSet) -> DataSet:
    """The data as a model takes them: vectors, or images.

    Raises:
        InputError: a model of images, and data that are none.
    """
    if not takes_images(model):
        return data
    if data.image is None:
        others = [one for one in MODELS if not takes_images(one)]
        images = [name for name, entry in CATALOGUE.items() if len(entry.shape) > 1]
        raise InputError(
            f"task {task}: the model {model} takes images, and {data.name} has none: take another model "
            f"({', '.join(others)}) or other data ({', '.join(images)})"
        )
    return data.as_images()


def plan(suite: Suite, choices: Choices, methods: dict[str, type[Estimator]], data: dict[str, DataSet]) -> list[Cell]:
    """All cells, in the suite's order.

    Raises:
        InputError: an unknown preset, task, method or hyper-parameter, an impossible value, or a method that cannot
            train the task's model.
    """
    preset_name, preset = choose_preset(suite, choices)
    for method in [*(choices.methods or ()), *(method for method, _, _ in choices.overrides)]:
        find(method, methods)
    cells: dict[str, Cell] = {}
    _check_variants(preset_name, preset, choices, methods)
    seeds = list(choices.seeds or preset.seeds)
    for task in choose_tasks(preset, choices):
        shared = _shared_config(suite, preset_name, preset, task, choices, data[task])
        examples = shared["batch_size"] // shared["accumulate"]
        _check_probes(suite, preset, task, methods, data[task])
        found = variants(preset.tasks[task], choices, methods)
        for entry, what in two_under_one_name(found, suite.tasks[task].model):
            raise InputError(suite.of_variant(preset_name, task, entry, what))
        for entry, estimator, variant in found:
            config = model_config(entry.model or suite.tasks[task].model, data[task])
            placed = functools.partial(suite.of_variant, preset_name, task, entry)
            model = check_trainable(task, variant, estimator, config, shared["metrics"], len(seeds), examples, placed)
            check_visible(model, entry, task, data[task])
            check_shards(estimator, shared["batch_size"], shared["accumulate"], choices.data_parallel)
            suitable = [one for one in shared["probes"] if not PROBES[one["name"]].unsuitable(estimator, model)]
            own = {**shared, "model": config, "probes": suitable}
            for cell in _cells(estimator, variant, entry, own, seeds):
                cells.setdefault(cell.id, cell)
            if len(cells) > CELLS:
                raise InputError(
                    f"this plan has more than {CELLS:,} cells: take fewer seeds, or a part by --tasks and --methods"
                )
    if not cells:
        tasks, asked = choose_tasks(preset, choices), choices.methods or ()
        left_out = {
            f"{method}: {preset.tasks[task].without[method]}"
            for task in tasks
            for method in asked
            if method in preset.tasks[task].without
        }
        why = "; ".join(sorted(left_out)) or (
            "a method that no preset has needs a line in a suite file (docs/adding_a_method.md)"
        )
        raise InputError(
            f"nothing to run: preset {preset_name} has none of {', '.join(asked)} in {', '.join(tasks)}; {why}"
        )
    trained = {cell.config["method"] for cell in cells.values()}
    for method, key, _ in choices.overrides:
        if method not in trained:
            raise InputError(
                f"--set {method}.{key}: {method} is not among what this trains, {', '.join(sorted(trained))}"
            )
    return list(cells.values())


def _shared_config(
    suite: Suite, preset_name: str, preset: Preset, task_name: str, choices: Choices, data: DataSet
) -> dict[str, Any]:
    """What all cells of a task have in common."""
    task = suite.tasks[task_name]
    steps = choices.steps or preset.tasks[task_name].steps
    settings = preset.tasks[task_name]
    return {
        "suite": suite.suite,
        "preset": preset_name,
        "task": task_name,
        "steps": steps,
        "batch_size": task.batch_size,
        "data": data.description,
        "precision": settings.precision,
        "accumulate": settings.accumulate,
        "metrics": list(task.metrics),
        "select": task.select,
        "rule": task.rule,
        "probes": _probes(settings.probes, steps),
        "evaluations": preset.evaluations,
        **{
            name: text
            for name, text in (
                ("preset_label", preset.label),
                ("advice", noted(data)),
            )
            if text
        },
    }


def model_config(entry: ModelEntry, data: DataSet) -> dict[str, Any]:
    """A model for these data, as ``build_model`` takes it."""
    shape = list(data.train.shape[1:])
    return {"name": entry.name, "visible": shape[0] if len(shape) == 1 else shape, **entry.sizes}


def _probes(entries: Iterable[ProbeEntry], steps: int) -> list[dict[str, Any]]:
    """The probes that a training of so many steps reaches, with all their options."""
    found = []
    for entry in entries:
        at = [where for where in entry.at if isinstance(where, str) or where <= steps]
        settings = PROBES[entry.name].model_validate(entry.options).model_dump()
        found += [{"name": entry.name, "at": at, "options": settings}] if at else []
    return found


def variants(
    settings: PresetTask, choices: Choices, methods: dict[str, type[Estimator]]
) -> list[tuple[Variant, Estimator, str]]:
    """A preset's entries for one task as estimators, changed as the user asks, with their variant names."""
    if choices.variants is not None:  # by their names before the user's changes
        own = variants(settings, Choices(methods=choices.methods), methods)
        every = variants(settings, dataclasses.replace(choices, variants=None), methods)
        return [one for one, (_, _, name) in zip(every, own, strict=True) if name in choices.variants]
    found = []
    for entry in settings.variants:
        method = methods[entry.method]
        if choices.methods and entry.method not in choices.methods:
            continue
        changes = {resolve(method, key): value for name, key, value in choices.overrides if name == method.id}
        for values in expand(entry, settings.all, method):
            found.append((entry, method(**values), method(**{**values, **changes})))
    extra = {"steps": choices.steps} if choices.steps and choices.steps != settings.steps else {}
    used: dict[tuple[type, str], dict[str, set[Any]]] = {}
    for entry, _, ours in found:
        if not isinstance(ours.name, str):
            raise InputError(f"{ours.id}: ``name`` must be a text, got {shown(ours.name)}")
        values = used.setdefault((type(ours), entry.name or ours.name), {})
        for key in specs(ours):
            values.setdefault(key, set()).add(getattr(ours, key))
    return [
        (entry, ours, _variant_name(entry.name, ours, theirs, used, _own(entry, settings) | extra))
        for entry, theirs, ours in found
    ]


def two_under_one_name(
    found: Iterable[tuple[Variant, Estimator, str]], model: ModelEntry
) -> Iterator[tuple[Variant, str]]:
    """Yields (entry, what) for variants that print as another does and are of another configuration: nothing that is
    printed or chosen by name could tell them apart."""
    first = dict[str, dict[str, Any]]()
    for entry, estimator, name in found:
        own = _configuration(entry, estimator, model)
        other = first.setdefault(name, own)
        if own != other:
            keys = [key for key in {**other, **own} if own.get(key) != other.get(key)]
            here, there = (", ".join(f"{key}={one[key]}" for key in keys if key in one) for one in (own, other))
            yield entry, f"prints as '{name}' with {here}, and so does one with {there}: give one of them another name"


def two_names_for_one(
    found: Iterable[tuple[Variant, Estimator, str]], model: ModelEntry
) -> Iterator[tuple[Variant, str]]:
    """Yields (entry, what) for variants that are another under another name: they would be trained under its name."""
    first = dict[str, str]()
    for entry, estimator, name in found:
        configuration = json.dumps(_configuration(entry, estimator, model), sort_keys=True)
        other = first.setdefault(configuration, name)
        if name != other:
            yield entry, f"'{name}' is '{other}' under another name: remove one of them, or change a value"


def _configuration(entry: Variant, estimator: Estimator, model: ModelEntry) -> dict[str, Any]:
    """What tells a task's variants apart."""
    hyper = {spec.symbol or key: getattr(estimator, key) for key, spec in specs(estimator).items()}
    sizes = {"model": (entry.model or model).name, **(entry.model or model).sizes}
    return {"method": estimator.id, **hyper, "data_noise": entry.data_noise, **sizes}


def _own(entry: Variant, settings: PresetTask) -> dict[str, Any]:
    """What an entry has beside hyper-parameters: noise on its data, another size of model than others of its name."""
    alike = [one for one in settings.variants if (one.method, one.name) == (entry.method, entry.name)]
    others = [one.model.sizes for one in alike if one.model]
    sizes = entry.model.sizes if entry.model else {}
    own = {key: value for key, value in sizes.items() if any(other.get(key) != value for other in others)}
    return ({"data_noise": entry.data_noise} if entry.data_noise else {}) | own


def _variant_name(
    given: str | None,
    ours: Estimator,
    theirs: Estimator,
    used: Mapping[tuple[type, str], dict[str, set[Any]]],
    extra: dict[str, Any],
) -> str:
    """The name given or the method's own, then what differs from the preset (``theirs``) or among those of that name
    and the name does not say, and extra."""
    name, said = (given, "") if given else (ours.name, ours.label)
    differing = {
        spec.symbol or key: getattr(ours, key)
        for key, spec in specs(ours).items()
        if f"{{{key}}}" not in said and len(used[type(ours), name][key] | {getattr(theirs, key)}) > 1
    }
    differing |= extra
    return f"{name} [{', '.join(f'{key}={value}' for key, value in differing.items())}]" if differing else name


def _check_variants(preset_name: str, preset: Preset, choices: Choices, methods: dict[str, type[Estimator]]) -> None:
    """The variants asked for are there: in one of the tasks and of the methods asked for."""
    own, tasks = Choices(methods=choices.methods), choose_tasks(preset, choices)
    there = {name for task in tasks for _, _, name in variants(preset.tasks[task], own, methods)}
    chosen = "".join(f" of {', '.join(some)}" for some in (choices.methods, choices.tasks) if some)
    for name in choices.variants or ():
        if there and name not in there:
            raise InputError(f"preset {preset_name} has no variant '{name}'{chosen}: {nearest(name, there)}")


def _check_probes(suite: Suite, preset: Preset, task: str, methods: dict[str, type[Estimator]], data: DataSet) -> None:
    """A probe must suit one of a preset's variants at least; the others do without."""
    if not preset.tasks[task].probes:
        return
    for entry in preset.tasks[task].variants:
        check_size(f"task {task}: {entry.method}", model_config(entry.model or suite.tasks[task].model, data), 1, 0)
    trained = [
        (estimator, build_model(model_config(entry.model or suite.tasks[task].model, data)))
        for entry, estimator, _ in variants(preset.tasks[task], Choices(), methods)
    ]
    for probe in preset.tasks[task].probes:
        lacking = PROBES[probe.name].lacking(data)
        if lacking:
            raise InputError(f"task {task}: the probe {probe.name} cannot be used: {lacking}")
        reasons = [PROBES[probe.name].unsuitable(*one) for one in trained]
        if all(reasons):
            raise InputError(f"task {task}: the probe {probe.name} cannot be used: {reasons[0]}")


def _cells(
    estimator: Estimator, variant: str, entry: Variant, shared: dict[str, Any], seeds: Sequence[int]
) -> Iterable[Cell]:
    description = ((type(estimator).__doc__ or "").strip() or estimator.id).splitlines()[0]
    for seed in seeds:
        yield Cell(
            {
                **shared,
                "method": estimator.id,
                "hyper": dataclasses.asdict(estimator),
                "data_noise": entry.data_noise,
                "seed": seed,
                "variant": variant,
                "paper": entry.paper,
                "reference": estimator.reference,
                "description": description,
                "symbols": symbols(estimator),
                "drawn_as": drawn_as(type(estimator)),
                "cost": check_cost(estimator.id, estimator.passes, estimator.unrolled),
                "pictures": seed == seeds[0],
            }
        )
