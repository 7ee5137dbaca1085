"""What a suite file says: its sections, and what each of their keys may hold. ``suite_file`` reads them."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from benchmark.data.datasets import DATASETS, SAMPLE, SCALES
from benchmark.measures.probes import PROBES
from benchmark.records.metrics import RANKED
from benchmark.records.selection import RULES
from benchmark.system import limits
from benchmark.system.validated import expected
from benchmark.tasks.models import MODELS
from bism import Estimator
from bism.errors import nearest, shown
from bism.hyperparameters import resolve, specs
from bism.models import INITS
from bism.precision import PRECISIONS

Place = tuple[Any, ...]  # the keys that lead to an entry
METRICS = [metric.name for metric in RANKED if metric.of_models]
_DEFAULT_METRICS = ["log_likelihood", "fisher_divergence"]
# What the best checkpoint can be chosen by: the method's own objective, or what a probe of samples measures, too.
SELECT = [
    f"val/{metric}" for metric in (*METRICS, "objective", *(metric.name for metric in RANKED if metric.of_samples))
]


def parse_seeds(text: Any) -> list[int]:
    """Seeds from ``0-9``, ``0,3,5-7``, a number, or a list of numbers.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in text):
        seeds = text
    else:
        ranges = [_seed_range(part.strip(), text) for part in str(text).split(",")]
        if sum(map(len, ranges)) > limits.SEEDS:
            raise ValueError(f"must name at most {limits.SEEDS:,} seeds, got {shown(text)}")
        seeds = [seed for some in ranges for seed in some]
    if not seeds or min(seeds) < 0:
        raise ValueError(f"must name at least one seed >= 0, got {shown(text)}")
    if max(seeds) > limits.SEED or len(seeds) > limits.SEEDS:
        raise ValueError(f"must be at most {limits.SEEDS:,} seeds up to {limits.SEED:,}, got {shown(text)}")
    return sorted(set(seeds))


def _seed_range(part: str, text: Any) -> range:
    """ "5-7", or "5"."""
    found = re.fullmatch("([0-9]+)(?:-([0-9]+))?", part)
    if not found:
        raise ValueError(f"must look like 0-9 or 0,3,5-7, got {shown(text)}")
    low, high = limits.whole(found[1]), limits.whole(found[2] or found[1])
    if low is None or high is None:
        raise ValueError(f"must be at most {limits.SEEDS:,} seeds up to {limits.SEED:,}, got {shown(text)}")
    if high < low:
        raise ValueError(f"must have ranges from a lower seed to a higher one, got {shown(text)}")
    return range(low, high + 1)


def _known(names: Iterable[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"no {what} '{name}': {nearest(name, names)}")
        return name

    return AfterValidator(check)


def _named(name: str) -> str:
    """Checks what results are filed under."""
    problem = limits.name_problem(name)
    if problem:
        raise ValueError(f"{problem}, got {shown(name)}")
    return name


def _one_line(name: str) -> str:
    if not name.isprintable():
        raise ValueError(f"must be one line without control characters, got {shown(name)}")
    problem = limits.formula_problem(name)
    if problem:
        raise ValueError(f"{problem}, got {shown(name)}")
    return name


def _whole_numbers(value: Any) -> Iterator[int]:
    """All that an option of a probe holds."""
    if isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(one)
    elif isinstance(value, int):
        yield value


def _binarize(value: Any) -> Any:
    if value is None or value == SAMPLE:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"must be a number or {SAMPLE}, got {shown(value)}")
    if not math.isfinite(value):
        raise ValueError(f"must be finite, got {shown(value)}")
    return float(value)


def _layers(value: Any) -> Any:
    """The size of a layer, or those of several."""
    for size in () if value is None else value if isinstance(value, list) else [value]:
        if isinstance(size, bool) or not isinstance(size, int):
            raise ValueError(f"must be an integer, got {shown(size)}")
        if size <= 0:
            raise ValueError(f"must be greater than 0, got {shown(size)}")
        if size > limits.COUNT:
            raise ValueError(f"must be at most {limits.COUNT:,}, got {shown(size)}")
    return value


