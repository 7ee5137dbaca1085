"""What the shell completes beside the names of options: suites, presets, tasks, methods. Needs no PyTorch.

A line that a shell completes is half a line: whatever cannot be read gives no suggestions, and no error.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmark.system import limits, yaml_text
from benchmark.tasks.shipped import SHIPPED, shipped

_UNFINISHED = (OSError, ValueError, yaml.YAMLError, AttributeError, TypeError, KeyError)
Completer = Callable[..., list[str]]


def install(parser: argparse.ArgumentParser) -> None:
    """Answers the shell where it asks (and ends there), with these completers for the options of all commands."""
    import argcomplete

    _attach(parser)
    argcomplete.autocomplete(parser)


def _attach(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _attach(command)
        elif action.dest in _COMPLETERS:
            action.completer = _COMPLETERS[action.dest]  # type: ignore[attr-defined]  # argcomplete's


def _suites(prefix: str, **_: Any) -> list[str]:
    files = sorted(str(file) for file in Path().glob(f"{prefix}*.y*ml"))
    return [*shipped(), *files]


def _presets(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return list(_content(parsed_args).get("presets", {}))


def _tasks(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return list(_content(parsed_args).get("tasks", {}))


def _methods(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Those that the suite trains, in whatever preset."""
    try:
        presets = _content(parsed_args).get("presets", {}).values()
        tasks = [task for preset in presets for task in preset["tasks"].values()]
        return sorted({entry["method"] for task in tasks for entry in task["variants"]})
    except _UNFINISHED:
        return []


def _content(options: argparse.Namespace) -> Mapping[str, Any]:
    """The suite that the line names, as it stands in its file."""
    name = str(getattr(options, "suite", None) or "grbm")
    file = Path(name) if name.endswith((".yaml", ".yml")) else SHIPPED / f"{name}.yaml"
    try:
        found = yaml_text.read(limits.read_file(file, yaml_text.BYTES, "suite file").decode("utf-8-sig"))
    except _UNFINISHED:
        return {}
    return found if isinstance(found, dict) else {}


_COMPLETERS: dict[str, Completer] = {"suite": _suites, "preset": _presets, "tasks": _tasks, "methods": _methods}
