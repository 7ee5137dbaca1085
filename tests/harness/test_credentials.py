"""Passwords are kept out of all that is written, in whatever form they are given."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

from benchmark.commands.cli import main
from benchmark.records.rundir import Record, RunDir
from benchmark.system import credentials
from benchmark.system.credentials import clean, kept_out, remember, unsecret
from benchmark.tracking.store import resolve
from bism.errors import InputError

RAW = "S3CRE@T/w:r?d#x"  # as somebody types it who does not know what an address may have
WRITTEN = "S3CRE%40T%2Fw%3Ar%3Fd%23x"


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_known", set())


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://alice:%@127.0.0.1:1", "http://127.0.0.1:1"),
        ("https://alice:%@host:5000/prefix", "https://host:5000/prefix"),
        ("postgresql+psycopg2://alice:%@host/db", "postgresql+psycopg2://host/db"),
        ("mysql+pymysql://alice:%@host:3306/db?charset=utf8", "mysql+pymysql://host:3306/db?charset=utf8"),
        ("--tracking-uri=http://alice:%@host", "--tracking-uri=http://host"),
        ("http:/alice:%@host", "http:/host"),
        ("alice:%@host:5000", "host:5000"),
        ("http://%@host", "http://host"),
    ],
)
def test_user_and_password_go_from_an_address(address: str, shown: str) -> None:
    for password in (RAW, WRITTEN, "plain", "a@b", "a/b", "1/2", "a:b", "a#b", "a?b"):
        assert unsecret(address.replace("%", password)) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://host/db?user=alice&password=%", "postgresql://host/db"),
        ("postgresql://host/db?sslmode=require&password=%", "postgresql://host/db?sslmode=require"),
        ("postgresql://host/db?user=alice@corp.org&password=%", "postgresql://host/db"),
        ("http://host/prefix?token=%", "http://host/prefix"),
        ("http://host/?api_key=%", "http://host/"),
    ],
)
def test_credentials_in_a_query_go(address: str, shown: str) -> None:
    for password in (WRITTEN, "plain", "a&b", "a=b", "a?b"):
        assert unsecret(address.replace("%", password)) == shown


def test_what_might_be_a_password_is_hidden_rather_than_shown() -> None:
    assert unsecret("postgresql://alice:s3cre?t=x@host/db") == "postgresql://***"


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////home/me@work/mlflow.db",
        "sqlite:///a:b@c.db",
        "file:///home/me@work",
        "http://localhost:5000/prefix",
        "postgresql://host:5432/db?sslmode=require",
        "/home/me@work/studies.journal",
        "bidsm.K=10",
        "none",
    ],
)
def test_all_else_stays_as_it_is(address: str) -> None:
    assert unsecret(address) == address
    assert clean(address) == address


def test_a_password_is_found_in_any_text_and_in_any_spelling() -> None:
    remember(f"http://alice:{WRITTEN}@host:5000")
    for said in (WRITTEN, RAW):
        assert clean(f"cannot log in with '{said}' as alice") == "cannot log in with '***' as alice"
    assert clean(f"API request to http://alice:{WRITTEN}@host:5000/api failed") == (
        "API request to http://host:5000/api failed"
    )


def test_pairs_and_headers_are_cleaned_without_being_known() -> None:
    assert clean("dsn: host=a password=geheim user=b") == "dsn: host=a password=*** user=b"
    assert clean("{'Authorization': 'Bearer eyJh.b-c_d'}") == "{'Authorization': 'Bearer ***'}"
    assert clean("at postgresql://alice:geheim@host/db.") == "at postgresql://host/db."


def test_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheimes")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "zeichen")
    monkeypatch.setenv("PWD", "/somewhere")
    assert clean("geheimes zeichen /somewhere") == "*** *** /somewhere"


def test_a_short_password_is_no_word_to_look_for() -> None:
    remember("http://alice:all@host", "http://alice:secret@host")
    assert clean("all done at http://alice:all@host") == "all done at http://host"
    assert clean("/home/secrets and secret") == "/home/secrets and ***"


def test_an_error_that_nobody_catches_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError(f"no answer from http://alice:{RAW}@host")
    except RuntimeError as error:
        credentials.tell_uncaught(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.endswith("\nRuntimeError: no answer from http://host\n")


def test_what_a_command_prints_is_cleaned() -> None:
    out, err = io.StringIO(), io.StringIO()
    address = f"http://alice:{WRITTEN}@host"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), kept_out(address):
        print(f"connecting as {RAW}")
        print(address, file=sys.stderr)
        assert not sys.stdout.isatty()
    assert (out.getvalue(), err.getvalue()) == ("connecting as ***\n", "http://host\n")


@pytest.mark.parametrize(
    "address", [f"http://alice:{RAW}@host", f"postgresql://alice:{RAW}@host/db", "http://alice:[x@host"]
)
def test_a_password_in_which_an_address_ends_is_refused_without_being_said(address: str) -> None:
    with pytest.raises(InputError, match=r"written with %40|no address") as refused:
        resolve(address)
    assert not any(part in str(refused.value) for part in ("S3CRE", "T/w", "[x"))


def test_one_that_is_written_as_addresses_are_is_taken(tmp_path: Path) -> None:
    address = f"http://alice:{WRITTEN}@host:5000/prefix"
    assert resolve(address) == address


@pytest.mark.parametrize("text", ["x" * 10**6, "x_" * 10**6, "a:/" * 10**6, "token" * 10**5])
def test_long_texts_are_looked_through_once(text: str) -> None:
    """From each of its letters on it would take hours."""
    assert clean(text) == unsecret(text) == text


@pytest.mark.parametrize("more", [["--trackinguri=http://a:S3cr3tPw@h"], ["--steps", "http://a:S3cr3tPw@h"]])
def test_a_line_that_cannot_be_read_is_not_repeated_with_its_password(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["run", "--suite", "grbm", *more])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert "http://h" in said.err
    assert "S3cr3t" not in said.err


def test_the_index_has_no_password_of_a_method_s_error(tmp_path: Path) -> None:
    with contextlib.closing(RunDir(tmp_path)) as runs:
        runs.plan([Record("0" * 12, "s", "p", "t", "cd", "CD-1", 0, 1, "running")])
        runs.set_state("0" * 12, "failed", "http://a:S3cr3tPw@h api-key=S3cr3tPw")
        assert runs.records()[0].message == "http://h api-key=***"


def test_a_key_with_a_hyphen_is_one() -> None:
    assert unsecret("http://h/?api-key=S3cr3tPw&a=1") == "http://h/"
