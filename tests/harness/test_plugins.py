"""Files with methods of one's own: what makes them one, and what each says that lacks something."""

from pathlib import Path

import pytest

from benchmark.tasks import registry
from bism import InputError
from tests.harness.tiny import TINY, command, write

METHODS = registry.methods()
PLUGIN = """\
import dataclasses
from baselines.cd import CD

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    '''Mine.'''
    id = "mine"
    label = "Mine"
    reference = "here"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import dataclasses", "import nothing_like_it", "{0}: cannot be imported: "
         "ModuleNotFoundError: No module named 'nothing_like_it'"),
        (PLUGIN, "x = 1\n", "{0}: defines no method (an Estimator with an id), and adds no model and "
         "no data set (see docs/adding_a_method.md)"),
        ('    id = "mine"\n', "", "{0}: the id 'cd' is taken by CD"),
        ('id = "mine"', 'id = "bidsm"', "{0}: the id 'bidsm' is taken by BiDSM"),
        ("@dataclasses.dataclass(frozen=True, kw_only=True)\n", "",
         "{0}: Mine lacks @dataclasses.dataclass(frozen=True, kw_only=True)"),
        ("(frozen=True, kw_only=True)", "",
         "{0}: cannot be imported: TypeError: cannot inherit non-frozen dataclass from a frozen one"),
        ('    label = "Mine"\n', "    label = None\n", "{0}: Mine lacks label"),
        ('    label = "Mine"\n', "", "{0}: Mine has the label 'CD-{{k}}' of the method cd, and results could not be "
         "told apart: give it one of its own"),
    ],
)  # fmt: skip
def test_a_bad_plug_in(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert PLUGIN.count(old) == 1
    plugin = write(tmp_path, PLUGIN.replace(old, new), "mine.py")
    with pytest.raises(InputError) as error:
        registry.methods([plugin])
    assert str(error.value) == message.format(plugin)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "passes = property(lambda self: 'x')",
            "mine: ``passes`` must be a number above 0, 1,000,000 at most, got 'x'",
        ),
        ("unrolled = property(lambda self: -1)", "mine: ``unrolled`` must be a whole number from 0 to "),
        ("name = property(lambda self: 5)", "mine: ``name`` must be a text, got 5"),
        ("__doc__ = '  '", ""),
    ],
)
def test_what_a_plug_in_says_of_itself_is_read_before_anything_trains(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, TINY.replace("method: cd", "method: mine"))
    write(tmp_path, PLUGIN + f"    {line}\n", "mine.py")
    said = command(
        tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--methods", "mine", "--seeds", "0", "--dry-run"
    )
    assert (said.code, said.err[:7]) == ((2, "error: ") if message else (0, ""))
    assert message in said.err


def test_a_good_plug_in(tmp_path: Path) -> None:
    found = registry.methods([write(tmp_path, PLUGIN, "mine.py")])
    assert set(found) - set(METHODS) == {"mine"}
    assert found["mine"]().name == "Mine"
    assert set(registry.methods()) == set(METHODS)
