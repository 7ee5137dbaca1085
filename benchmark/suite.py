"""Suite files: YAML, validated before anything trains, with errors that name file, line and key."""

import itertools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from benchmark.datasets import DATASETS
from benchmark.models import MODELS
from benchmark.registry import find
from bism import Estimator
from bism.errors import InputError, nearest
from bism.hyperparameters import resolve, specs

SHIPPED = Path(__file__).parent / "suites"
Metric = Literal["log_likelihood", "fisher_divergence"]


def parse_seeds(text: Any) -> list[int]:
    """Seeds from ``0-9``, ``0,3,5-7``, a number, or a list of numbers.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in text):
        seeds = text
    else:
        parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip()) for part in str(text).split(",")]
        if not all(parts):
            raise ValueError(f"must look like 0-9 or 0,3,5-7, got {text!r}")
        ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
        seeds = [seed for low, high in ranges for seed in range(low, high + 1)]
    if not seeds or min(seeds) < 0:
        raise ValueError(f"must name at least one seed >= 0, got {text!r}")
    return sorted(set(seeds))


def _known(names: dict[str, Any]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"no '{name}': {nearest(name, names)}")
        return name

    return AfterValidator(check)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataEntry(_Section):
    """Which data: a known data set by name, or an ``.npy`` file of the user's own."""

    name: Annotated[str, _known(DATASETS)] | None = None
    file: str | None = None
    train: int | None = Field(None, gt=0)
    val: int | None = Field(None, gt=0)
    test: int | None = Field(None, gt=0)
    split: Annotated[tuple[float, float, float], BeforeValidator(tuple)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "DataEntry":
        if (self.name is None) == (self.file is None):
            raise ValueError("needs either name (a known data set) or file (an .npy file)")
        if self.name != "checkerboard" and (self.train or self.val or self.test):
            raise ValueError("train, val and test are for the checkerboard; a file has split: [0.8, 0.1, 0.1]")
        if self.split and (self.file is None or min(self.split) <= 0 or abs(sum(self.split) - 1) > 1e-9):
            raise ValueError("split is three positive fractions that add up to 1, for a file")
        return self


class ModelEntry(_Section):
    """Which model, and its number of hidden units; the visible ones follow from the data."""

    name: Annotated[str, _known(MODELS)]
    hidden: int = Field(gt=0)


class Task(_Section):
    """Data, model, and what is measured."""

    description: str
    data: DataEntry
    model: ModelEntry
    batch_size: int = Field(100, gt=0)
    metrics: list[Metric] = Field(["log_likelihood", "fisher_divergence"], min_length=1)
    select: Literal["val/log_likelihood", "val/fisher_divergence"] = "val/log_likelihood"

    @model_validator(mode="after")
    def _selects_what_is_measured(self) -> "Task":
        if self.select.removeprefix("val/") not in self.metrics:
            raise ValueError(f"select is {self.select}, which is not among the metrics {', '.join(self.metrics)}")
        return self


class Variant(_Section):
    """A method with hyper-parameters; a list of values makes one variant of each."""

    method: str
    set: dict[str, Any] = {}
    paper: str | None = None


class PresetTask(_Section):
    """How a preset trains one task; ``all`` holds hyper-parameters for every method that has them.

    ``minutes`` is what all of it took on two cores, for estimates.
    """

    steps: int = Field(gt=0)
    minutes: float | None = Field(None, gt=0)
    all: dict[str, Any] = {}
    variants: list[Variant] = Field(min_length=1)


class Preset(_Section):
    """A set of cells that are compared with each other."""

    description: str
    label: str | None = None
    seeds: Annotated[list[int], BeforeValidator(parse_seeds)]
    evaluations: int = Field(50, gt=0)
    tasks: dict[str, PresetTask] = Field(min_length=1)


class Suite(_Section):
    """A suite file."""

    suite: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    description: str
    default_preset: str
    tasks: dict[str, Task] = Field(min_length=1)
    presets: dict[str, Preset] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_agree(self) -> "Suite":
        if self.default_preset not in self.presets:
            hint = nearest(self.default_preset, self.presets)
            raise ValueError(f"default_preset: no preset '{self.default_preset}': {hint}")
        for name, preset in self.presets.items():
            for task in preset.tasks:
                if task not in self.tasks:
                    raise ValueError(f"presets.{name}.tasks: no task '{task}': {nearest(task, self.tasks)}")
        return self


def shipped() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def load_suite(name_or_file: str, methods: dict[str, type[Estimator]]) -> Suite:
    """A shipped suite by name, or one from a file (anything that ends in .yaml or .yml).

    Raises:
        InputError: unknown name, or an invalid file, with every problem on a line of its own.
    """
    known = shipped()
    if not name_or_file.endswith((".yaml", ".yml")):
        if name_or_file not in known:
            raise InputError(f"no suite '{name_or_file}': {nearest(name_or_file, known)}; a file's name ends in .yaml")
        return _parse(known[name_or_file], methods)
    if not Path(name_or_file).is_file():
        raise InputError(f"{name_or_file}: no such suite file")
    suite = _parse(Path(name_or_file), methods)
    return _with_files_beside(suite, Path(name_or_file).parent)


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
    try:
        text = path.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    lines = dict(_lines(node, ())) if node is not None else {}
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_message(path, lines, problem) for problem in error.errors())) from None
    problems = [
        f"{path}:{_line(lines, where)}: {'.'.join(map(str, where))}: {what}"
        for where, what in _bad_variants(suite, methods)
    ]
    if problems:
        raise InputError("\n".join(problems))
    return suite


