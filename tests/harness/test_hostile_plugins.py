"""Code of a user's own that does not raise but exits, interrupts, floods: it takes only itself along, in one line."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmark.system import output
from benchmark.tasks import plugins, registry
from benchmark.tasks.plugins import importing
from bism import InputError
from bism.errors import described, out_of_memory
from tests.harness.faults import ENVIRONMENT
from tests.harness.tiny import Said, cell, command, replaced, states, write

METHODS = '''\
import dataclasses, os, sys
from baselines.cd import CD

settings = dataclasses.dataclass(frozen=True, kw_only=True)


class Silent(Exception):
    def __str__(self):
        raise KeyError("no text")


@settings
class Exits(CD):
    """Leaves."""
    id, label, reference = "exits", "Exits", "here"

    def loss(self, *arguments):
        sys.exit(0)


@settings
class Interrupts(CD):
    """Pretends that Ctrl-C was pressed."""
    id, label, reference = "interrupts", "Interrupts", "here"

    def loss(self, *arguments):
        raise KeyboardInterrupt


@settings
class Closes(CD):
    """Raises what generators end by."""
    id, label, reference = "closes", "Closes", "here"

    def loss(self, *arguments):
        raise GeneratorExit


@settings
class Mute(CD):
    """Its error has no text."""
    id, label, reference = "mute", "Mute", "here"

    def loss(self, *arguments):
        raise Silent


@settings
class Long(CD):
    """Its error has a long text."""
    id, label, reference = "long", "Long", "here"

    def loss(self, *arguments):
        raise ValueError("x" * 3_000_000)


@settings
class Prints(CD):
    """Prints from Python and from C, more than anybody reads, and trains."""
    id, label, reference = "prints", "Prints", "here"

    def init_carry(self, *arguments):
        print("the beginning")
        for _ in range(50):
            print("y" * 100_000)
        os.write(1, b"from C\\\\n")
        print("the \\\\udc80 end", file=sys.stderr)
        return {}
'''
VARIANTS = "          - {method: cd}\n          - {method: bidsm}\n"
WRONG = {
    "Exits": "SystemExit: 0",
    "Interrupts": "KeyboardInterrupt",
    "Closes": "GeneratorExit",
    "Mute": "Silent: (its text cannot be made: KeyError)",
    "Long": "ValueError: " + "x" * 500 + "... (3,000,000 characters in all)",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    folder = tmp_path_factory.mktemp("hostile")
    methods = [*map(str.lower, WRONG), "prints"]
    write(folder, replaced((VARIANTS, "".join(f"          - {{method: {name}}}\n" for name in methods))))
    write(folder, METHODS.replace("\\\\", "\\"), "mine.py")
    return folder, command(folder, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--seeds", "0")


def test_whatever_a_loss_raises_fails_its_cell_alone(ran: tuple[Path, Said]) -> None:
    folder, said = ran
    assert (said.code, said.err) == (1, "")
    assert states(folder) == {**{(name, 0): "failed" for name in WRONG}, ("Prints", 0): "done"}
    for name, reason in WRONG.items():
        (line,) = [one for one in said.out.splitlines() if one.startswith(f"failed: board {name} ")]
        where = (cell(folder, name, 0).path / "error.txt").relative_to(folder)
        assert line == f"failed: board {name} seed 0: {reason}; see {where}"
    assert len(said.out) < 10_000


def test_a_traceback_is_kept_whole_as_far_as_anybody_reads(ran: tuple[Path, Said]) -> None:
    folder, _ = ran
    assert "in loss\n    sys.exit(0)" in (cell(folder, "Exits", 0).error or "")
    assert "Silent: <exception str() failed>" in (cell(folder, "Mute", 0).error or "")
    long = cell(folder, "Long", 0).error or ""
    assert "mine.py" in long
    assert "[... left out ...]" in long
    assert output.LIMIT < len(long) < output.LIMIT + 100


def test_what_a_job_prints_is_in_a_file_and_not_passed_on(ran: tuple[Path, Said]) -> None:
    folder, said = ran
    file = cell(folder, "Prints", 0).output
    (line,) = [one for one in said.out.splitlines() if "what it printed is in" in one]
    assert line.startswith(f"board Prints: what it printed is in {file.relative_to(folder)} (")
    content = file.read_text()
    assert len(content) < output.LIMIT + 1000
    assert content.startswith("the beginning\nyyy")
    assert "[... left out: of what is printed the first and the last 524,288 bytes are kept ...]" in content
    assert content.endswith("y\nfrom C\nthe \\udc80 end\n")
    assert not cell(folder, "Exits", 0).output.exists()  # which printed nothing


# --- when it is imported ----------------------------------------------------------------------------------------------


THREAD = "import threading\none = threading.Thread(target=lambda: 1 / 0)\none.start()\n"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise SystemExit", "SystemExit\n"),
        ("raise KeyboardInterrupt('me')", "KeyboardInterrupt: me"),
        ("raise GeneratorExit", "GeneratorExit\n"),
        ("class E(Exception):\n  def __str__(self): raise E\nraise E", "E: (its text cannot be made: E)"),
        ("class B(BaseException): pass\nraise B(7)", "B: 7"),
        ("raise ValueError('z' * 10**6)", f"ValueError: {'z' * 500}... (1,000,000 characters in all)"),
        ("(" * 300, "SyntaxError: too many nested parentheses"),
        ("x = '\0'", "SyntaxError: source code string cannot contain null bytes"),
        ("import os; os._exit(3)", "ProcessEnded: os._exit(3)\n"),
        ("import os; os.abort()", "ProcessEnded: os.abort()\n"),
        ("import sys; sys.stdout.close()", "it closes sys.stdout, to which the command prints\n"),
        ("import sys; sys.stderr.detach()", "it closes sys.stderr, to which the command prints\n"),
        (THREAD + "one.join()", "a thread that it has started raised ZeroDivisionError: division by zero\n"),
    ],
    ids=range(14),
)
def test_a_plug_in_that_ends_its_import_somehow(tmp_path: Path, code: str, cause: str) -> None:
    write(tmp_path)
    write(tmp_path, code + "\n", "mine.py")
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: mine.py: cannot be imported: {cause}")
    assert len(said.err.splitlines()) == 1


METHOD = """\
import dataclasses
from baselines.cd import CD

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    id, label, reference = "mine", "Mine", "here"
"""


def test_what_a_plug_in_puts_in_the_place_of_the_streams_is_left_behind(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, METHOD + "import io, sys\nsys.stdout = sys.stderr = io.StringIO()\n", "mine.py")
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert "4 cells, 0 done already" in said.out


def test_a_process_that_a_plug_in_forks_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    def as_forked() -> None:
        with importing(Path("mine.py")):
            monkeypatch.setattr(os, "getpid", lambda: 1)
            os._exit(4)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(InputError, match=re.escape("mine.py: cannot be imported: Ended: 4")):
        as_forked()
    assert os._exit is end


@pytest.mark.long
@pytest.mark.parametrize("code", ["os.close(1)", "os.dup2(os.open('x', os.O_CREAT), 2)", "sys.__stderr__.close()"])
def test_a_plug_in_that_closes_what_the_command_prints_to(tmp_path: Path, code: str) -> None:
    write(tmp_path, f"import os, sys\n{code}\n", "mine.py")
    said = subprocess.run(
        [sys.executable, "-m", "benchmark", "list", "--plugin", "mine.py"], cwd=tmp_path, env=ENVIRONMENT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: mine.py: cannot be imported: it closes ")
    assert said.stderr.count("\n") == 1


def test_a_thread_of_a_plug_in_that_fails_later_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    late = "import threading\ngo = threading.Event()\ndef work():\n    go.wait()\n    1 / 0\n"
    file = write(tmp_path, METHOD + late + "one = threading.Thread(target=work)\none.start()\n", "mine.py")
    module = registry.load_plugin(file)
    module.go.set()
    module.one.join()
    line = len(METHOD.splitlines()) + 5
    assert capsys.readouterr().err == (
        f"warning: {file}:{line}: in work: ZeroDivisionError: division by zero (in a thread)\n"
    )


def test_it_is_said_what_takes_long_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-in waits until it is."""
    monkeypatch.setattr(plugins, "_SLOW_SECONDS", 0.01)
    write(tmp_path)
    write(tmp_path, METHOD + "import sys\nwhile not sys.stderr.getvalue():\n    pass\n", "mine.py")
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--dry-run")
    assert said.code == 0
    assert said.err == "mine.py is being imported, for 0.01 s now; Ctrl-C ends it\n"


