"""What a file of results says, and what each of its keys may hold. ``reference`` reads and writes it."""

import datetime
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from benchmark.records.metrics import is_measured
from benchmark.records.sharing import names_a_place
from benchmark.system import limits
from bism.errors import shown

POINTS = 1000  # of a curve
TEXT = 500  # characters of a label
DIGITS = 5  # of a curve's values; last values have all of theirs
LARGEST = 1e300  # what is beyond is infinite: sums and axes need some room
ENDED, OPEN = ("done", "diverged"), ("failed", "planned")
_AGREED = 10.0 ** (1 - DIGITS)  # to which a curve ends where its last value is
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # JSON has no numbers for them
_METRICS = 2000  # of a cell
_CHOSEN = "selected/step"  # the iteration that the task's rule picked
_SIZES = ("time/", "memory/")  # begin the names of what is never negative


def _named(name: str) -> str:
    problem = limits.name_problem(name)
    if problem:
        raise ValueError(f"{problem}, got {shown(name)}")
    return name


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"must be one line without control characters, got {shown(text)}")
    if names_a_place(text):
        raise ValueError(f"must name no folder and no address, got {shown(text)}")
    return text


def _drawn(name: str) -> str:
    problem = limits.formula_problem(name)
    if problem:
        raise ValueError(f"{problem}, got {shown(name)}")
    return name


def _metric(name: str) -> str:
    if not is_measured(name):
        raise ValueError(f"no such metric, got {shown(name)}")
    return name


def _number(value: Any) -> float:
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'must be a number, "nan", "inf" or "-inf", got {shown(value)}')
    if LARGEST < abs(value) < math.inf:
        raise ValueError(f'must be {LARGEST:g} at most in size, or "inf" or "-inf", got {shown(value)}')
    return float(value)


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"must be a day that there is, got {shown(text)}") from None