def _lines(node: yaml.Node, where: tuple[Any, ...]) -> Any:
    """Yields (path of keys, line number) for every entry; a key given twice is an error."""
    yield where, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise InputError(
                    f"{node.start_mark.name}:{key.start_mark.line + 1}: the key '{key.value}' is given twice"
                )
            seen.add(key.value)
            for place, line in _lines(value, (*where, key.value)):
                yield place, key.start_mark.line + 1 if place == (*where, key.value) else line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*where, index))


def _line(lines: dict[tuple[Any, ...], int], where: tuple[Any, ...]) -> int:
    """The line of the innermost part of ``where`` that the file has."""
    return next((lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in lines), 1)


def _message(path: Path, lines: dict[tuple[Any, ...], int], problem: Any) -> str:
    """One of pydantic's errors in our words: file, line, key, what was expected, what it got."""
    where = tuple(problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = f"unknown key; {nearest(str(where[-1]), _keys_at(where[:-1]))}"
    elif problem["type"] == "missing":
        text = "this key is missing"
    elif problem["type"] != "value_error":
        text = f"{text[0].lower()}{text[1:]}, got {problem['input']!r}"
    key = ".".join(map(str, where)) or "the file"
    return f"{path}:{_line(lines, where)}: {key}: {text}"


def _keys_at(where: tuple[Any, ...]) -> list[str]:
    """The keys that a section of a suite file may have."""
    sections: dict[Any, type[BaseModel]] = {"data": DataEntry, "model": ModelEntry, "variants": Variant}
    named: list[type[BaseModel]] = [sections[part] for part in where if part in sections]
    if named:
        return list(named[-1].model_fields)
    by_depth: dict[Any, list[type[BaseModel]]] = {"tasks": [Task], "presets": [Preset, PresetTask]}
    levels = by_depth.get(where[0], []) if where else []
    depth = len(where) // 2  # names of the user's own and keys of ours alternate
    section: type[BaseModel] = levels[depth - 1] if 0 < depth <= len(levels) else Suite
    return list(section.model_fields)


def expand(entry: Variant, shared: dict[str, Any], estimator: type[Estimator]) -> list[dict[str, Any]]:
    """The hyper-parameters of each variant that an entry stands for, by spelled-out name."""
    declared = specs(estimator)
    values = {
        resolve(estimator, key): value
        for key, value in shared.items()
        if key in declared or key in {spec.symbol for spec in declared.values()}
    }
    values |= {resolve(estimator, key): value for key, value in entry.set.items()}
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*lists)]


def _bad_variants(suite: Suite, methods: dict[str, type[Estimator]]) -> Any:
    """Yields (where, what) for unknown methods, unknown hyper-parameters and impossible values."""
    for preset_name, preset in suite.presets.items():
        for task_name, task in preset.tasks.items():
            place = ("presets", preset_name, "tasks", task_name)
            every = {name for method in methods.values() for name in _names(method)}
            for key in task.all:
                if key not in every:
                    yield (*place, "all", key), f"no method has this hyper-parameter: {nearest(key, every)}"
            for index, entry in enumerate(task.variants):
                where = (*place, "variants", index)
                try:
                    estimator = find(entry.method, methods)
                except InputError as error:
                    yield (*where, "method"), str(error)
                    continue
                yield from _bad_values(entry, task.all, estimator, where)


def _names(estimator: type[Estimator]) -> set[str]:
    declared = specs(estimator)
    return set(declared) | {spec.symbol for spec in declared.values() if spec.symbol}


def _bad_values(entry: Variant, shared: dict[str, Any], estimator: type[Estimator], where: tuple[Any, ...]) -> Any:
    for key in entry.set:
        try:
            resolve(estimator, key)
        except InputError as error:
            yield (*where, "set", key), str(error)
            return
    for values in expand(entry, shared, estimator):
        try:
            estimator(**values)
        except InputError as error:
            culprit = next((key for key in entry.set if resolve(estimator, key) in str(error)), None)
            yield ((*where, "set", culprit) if culprit else where), str(error)