IN_JOBS = (
    METHOD
    + """
import multiprocessing, os, signal
if multiprocessing.parent_process():
    WHAT
"""
)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("os._exit(3)", "InputError: mine.py: cannot be imported: ProcessEnded: os._exit(3); see "),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "the process ended with signal SIGKILL while mine.py was "
                     "imported; see ", marks=pytest.mark.long),
        pytest.param("signal.pause()", "gave no sign of life for 0.05 minutes while mine.py was imported and was ended "
                     "(--stall-limit); see ", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_a_job_that_ends_at_its_import_names_the_plug_in(tmp_path: Path, what: str, reason: str) -> None:
    write(tmp_path)
    write(tmp_path, IN_JOBS.replace("WHAT", what), "mine.py")
    said = command(
        tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--seeds", "0", "--methods", "cd",
        "--stall-limit", "0.05",
    )  # fmt: skip
    assert (said.code, said.err) == (1, "")
    (line,) = [one for one in said.out.splitlines() if one.startswith("failed: board CD-1 ")]
    assert line.startswith(f"failed: board CD-1 seed 0: {reason}")


def test_a_real_ctrl_c_while_a_plug_in_is_imported(tmp_path: Path) -> None:
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        write(tmp_path)
        write(tmp_path, f"import os, signal, time\nos.kill({os.getpid()}, signal.SIGINT)\ntime.sleep(60)\n", "mine.py")
        said = command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py")
        assert (said.code, said.err) == (130, "interrupted while mine.py was imported\n")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


PLANNED = '''\
import dataclasses, sys
from baselines.cd import CD

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(CD):
    """Mine."""
    id, label, reference = "mine", "Mine", "here"

    def unsupported(self, model):
        WHAT
'''


@pytest.mark.parametrize(
    ("what", "cause"), [("sys.exit(0)", "SystemExit: 0"), ("return 1 / 0", "ZeroDivisionError: division by zero")]
)
def test_a_plug_in_that_breaks_the_plan_is_named_with_its_line(tmp_path: Path, what: str, cause: str) -> None:
    write(tmp_path, replaced(("{method: cd}", "{method: mine}")))
    file = write(tmp_path, PLANNED.replace("WHAT", what), "mine.py")
    said = command(tmp_path, "run", "--suite", "tiny.yaml", "--plugin", "mine.py", "--dry-run")
    assert (said.code, said.err) == (2, f"error: {file}:10: in unsupported: {cause}\n")


@pytest.mark.parametrize("name", ["../mine", "my method", "", "a.b", "x" * 101])
def test_an_id_that_is_none(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, PLANNED.replace('"mine"', repr(name)).replace("WHAT", "return None"), "mine.py")
    with pytest.raises(InputError, match="the id of Mine must consist of letters, digits, '_' and '-'"):
        registry.methods([file])


# --- the parts --------------------------------------------------------------------------------------------------------


def test_an_error_that_causes_itself_is_looked_at_once() -> None:
    error = ValueError("me")
    error.__cause__ = error
    assert not out_of_memory(error)
    assert described(error) == "ValueError: me"


def test_a_file_is_cut_again_and_again_and_keeps_its_ends(tmp_path: Path) -> None:
    file = tmp_path / "output.txt"
    for number in range(8):
        with file.open("ab") as end:
            end.write(b"%d" % number * 400_000)
        output.cut(file)
    content = file.read_bytes()
    assert content.startswith(b"0" * 400_000 + b"1" * 124_288 + b"\n[... left out")
    assert content.endswith(b" kept ...]\n" + b"6" * 124_288 + b"7" * 400_000)
    assert content.count(b"left out") == 1
    assert output.kept(file) == f"{file} ({len(content):,} bytes)"
    file.write_bytes(b"")
    assert output.kept(file) is None
    assert not file.exists()