Name = Annotated[str, AfterValidator(_named), AfterValidator(_text)]
Text = Annotated[str, Field(max_length=TEXT), AfterValidator(_text)]
Metric = Annotated[str, AfterValidator(_metric)]
Number = Annotated[float, BeforeValidator(_number)]
Day = Annotated[str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)]
Step = Annotated[int, Field(ge=0, le=limits.STEPS)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Curve(Part):
    """A metric along a training, thinned where it has many points, to ``DIGITS`` digits."""

    steps: list[Step] = Field(min_length=1, max_length=POINTS)
    values: list[Number] = Field(min_length=1, max_length=POINTS)

    @model_validator(mode="after")
    def _in_order(self) -> "Curve":
        if len(self.steps) != len(self.values):
            raise ValueError(f"has {len(self.steps)} steps and {len(self.values)} values")
        if any(later <= before for before, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps must rise")
        return self


class Seed(Part):
    """What a variant gave with one seed.

    ``last`` has the last value of every metric, as it was measured, and under ``selected/`` the test metrics as the
    task's rule takes them where that is not the last value.
    """

    seed: int = Field(ge=0, le=limits.SEED)
    state: Literal["done", "diverged", "failed", "planned"]
    error: Text = ""
    last: dict[Metric, Number] = Field({}, max_length=_METRICS)
    curves: dict[Metric, Curve] = Field({}, max_length=_METRICS)

    @model_validator(mode="after")
    def _agrees(self) -> "Seed":
        if self.state == "done" and not self.last:
            raise ValueError(f"seed {self.seed} is done and has no metrics")
        if self.state in OPEN and (self.last or self.curves):
            raise ValueError(f"seed {self.seed} is {self.state} and has metrics")
        chosen = self.last.get(_CHOSEN, 0)
        if not (chosen >= 0 and float(chosen).is_integer()):
            raise ValueError(f"{_CHOSEN} of seed {self.seed} must be an iteration, got {chosen!r}")
        for name, value in self.last.items():
            if value < 0 and name.startswith(_SIZES):
                raise ValueError(f"{name} of seed {self.seed} must be 0 at least, got {value!r}")
        for name, curve in self.curves.items():
            if name not in self.last:
                raise ValueError(f"the curve {name} of seed {self.seed} has no last value")
            if not _same(curve.values[-1], self.last[name]):
                raise ValueError(
                    f"the curve {name} of seed {self.seed} ends at {curve.values[-1]!r}, and its last value is "
                    f"{self.last[name]!r}"
                )
        return self


def _same(rounded: float, value: float) -> bool:
    return math.isclose(rounded, value, rel_tol=_AGREED) or (math.isnan(rounded) and math.isnan(value))


class Variant(Part):
    """A variant of a task: its labels as in the tracking store, and its seeds."""

    task: Name
    variant: Annotated[Text, AfterValidator(_drawn)] = Field(min_length=1)
    method: Text = Field(min_length=1, pattern="^[A-Za-z0-9_-]+$")
    steps: int = Field(gt=0, le=limits.STEPS)
    select: Text = ""
    paper_label: Text = ""
    advice: Text = ""
    device: Text = ""
    machine: Text = ""
    git_commit: Text = ""
    torch_version: Text = ""
    python_version: Text = ""
    mlflow_version: Text = ""
    compiled: Literal["", "true", "false"] = ""
    threads: str = Field("", pattern="^[0-9]{0,5}$")
    jobs_beside: str = Field("", pattern="^[0-9]{0,5}$")
    data_hash: str = Field("", pattern="^[0-9a-f]{0,64}$")
    symbols: dict[Text, Text] = Field({}, max_length=500)
    drawn_as: dict[Text, Text] = Field({}, max_length=500)
    param: dict[Text, Text] = Field({}, max_length=500)
    seeds: list[Seed] = Field(min_length=1, max_length=limits.SEEDS)

    @model_validator(mode="after")
    def _within(self) -> "Variant":
        seed, count = Counter(one.seed for one in self.seeds).most_common(1)[0]
        if count > 1:
            raise ValueError(f"seed {seed} is given {count} times")
        for one in self.seeds:
            if one.last.get(_CHOSEN, 0) > self.steps:
                raise ValueError(f"{_CHOSEN} of seed {one.seed} is beyond iteration {self.steps:,}")
            for name, curve in one.curves.items():
                if curve.steps[-1] > self.steps:
                    raise ValueError(f"the curve {name} of seed {one.seed} goes beyond iteration {self.steps:,}")
        return self


class Header(Part):
    """The first line."""

    format: Literal["bism-results"]
    version: Literal[1]
    suite: Name
    preset: Name
    label: Text = ""
    package: Text = ""
    commands: list[Text] = Field([], max_length=100)
    trained: list[Day] = Field([], max_length=2)
    tasks: list[Name] = Field(min_length=1, max_length=1000)
    variants: int = Field(gt=0, le=limits.VARIANTS)
    cells: int = Field(gt=0, le=limits.CELLS)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def written(content: Any) -> Any:
    """The content with words for what JSON has no numbers for."""
    if isinstance(content, dict):
        return {name: written(one) for name, one in content.items()}
    if isinstance(content, list):
        return [written(one) for one in content]
    if isinstance(content, float) and not math.isfinite(content):
        return "nan" if math.isnan(content) else "inf" if content > 0 else "-inf"
    return content


def thinned(steps: Sequence[int], most: int, kept: Sequence[int] = ()) -> Iterator[int]:
    """Which of a curve's points stay: the first, the last, ``kept`` ones, and of the others as many as there may be, as
    far apart as each other."""
    last = len(steps) - 1
    chosen = range(len(steps)) if len(steps) <= most else {round(i * last / (most - 1)) for i in range(most)}
    yield from sorted({*chosen, *(steps.index(step) for step in kept if step in steps)})


def rounded(value: float) -> float:
    """To as many digits as a curve has."""
    return float(f"{value:.{DIGITS - 1}e}") if math.isfinite(value) else value
