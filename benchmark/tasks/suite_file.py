"""Suite files: YAML, validated before anything trains, with errors that name file, line and key."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from benchmark.data.datasets import drawn
from benchmark.system import limits, yaml_text
from benchmark.system.validated import expected
from benchmark.tasks.models import refused_option, sizes, takes_images, takes_list
from benchmark.tasks.plan import Choices, two_names_for_one, two_under_one_name, variants
from benchmark.tasks.registry import find
from benchmark.tasks.shipped import shipped, suite_file
from benchmark.tasks.suite import (
    METRICS,
    DataEntry,
    ModelEntry,
    Place,
    Preset,
    PresetTask,
    ProbeEntry,
    Suite,
    Task,
    Variant,
    expand,
    located,
)
from bism import Estimator
from bism.errors import InputError, nearest, shown
from bism.hyperparameters import resolve, specs

_PROBLEMS = 20  # that are said of a file
_NO_VALUE = "needs at least 1 value, got []: there would be no variant"


def load_suite(name_or_file: str, methods: dict[str, type[Estimator]]) -> Suite:
    """A shipped suite by name, or one from a file (anything that ends in .yaml or .yml).

    Raises:
        InputError: unknown name, or an invalid file, with every problem on a line of its own.
    """
    path = suite_file(name_or_file)
    suite = _parse(path, methods)
    return suite if path in shipped().values() else _with_files_beside(suite, path.parent)


def _with_files_beside(suite: Suite, folder: Path) -> Suite:
    """Data files given by a relative path lie beside the suite file."""
    tasks = {
        name: task
        if task.data.file is None
        else task.model_copy(update={"data": task.data.model_copy(update={"file": str(folder / task.data.file)})})
        for name, task in suite.tasks.items()
    }
    return suite.model_copy(update={"tasks": tasks})


def _parse(path: Path, methods: dict[str, type[Estimator]]) -> Suite:
    raw, lines = limits.read_file(path, yaml_text.BYTES, "suite file"), dict[Place, int]()
    try:
        text = raw.decode("utf-8-sig")  # some editors write a mark before the text
        content = yaml_text.read(text, lambda node: lines.update(_lines(node, (), path)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {yaml_text.problem(error)}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {yaml_text.problem(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not lines:
        raise InputError(f"{path}:1: the file is empty; it needs {', '.join(Suite.model_fields)}")
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        raise InputError(_listed([_message(path, lines, problem) for problem in error.errors()])) from None
    problems: dict[Place, str] = {}  # one for each place
    for where, what in [*_contradictions(suite), *_bad_variants(suite, methods), *_bad_spaces(suite, methods)]:
        problems.setdefault(where, what)
    for where, what in () if problems else _bad_names(suite, methods):  # names follow from values that are right
        problems.setdefault(where, what)
    if problems:
        raise InputError(_listed([located(path, lines, where, what) for where, what in problems.items()]))
    suite._read = path, lines
    return suite


def _listed(problems: list[str]) -> str:
    more = [f"... and more than these {_PROBLEMS}"] if len(problems) > _PROBLEMS else []
    return "\n".join([*problems[:_PROBLEMS], *more])


def _lines(node: yaml.Node, where: Place, path: Path) -> Iterator[tuple[Place, int]]:
    """Yields (path of keys, line number) for every entry; a key given twice is an error."""
    yield where, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise InputError(f"{path}:{key.start_mark.line + 1}: the key '{key.value}' is given twice")
            seen.add(key.value)
            for place, line in _lines(value, (*where, key.value), path):
                yield place, key.start_mark.line + 1 if place == (*where, key.value) else line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*where, index), path)


def _message(path: Path, lines: dict[Place, int], problem: Any) -> str:
    """One of pydantic's errors in our words: file, line, key, what was expected, what it got."""
    where, kind = tuple(problem["loc"]), problem["type"]
    if kind == "extra_forbidden":
        text = f"unknown key; {nearest(str(where[-1]), _keys_at(where[:-1]))}"
    elif kind == "missing":
        text = "this key is missing"
    elif kind == "value_error":
        text = problem["msg"].removeprefix("Value error, ")
    else:
        text = expected(problem)
    return located(path, lines, where, text)