def _moment(at: Any) -> Any:
    """An iteration, or a checkpoint by its name."""
    if at in ("best", "last") and isinstance(at, str):
        return at
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at <= limits.STEPS:
        raise ValueError(f"must be an iteration, from 0 to {limits.STEPS:,}, best or last, got {shown(at)}")
    return at


Name = Annotated[str, AfterValidator(_named)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataEntry(_Section):
    """Which data: a known data set by name, or an ``.npy`` file of the user's own.

    ``crop`` is the side of the central square that is kept of images; ``pad`` that of the square to which they are
    filled up with zeros. ``scale`` is how the values are brought
    to the scale that models start at, by the training data: ``standard`` (each visible unit to mean 0 and standard
    deviation 1) or ``unit`` (all by one map to [0, 1]); what is measured is in the data's own units nonetheless.
    ``held_out`` is a class that training and validation data are without (probe ``anomaly``).
    ``binarize`` is for models of binary v: a threshold, above which values become 1 and all others 0, or ``sample``:
    each value from 0 to 1 is the probability of a 1, drawn once.
    """

    name: Annotated[str, _known(DATASETS, "data set")] | None = None
    file: str | None = None
    train: int | None = Field(None, gt=0, le=10 * limits.COUNT)
    val: int | None = Field(None, gt=0, le=10 * limits.COUNT)
    test: int | None = Field(None, gt=0, le=10 * limits.COUNT)
    split: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    crop: int | None = Field(None, gt=0, le=10_000)
    pad: int | None = Field(None, gt=0, le=10_000)
    held_out: int | None = Field(None, ge=0, le=1_000_000)
    scale: Annotated[str, _known(("none", *SCALES), "scale")] | None = None
    binarize: Annotated[Any, AfterValidator(_binarize)] = None


class ModelEntry(_Section):
    """Which model, its sizes and where it starts; the visible units follow from the data. ``hidden`` is a list for
    models of several layers, [500, 1000].

    A model of a plug-in may take numbers and texts of other names.
    """

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, _known(MODELS, "model")]
    hidden: Annotated[Any, AfterValidator(_layers)] = None
    width: int | None = Field(None, gt=0, le=100_000)
    layers: int | None = Field(None, gt=0, le=1_000)
    posterior_width: int | None = Field(None, gt=0, le=100_000)
    init: Annotated[str, _known(INITS, "way to start")] | None = None

    @property
    def sizes(self) -> dict[str, Any]:
        """What the file says beside the name."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


class ProbeEntry(_Section):
    """An expensive measurement, at these iterations or of the best and last checkpoint, with its options."""

    name: Annotated[str, _known(PROBES, "probe")]
    at: list[Annotated[Any, AfterValidator(_moment)]] = Field(min_length=1)
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _has_its_options(self) -> "ProbeEntry":
        if max(_whole_numbers(self.options), default=0) > limits.COUNT:
            raise ValueError(f"options of the probe {self.name}: numbers must be at most {limits.COUNT:,}")
        try:
            PROBES[self.name].model_validate(self.options)
        except ValidationError as error:
            problem, known = error.errors()[0], PROBES[self.name].model_fields
            key, unknown = ".".join(map(str, problem["loc"])), problem["type"] == "extra_forbidden"
            what = f"unknown; {nearest(key, known)}" if unknown else expected(problem)
            raise ValueError(f"{f'option {key}' if key else 'options'} of the probe {self.name}: {what}") from None
        return self


class Task(_Section):
    """Data, model, and what is measured.

    ``select`` is the metric by which the best checkpoint is kept; ``rule`` says whose numbers stand for a cell in
    rankings: the mean of the evaluations in the last tenth of the iterations, those of the last iteration, or of the
    best by ``select``. ``spaces`` says where tuning looks, by method and hyper-parameter, where it is not where the
    method says.
    """

    description: str
    data: DataEntry
    model: ModelEntry
    batch_size: int = Field(100, gt=0, le=limits.COUNT)
    metrics: list[Annotated[str, _known(METRICS, "metric")]] = _DEFAULT_METRICS
    select: Annotated[str, _known(SELECT, "metric")] = "val/log_likelihood"
    rule: Annotated[str, _known(RULES, "rule")] = "last_tenth"
    spaces: dict[str, dict[str, Any]] = {}


class Variant(_Section):
    """A method with hyper-parameters; a list of values makes one variant of each.

    ``data_noise`` is the standard deviation of noise added anew to every minibatch; ``model`` stands in for the task's;
    ``name`` for the name that the method gives itself.
    """

    method: str
    name: Annotated[str, Field(min_length=1, max_length=limits.NAME), AfterValidator(_one_line)] | None = None
    set: dict[str, Any] = {}
    data_noise: float = Field(0.0, ge=0)
    model: ModelEntry | None = None
    paper: str | None = None


class PresetTask(_Section):
    """How a preset trains one task; ``all`` holds hyper-parameters for every method that has them.

    ``minutes`` is about what all of it takes on two cores, for estimates. ``precision`` and ``accumulate`` are as for
    ``Estimator.fit``. ``without`` says why methods that one might look for are not among the variants.
    """

    steps: int = Field(gt=0, le=limits.STEPS)
    minutes: float | None = Field(None, gt=0)
    precision: Annotated[str, _known(PRECISIONS, "precision")] = "float32"
    accumulate: int = Field(1, gt=0, le=limits.COUNT)
    all: dict[str, Any] = {}
    probes: list[ProbeEntry] = []
    without: dict[str, str] = {}
    variants: list[Variant] = Field(min_length=1)


class Preset(_Section):
    """A set of cells that are compared with each other."""

    description: str
    label: str | None = None
    seeds: Annotated[list[int], BeforeValidator(parse_seeds)]
    evaluations: int = Field(50, gt=0, le=limits.EVALUATIONS)
    tasks: dict[str, PresetTask] = Field(min_length=1)


def located(path: Path, lines: dict[Place, int], where: Place, what: str) -> str:
    """File, line, key, and what is wrong; the line is that of the innermost part of ``where`` that the file has."""
    line = next((lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in lines), 1)
    return f"{path}:{line}: {'.'.join(map(str, where)) or 'the file'}: {what}"


class Suite(_Section):
    """A suite file."""

    _read: tuple[Path, dict[Place, int]] | None = PrivateAttr(None)  # its file, and the line of each entry

    suite: Annotated[Name, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str
    default_preset: str
    tasks: dict[Name, Task] = Field(min_length=1)
    presets: dict[Name, Preset] = Field(min_length=1)

    def located(self, where: Place, what: str) -> str:
        """What is wrong with an entry, after its file, line and keys."""
        return located(*self._read, where, what) if self._read else what

    def of_variant(self, preset: str, task: str, entry: Variant, what: str) -> str:
        """What is wrong with a variant, in the same way."""
        index = next(index for index, one in enumerate(self.presets[preset].tasks[task].variants) if one is entry)
        return self.located(("presets", preset, "tasks", task, "variants", index), what)


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


def lacking(task: PresetTask, methods: Iterable[str]) -> list[str]:
    """Those of the methods that none of the task's variants is of."""
    there = {entry.method for entry in task.variants}
    return [method for method in methods if method not in there]


def with_methods(
    suite: Suite,
    preset: str,
    tasks: Iterable[str],
    methods: Iterable[str],
    models: Mapping[tuple[str, str], ModelEntry],
) -> Suite:
    """The suite with an entry for each of these methods in the tasks of a preset that have none of it: with the
    hyper-parameters that the preset sets for all methods, and else its own; ``models`` stand in for the task's, by task
    and method."""
    changed = dict(suite.presets[preset].tasks)
    for task in tasks:
        new = [
            Variant.model_validate({"method": method, "model": models.get((task, method))})
            for method in lacking(changed[task], methods)
        ]
        changed[task] = changed[task].model_copy(update={"variants": [*changed[task].variants, *new]})
    presets = {**suite.presets, preset: suite.presets[preset].model_copy(update={"tasks": changed})}
    return suite.model_copy(update={"presets": presets})
