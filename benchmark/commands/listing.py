"""The command ``list``: what suites, tasks, presets and methods there are."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.data.datasets import SAMPLE
from benchmark.system import tables
from benchmark.system.invocation import call
from benchmark.tasks.plan import Choices, variants
from benchmark.tasks.registry import drawn_as
from benchmark.tasks.shipped import shipped
from benchmark.tasks.suite import ModelEntry, Preset, PresetTask, Suite, Task, Variant, expand
from benchmark.tasks.suite_file import load_suite
from bism import Estimator
from bism.hyperparameters import specs

Methods = dict[str, type[Estimator]]


def everything(console: Console, methods: dict[str, type[Estimator]]) -> None:
    """The shipped suites with their tasks and presets, and the methods."""
    for name in shipped():
        suite = load_suite(name, methods)
        tables.say(console, f"suite {name}: {suite.description}", bold=f"suite {name}:")
        for task, content in suite.tasks.items():
            tables.say(console, f"task {task}: {content.description}", 2)
        for preset in suite.presets:
            tables.say(console, f"preset {preset}{_default(suite, preset)}: {suite.presets[preset].description}", 2)
    table = Table("method", "reference", "hyper-parameters", title="methods", title_justify="left", show_lines=True)
    for method in methods.values():
        table.add_row(
            f"{method.id}\n{drawn_as(method)['label']}", Text(method.reference), Text("\n".join(_own(method)))
        )
    tables.show(console, table)
    console.print("every method has, unless it names another value:")
    for line in _hyper(Estimator):
        tables.say(console, line, 2)
    console.print(f"one suite with its variants: {call('benchmark', 'list SUITE')}", soft_wrap=True)


def spaces(console: Console, methods: Methods) -> None:
    """Where tuning looks for each hyper-parameter."""
    from benchmark.tasks import spaces as declared  # Optuna, which nothing else here needs

    table = Table("method", "hyper-parameter", "", "searched", title="search spaces", title_justify="left")
    for method in methods.values():
        for key, where in declared.declared(method).items():
            table.add_row(method.id, key, specs(method)[key].symbol, declared.described(where))
    tables.show(console, table)


def one(console: Console, suite: Suite, methods: Methods) -> None:
    """A suite whole: its tasks, and of every preset what it trains."""
    tables.say(console, f"suite {suite.suite}: {suite.description}", bold=f"suite {suite.suite}:")
    for name, task in suite.tasks.items():
        tables.say(console, f"task {name}: {task.description}", 2)
        tables.say(console, _setting(task), 4)
    for name, preset in suite.presets.items():
        label = f" ({preset.label})" if preset.label else ""
        said = f"preset {name}{_default(suite, name)}: {preset.description}{label}"
        tables.say(console, said, bold=f"preset {name}{_default(suite, name)}:")
        tables.show(console, _trained(preset, methods))
        for task_name, settings in preset.tasks.items():
            if settings.without:
                tables.say(console, f"{task_name}: {_without(settings.without)}", 2)


def _default(suite: Suite, preset: str) -> str:
    return " (default)" if preset == suite.default_preset else ""


def _setting(task: Task) -> str:
    """Data, model, batch and measures of a task."""
    data = f"{task.data.name or task.data.file}"
    if task.data.binarize == SAMPLE:
        data += " (binary, drawn once with the values as probabilities)"
    elif task.data.binarize is not None:
        data += f" (1 above {task.data.binarize:g}, else 0)"
    if task.data.held_out is not None:
        data += f" (trained without class {task.data.held_out})"
    rules = {"last": "at the last iteration", "last_tenth": "by the mean of the last tenth of evaluations"}
    measured = ", ".join(task.metrics) or "nothing while it trains"
    said = f"ranked {rules.get(task.rule, f'at the best {task.select}')}"
    return f"data {data}, {_model(task.model)}, batches of {task.batch_size}, measured: {measured}; {said}"


def _model(entry: ModelEntry) -> str:
    return " ".join([f"model {entry.name}", *(f"{name}={size}" for name, size in entry.sizes.items())])


def _trained(preset: Preset, methods: Methods) -> Table:
    table = Table("task", "variant", "seeds", "set")
    table.add_column("iterations", justify="right")
    seeds = tables.ranges(preset.seeds)
    for task, settings in preset.tasks.items():
        named = [variant for _, _, variant in variants(settings, Choices(), methods)]
        said = [values for entry in settings.variants for values in _expanded(entry, settings, methods)]
        for name, values in zip(named, said, strict=True):
            table.add_row(task, Text(name), seeds, Text(values), f"{settings.steps:,}")
    return table


def _expanded(entry: Variant, settings: PresetTask, methods: Methods) -> list[str]:
    """The values of each variant that an entry stands for."""
    found = []
    for values in expand(entry, settings.all, methods[entry.method]):
        shown = {specs(methods[entry.method])[key].symbol or key: value for key, value in values.items()}
        extra: dict[str, Any] = {"data_noise": entry.data_noise} if entry.data_noise else {}
        extra |= {"model": entry.model.name, **entry.model.sizes} if entry.model else {}
        found.append(", ".join(f"{key}={value}" for key, value in {**shown, **extra}.items()))
    return found


def _without(reasons: Mapping[str, str]) -> str:
    return "without " + "; ".join(f"{method}: {reason}" for method, reason in reasons.items())


def _own(method: type[Estimator]) -> list[str]:
    """What a method has, and every method has not."""
    shared = _hyper(Estimator)
    return [line for line in _hyper(method) if line not in shared]


def _hyper(method: Any) -> list[str]:
    """Each hyper-parameter with its symbol, default, other choices and meaning."""
    defaults = {field.name: field.default for field in dataclasses.fields(method)}
    found = []
    for name, spec in specs(method).items():
        symbol = f" ({spec.symbol})" if spec.symbol not in (None, name) else ""
        others = ", ".join(str(one) for one in spec.choices or () if one != defaults[name])
        found.append(f"{name}{symbol} = {defaults[name]}{f' (or {others})' if others else ''}: {spec.help}")
    return found