def _keys_at(where: Place) -> list[str]:
    """The keys that a section of a suite file may have."""
    section: type[BaseModel] = Suite
    match where:
        case ("tasks", _):
            section = Task
        case ("tasks", _, "data"):
            section = DataEntry
        case ("tasks", _, "model") | ("presets", _, "tasks", _, "variants", _, "model"):
            section = ModelEntry
        case ("presets", _):
            section = Preset
        case ("presets", _, "tasks", _):
            section = PresetTask
        case ("presets", _, "tasks", _, "probes", _):
            section = ProbeEntry
        case ("presets", _, "tasks", _, "variants", _):
            section = Variant
    return list(section.model_fields)


def _contradictions(suite: Suite) -> Iterator[tuple[Place, str]]:
    """Yields (where, what) for entries that do not go together."""
    if suite.default_preset not in suite.presets:
        yield ("default_preset",), f"no preset '{suite.default_preset}': {nearest(suite.default_preset, suite.presets)}"
    for name, task in suite.tasks.items():
        for key, what in _bad_data(task.data):
            yield ("tasks", name, "data", *key), what
        for size, what in _bad_sizes(task.model):
            yield ("tasks", name, "model", size), what
        if task.select.removeprefix("val/") in set(METRICS) - set(task.metrics):
            yield ("tasks", name, "select"), f"{task.select} is not among the metrics, {', '.join(task.metrics)}"
    for name, preset in suite.presets.items():
        for chosen in preset.tasks:
            if chosen not in suite.tasks:
                yield ("presets", name, "tasks", chosen), f"no task '{chosen}': {nearest(chosen, suite.tasks)}"
            for index, entry in enumerate(preset.tasks[chosen].variants):
                where = ("presets", name, "tasks", chosen, "variants", index, "model")
                for size, what in _bad_sizes(entry.model) if entry.model else ():
                    yield (*where, size), what
                if entry.model and chosen in suite.tasks:
                    kinds = [_visible(one.name) for one in (entry.model, suite.tasks[chosen].model)]
                    if kinds[0] != kinds[1]:
                        yield (*where, "name"), f"takes {kinds[0]}, and the task's model takes {kinds[1]}"
            for index, probe in enumerate(preset.tasks[chosen].probes):
                for at in probe.at:
                    if isinstance(at, int) and at > preset.tasks[chosen].steps:
                        where = ("presets", name, "tasks", chosen, "probes", index, "at")
                        yield where, f"must be at most the preset's {preset.tasks[chosen].steps} steps, got {at}"


def _visible(model: str) -> str:
    return "images" if takes_images(model) else "flat vectors"


def _bad_sizes(model: ModelEntry) -> Iterator[tuple[str, str]]:
    known = sizes(model.name)
    for key in model.sizes:
        if key not in known:
            yield key, f"the model {model.name} has no such size; {nearest(key, known)}"
        elif isinstance(model.sizes[key], list) != takes_list(model.name, key) and key == "hidden":
            wanted = "a list of layers, as in [16, 16]" if takes_list(model.name, key) else "one number"
            yield key, f"of the model {model.name} must be {wanted}, got {shown(model.sizes[key])}"
        elif not isinstance(model.sizes[key], (bool, int, float, str)) and key != "hidden":
            yield key, f"must be a number or a text, got {shown(model.sizes[key])}"
    missing = [key for key, needed in known.items() if needed and key not in model.sizes]
    for key in missing:
        yield key, "this key is missing"
    if not missing and not set(model.sizes) - set(known) and (refused := refused_option(model.name, model.sizes)):
        yield refused


def _bad_data(data: DataEntry) -> Iterator[tuple[Place, str]]:
    if (data.name is None) == (data.file is None):
        yield (), "needs either name (a known data set) or file (an .npy file)"
    for key in ("train", "val", "test"):
        if getattr(data, key) and data.name not in drawn():
            own = f"{data.name} has its own splits" if data.name else "a file has split: [0.8, 0.1, 0.1]"
            yield (key,), f"is for data sets that are drawn ({', '.join(drawn())}); {own}"
    if data.binarize is not None and data.scale not in (None, "none"):
        yield ("scale",), f"{data.scale} takes what binarize makes away from 0 and 1: one of the two"
    if data.split and data.file is None:
        yield ("split",), "is for a file; a known data set has its own"
    elif data.split and (min(data.split) <= 0 or abs(sum(data.split) - 1) > 1e-9):
        yield ("split",), f"must be three positive fractions that add up to 1, got {data.split}"


