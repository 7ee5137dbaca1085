"""A line that cannot be read is answered by one message, as all else that is wrong."""

import argparse
from collections.abc import Iterator

import pytest

from benchmark.commands.cli import main as benchmark
from benchmark.commands.options import parser as parser_of_runs
from benchmark.system.arguments import Parser
from benchmark.tracking.store import DEFAULT_STORE, named, resolve
from bism.errors import InputError, nearest
from reports import frame
from reports.__main__ import _parser as _parser_of_reports
from reports.__main__ import main as reports


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """Every command with the words that call it."""
    assert isinstance(parser, Parser)
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from commands(below, (*words, word))


COMMANDS = {" ".join((one.prog.split()[2], *words)): (one, words) for parser in (parser_of_runs(), _parser_of_reports())
            for words, one in commands(parser)}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_takes_an_empty_value(name: str) -> None:
    parser, words = COMMANDS[name]
    whole = parser_of_runs() if name.startswith("benchmark") else _parser_of_reports()
    taking = [one for one in parser._actions if one.nargs != 0 and one.nargs != argparse.PARSER]
    for action in taking:
        for empty in ("", "  "):
            line = [*words, *([f"{action.option_strings[-1]}={empty}"] if action.option_strings else [empty])]
            with pytest.raises(InputError) as error:
                whole.parse_args(line)
            called = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
            assert str(error.value) == f"{called} must not be empty, got {empty!r}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "the following arguments are required: command; `"),
        ("run", "the following arguments are required: --suite; `"),
        ("go", "no command 'go': valid: compare, data, delete, doctor"),
        ("statu", "no command 'statu': did you mean 'status'? valid: "),
        ("tune lst", "no command 'lst': did you mean 'list'? valid: export, list"),
        ("tune --run-dir x --suite grbm", "tune takes no --run-dir: did you mean '--pruner'? valid: "),
        ("data nope", "no command 'nope': valid: download, list, verify, where"),
        ("delete --states nope", "--states cannot be 'nope': did you mean 'stopped'? valid: damaged, diverged, "),
        ("delete --states done nope", "--states cannot be 'nope': "),
        ("run --suite grbm --rerun nope", "--rerun cannot be 'nope': valid: all, damaged"),
        ("run --suite grbm --log-models some", "--log-models cannot be 'some': did you mean 'none'? valid: all, "),
        ("run --suite grbm --executor slurm", "--executor cannot be 'slurm': valid: local, ray"),
        ("tune --sampler nope", "--sampler cannot be 'nope': did you mean 'tpe'? valid: nsga2, qmc, random, tpe"),
        ("tune --suite grbm --timeout -1s", "--timeout must look like 90s, 10m or 1.5h, got '-1s'"),
        ("tune --suite grbm --budget -.5h", "--budget must look like 90s, 10m or 1.5h, got '-.5h'"),
        ("run --suite grbm --seeds -1-3", "--seeds must look like 0-9"),
        ("run --suite grbm --steps -1", "--steps must be at least 1, got -1"),
        ("run --suite grbm --checkpoint-every -1e3", "--checkpoint-every must be a positive number, got -1000"),
        ("run --suite grbm --steps", "--steps: expected one argument; `"),
        ("run --suite grbm --step 5 --preset", "--preset: expected one argument; `"),
        ("run --suite", "--suite: expected one argument; `"),
        ("run --suite grbm --seed_s 1", "run takes no --seed_s: did you mean '--seeds'? valid: --seeds"),
        ("status now", "status takes no now: valid: --"),
        ("run --suite grbm --plugin a.py b.py", "run takes no b.py: --plugin takes one value, or --plugin again for "),
        ("run --suite grbm rbm", "run takes no rbm: --suite takes one value\n"),
        ("tune --dry-run", "tune takes no --dry-run: valid: --"),
        ("tune list --suite grbm", "tune list takes no --suite: did you mean '--storage'? valid: --storage"),
        ("list --suite grbm", "list takes no --suite: its value stands alone, as in `"),
        ("list --suite=grbm", "list takes no --suite=grbm: its value stands alone, as in `"),
        ("run --suite grbm --dry-run=yes", "--dry-run: ignored explicit argument 'yes'; `"),
        ("run --s grbm", "ambiguous option: --s could match --suite, --seeds, --steps"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert "usage" not in err
    if said.endswith("; `"):
        assert err.endswith("--help` says what there is\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("build --format docx", "--format cannot be 'docx': valid: html, latex, md, pdf"),
        ("build --nope", "build takes no --nope: "),
        ("scaling", "the following arguments are required: records; `"),
        ("buidl", "no command 'buidl': did you mean 'build'? valid: build, claims, export, scaling"),
    ],
)
def test_the_reports_do_too(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reports(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err[: len(said) + 7]) == ("", f"error: {said}")
    assert err.count("\n") == 1


def test_of_many_names_those_alike_are_listed_and_of_few_all() -> None:
    many = [f"board-{place}" for place in range(30)]
    alike = "did you mean 'bidsm'? valid: bidsm, bissm"
    assert nearest("bidms", ["bidsm", "bissm", *many]) == f"{alike}, ... (32 in all)"
    assert nearest("bidms", ["bidsm", "bissm", "cd"]) == f"{alike}, cd"
    assert nearest("xyz", many) == f"valid: {', '.join(sorted(many))}"


def test_an_empty_variable_is_not_set_and_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", " "):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
        assert named(None) == DEFAULT_STORE
        for refused in (named, resolve, lambda uri: frame(tracking_uri=uri)):
            with pytest.raises(InputError, match="the address of the tracking store must not be empty"):
                refused(value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " none ")
    assert named(None) == "none"
