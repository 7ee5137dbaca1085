"""Which methods there are: every estimator with an ``id`` in ``bism``, in ``baselines`` and in plug-in files."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import baselines
import bism.methods
from benchmark.data.datasets import DATASETS
from benchmark.system.limits import NAME, check_file
from benchmark.tasks.models import MODELS
from benchmark.tasks.plugins import PREFIX, importing
from bism import Estimator
from bism.contract import check_method
from bism.errors import InputError, nearest, shown


def methods(plugins: Iterable[Path] = ()) -> dict[str, type[Estimator]]:
    """All methods by id.

    Raises:
        InputError: a plug-in cannot be imported, has no method, or takes an id or a label that is taken.
    """
    modules = [bism.methods] + [
        importlib.import_module(f"baselines.{info.name}") for info in pkgutil.iter_modules(baselines.__path__)
    ]
    found, labels = dict[str, type[Estimator]](), dict[str, type[Estimator]]()
    for module in modules + [load_plugin(path) for path in plugins]:
        for estimator in _defined_in(module):
            _check(estimator, module)
            if found.setdefault(estimator.id, estimator) is not estimator:
                raise InputError(
                    f"{module.__file__}: the id '{estimator.id}' is taken by {found[estimator.id].__name__}"
                )
            labels.setdefault(estimator.label, estimator)
            if labels[estimator.label] is not estimator:
                raise InputError(
                    f"{module.__file__}: {estimator.__name__} has the label '{estimator.label}' of the method "
                    f"{labels[estimator.label].id}, and results could not be told apart: give it one of its own"
                )
    return found


def find(name: str, available: dict[str, type[Estimator]]) -> type[Estimator]:
    """The method with this id; a misspelt one raises InputError with the nearest."""
    if name not in available:
        raise InputError(
            f"no method '{name}': {nearest(name, available)}; one of your own is named by --plugin FILE.py"
        )
    return available[name]


def file_of(method: type[Estimator]) -> str:
    """The file that a method is in."""
    return str(Path(getattr(sys.modules[method.__module__], "__file__", None) or "").resolve())


def of_plugins(methods: Mapping[str, type[Estimator]], plugins: Sequence[Path]) -> list[str]:
    """The ids of the methods that plug-ins have."""
    files = {str(path.resolve()) for path in plugins}
    return [name for name, one in methods.items() if file_of(one) in files]


def drawn_as(method: type[Estimator]) -> dict[str, str]:
    """How a method is called and drawn in figures: label, family, colour, marker.

    A colour or a marker that a class has from the one it is derived from is that one's.
    """
    label = method.label.partition("{")[0].rstrip("-_([ ")  # "CD-{k}" is "CD"
    own = {name: str(vars(method).get(name, "")) for name in ("colour", "marker")}
    return {"label": label or method.id, "family": method.family, **own}


def load_plugin(path: Path) -> ModuleType:
    """Imports a file with methods, models or data sets of the user's own."""
    check_file(path, "plug-in file")
    name = f"{PREFIX}{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path.resolve()):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: a plug-in is a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = [*MODELS, *DATASETS]
    try:
        with importing(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    if not _defined_in(module) and [*MODELS, *DATASETS] == before:
        raise InputError(
            f"{path}: defines no method (an Estimator with an id), and adds no model and no data set "
            f"(see docs/adding_a_method.md)"
        )
    return module


def _check(estimator: type[Estimator], module: ModuleType) -> None:
    """What is easily forgotten in a new method."""
    lacking = [name for name in ("label", "reference") if not isinstance(getattr(estimator, name, None), str)]
    if not re.fullmatch("[A-Za-z0-9_-]+", estimator.id) or len(estimator.id) > NAME:
        raise InputError(
            f"{module.__file__}: the id of {estimator.__name__} must consist of letters, digits, '_' and '-', "
            f"at most {NAME}, got {shown(estimator.id)}"
        )
    if "__dataclass_params__" not in vars(estimator):
        lacking.append("@dataclasses.dataclass(frozen=True, kw_only=True)")
    if lacking:
        raise InputError(f"{module.__file__}: {estimator.__name__} lacks {' and '.join(lacking)}")
    try:
        check_method(estimator, Estimator)
    except InputError as error:
        raise InputError(f"{module.__file__}: {error}") from None


def _defined_in(module: ModuleType) -> list[type[Estimator]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Estimator)
        and value.__module__ == module.__name__
        and isinstance(getattr(value, "id", None), str)
        and not inspect.isabstract(value)
    ]