def _bad_spaces(suite: Suite, methods: dict[str, type[Estimator]]) -> Iterator[tuple[Place, str]]:
    """Yields (where, what) for spaces that cannot be searched."""
    for task_name, task in suite.tasks.items():
        for method, said in task.spaces.items():
            from benchmark.tasks import spaces  # Optuna, which only tuning needs

            place = ("tasks", task_name, "spaces", method)
            try:
                estimator = find(method, methods)
            except InputError as error:
                yield place, str(error)
                continue
            for key, value in said.items():
                try:
                    spaces.changed(estimator, spaces.declared(estimator), {key: value})
                except InputError as error:
                    yield (*place, key), str(error)


def _bad_variants(suite: Suite, methods: dict[str, type[Estimator]]) -> Iterator[tuple[Place, str]]:
    """Yields (where, what) for unknown methods, unknown hyper-parameters and impossible values."""
    every, count = {name for method in methods.values() for name in _names(method)}, 0
    for preset_name, preset in suite.presets.items():
        for task_name, task in preset.tasks.items():
            place = ("presets", preset_name, "tasks", task_name)
            for key, value in task.all.items():
                if key not in every:
                    yield (*place, "all", key), f"no method has this hyper-parameter: {nearest(key, every)}"
                if value == []:
                    yield (*place, "all", key), _NO_VALUE
            yield from _bad_omissions(task, methods, (*place, "without"))
            for index, entry in enumerate(task.variants):
                where = (*place, "variants", index)
                try:
                    estimator = find(entry.method, methods)
                except InputError as error:
                    yield (*where, "method"), str(error)
                    continue
                count += _count(entry, task.all, estimator)
                if count > limits.VARIANTS:
                    yield where, f"with this entry the file has {count:,} variants, and may have {limits.VARIANTS:,}"
                    return
                yield from _bad_values(entry, task.all, estimator, where)


def _bad_names(suite: Suite, methods: dict[str, type[Estimator]]) -> Iterator[tuple[Place, str]]:
    """Yields (where, what) for variants whose names do not tell them apart, or tell apart what is the same."""
    for preset_name, preset in suite.presets.items():
        for task_name, task in preset.tasks.items():
            found, model = variants(task, Choices(), methods), suite.tasks[task_name].model
            for entry, what in [*two_under_one_name(found, model), *two_names_for_one(found, model)]:
                index = next(index for index, one in enumerate(task.variants) if one is entry)
                yield ("presets", preset_name, "tasks", task_name, "variants", index), what


def _bad_omissions(task: PresetTask, methods: dict[str, type[Estimator]], place: Place) -> Iterator[tuple[Place, str]]:
    trained = {entry.method for entry in task.variants}
    for method in task.without:
        try:
            find(method, methods)
        except InputError as error:
            yield (*place, method), str(error)
        if method in trained:
            yield (*place, method), f"{method} is among the variants"


def _count(entry: Variant, shared: dict[str, Any], estimator: type[Estimator]) -> int:
    """How many variants an entry stands for, by its lists of values."""
    own = {key: value for key, value in shared.items() if key in _names(estimator)} | entry.set
    return math.prod(len(value) for value in own.values() if isinstance(value, list))


def _names(estimator: type[Estimator]) -> set[str]:
    declared = specs(estimator)
    return set(declared) | {spec.symbol for spec in declared.values() if spec.symbol}


def _bad_values(
    entry: Variant, shared: dict[str, Any], estimator: type[Estimator], where: Place
) -> Iterator[tuple[Place, str]]:
    names = dict[str, str]()
    for key, value in entry.set.items():
        if value == []:
            yield (*where, "set", key), _NO_VALUE
        try:
            name = resolve(estimator, key)
        except InputError as error:
            yield (*where, "set", key), str(error)
            return
        if name in names.values():
            yield (*where, "set", key), f"'{name}' is given twice, by its name and by its symbol"
            return
        names[key] = name
    for values in expand(entry, shared, estimator):
        try:
            estimator(**values)
        except InputError as error:
            culprit = str(error).removeprefix(f"{estimator.id}: ").split()[0]  # messages begin with the name
            ours = [(*where, "set", key) for key, name in names.items() if name == culprit]
            theirs = [(*where[:-2], "all", key) for key in shared if key in _names(estimator)]
            theirs = [place for place in theirs if resolve(estimator, place[-1]) == culprit]
            yield [*ours, *theirs, where][0], str(error)
