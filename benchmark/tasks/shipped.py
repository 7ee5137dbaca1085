"""The suites that come with the package, by name, and files of one's own. Needs no PyTorch."""

from pathlib import Path

from benchmark.system.limits import check_file
from bism.errors import InputError, nearest

SHIPPED = Path(__file__).parents[1] / "suites"


def shipped() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def suite_file(name_or_file: str) -> Path:
    """The file of a shipped suite, by its name, or of one's own: anything that ends in .yaml or .yml.

    Raises:
        InputError: there is none.
    """
    if name_or_file.endswith((".yaml", ".yml")):
        check_file(Path(name_or_file), "suite file")
        return Path(name_or_file)
    known = shipped()
    if name_or_file not in known:
        own = f"a suite of your own is given by its file, such as {name_or_file}.yaml"
        raise InputError(f"no shipped suite '{name_or_file}': {nearest(name_or_file, known)}; {own}")
    return known[name_or_file]
