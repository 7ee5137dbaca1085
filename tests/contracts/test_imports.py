"""Imports go bism <- baselines <- benchmark <- reports and never back."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bism

ROOT = Path(__file__).parents[2]
ORDER = ["bism", "baselines", "benchmark", "reports"]


def imported(source: str) -> set[str]:
    """Modules that a source file imports, anywhere in it, by their full names; relative imports as ``.``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module))
            if node.module in ORDER and not node.level:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names |= {str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return names


def imports_of(package: str) -> dict[Path, set[str]]:
    """What every file of a package imports; skips the test where there is none."""
    files = sorted((ROOT / package).rglob("*.py"))
    if not files:
        pytest.skip(f"no {package} here")
    return {file: imported(file.read_text()) for file in files}


def module_name(file: Path) -> str:
    """Of a source file: ``bism.bias.point``; of a package's ``__init__`` the package's."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top(names: set[str]) -> set[str]:
    """The packages that the modules are in."""
    return {name.split(".")[0] for name in names if name != "."}


@pytest.mark.parametrize("package", ORDER)
def test_imports_never_go_back(package: str) -> None:
    later = set(ORDER[ORDER.index(package) + 1 :]) | {"tests"}
    for file, names in imports_of(package).items():
        assert not top(names) & later, f"{file} imports {top(names) & later}"


@pytest.mark.parametrize("package", ["bism", "baselines"])
def test_imports_go_in_no_circle(package: str) -> None:
    """Those within functions and those for annotations count; a name that is taken from the package is its own."""
    files = {module_name(file): names for file, names in imports_of(package).items()}
    graph = dict[str, set[str]]()
    for module, names in files.items():
        of_the_package = {name for name in names if name.startswith(f"{package}.")}
        graph[module] = {name if name in files else package for name in of_the_package}
    list(TopologicalSorter(graph).static_order())  # raises an error that names the circle


def test_rooms_import_from_those_below_alone() -> None:
    """As docs/architecture.md draws them."""
    drawn = [line.split("`")[1] for line in (ROOT / "docs/architecture.md").read_text().splitlines() if "| `" in line]
    rooms = [name for name in drawn if (ROOT / "benchmark" / name).is_dir()]
    assert set(rooms) == {path.parent.name for path in (ROOT / "benchmark").glob("*/__init__.py")}
    for file, names in imports_of("benchmark").items():
        room = file.relative_to(ROOT / "benchmark").parts[0]
        above = rooms[: rooms.index(room)] if room in rooms else []
        back = {name for name in names if f"{name}.".startswith(tuple(f"benchmark.{other}." for other in above))}
        assert not back, f"{file} imports {back}"


def test_models_that_were_logged_before_there_were_rooms_find_what_they_import() -> None:
    from benchmark import models
    from benchmark.tasks.models import MODELS, build_model

    assert (models.MODELS, models.build_model) == (MODELS, build_model)


@pytest.mark.parametrize("package", ["bism", "baselines"])
def test_the_methods_need_torch_alone(package: str) -> None:
    allowed = {"bism", "baselines", "torch"}  # bism <- baselines is held above
    for file, names in imports_of(package).items():
        others = top(names) - allowed - set(sys.stdlib_module_names)
        assert not others, f"{file} imports {others}"


@pytest.mark.parametrize("package", ORDER[:3])
def test_mlflow_is_imported_by_the_tracking_modules_alone(package: str) -> None:
    for file, names in imports_of(package).items():
        tracking = package == "benchmark" and file.parent.name == "tracking"
        assert tracking or "mlflow" not in top(names), f"{file} imports mlflow"


def test_what_torch_promises_nothing_about_lies_behind_one_module() -> None:
    private = ("torch._", "torch.fx.experimental", "torch.fx.passes", "torch.distributed._")
    for package in ORDER[:3]:
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.name == "private_torch.py":
                continue
            source = file.read_text()
            attributes = {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
            named = {name for name in imported(source) | attributes if name.startswith(private)}
            named.discard("torch.__version__")
            assert not named, f"{file}: {named}"


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; import bism.engine, bism.cohort, baselines; "
        "assert not [name for name in sys.modules if name.startswith('torch._inductor.compile_fx')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listing_the_suites_loads_neither_compiler_nor_statistics() -> None:
    code = (
        "import sys; from benchmark.commands.cli import main; "
        "assert main(['list']) == 0; assert not {'torch._dynamo', 'scipy.stats', 'mlflow'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_what_is_not_there_is_said_before_what_takes_long_is_imported() -> None:
    lines = {
        "benchmark.commands.cli": (
            "compare --suite grbm --methods cd --plugin nosuch.py",
            "compare --suite grbm --methods cd --reference nosuch",
            "run --suite grmb",
            "run --suite nosuch.yaml",
        ),
        "reports.__main__": ("claims --reference nosuch", "build --reference nosuch"),
    }
    for module, of in lines.items():
        code = f"import sys; from {module} import main; assert [main(one.split()) for one in {of}] == {[2] * len(of)}; "
        code += "assert not {'torch', 'mlflow'} & {*sys.modules}"
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
        assert said.count("\n") == len(of)


def test_reports_do_without_torch() -> None:
    for file, names in imports_of("reports").items():
        assert "torch" not in top(names), f"{file} imports torch"
    code = "import reports.document, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in bism.__all__:
        assert getattr(bism, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bism.nonsense


def test_imports_are_found_wherever_they_are() -> None:
    source = (
        "import a.b as c\nfrom d import e\n"
        "def f():\n    import mlflow\n    from benchmark import plan\n"
        "    __import__('x.y'); importlib.import_module('z')\n"
    )
    assert imported(source) == {"a.b", "d", "mlflow", "benchmark", "benchmark.plan", "x.y", "z"}
    assert imported("from . import x") == {"."}
