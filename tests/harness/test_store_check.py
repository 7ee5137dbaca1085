"""Stores that are wrong are told apart from those that are away, in seconds."""

import http.server
import json
import re
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from benchmark.tracking.check import Unreachable, check_database, check_file, check_form, failure
from benchmark.tracking.store import check, resolve
from bism.errors import InputError
from reports.store import Store
from tests.harness.faults import free_port
from tests.harness.postgres import PostgreSQL
from tests.harness.tiny import command, write

SECRET = "S3CRET-w0rd"


def kind(error: InputError) -> str:
    return "away" if isinstance(error, Unreachable) else "wrong"


@pytest.mark.parametrize(
    "address",
    [
        "foo://bar",
        "sqlite://",
        "sqlite:x.db",
        "sqlite:///:memory:",
        "file:///tmp/mlruns",
        "./mlruns",
        "databricks",
        "databricks://profile",
        "http://",
        "http://[::1",
        "http://host:port",
        "http://host:99999",
        "http://ho st",
        f"alice:{SECRET}@host",
        "postgresql://host:port/db",
    ],
)
def test_what_cannot_be_a_store_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(InputError, match="tracking store") as refused:
        resolve(address)
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_what_can_be_one_is_taken(tmp_path: Path) -> None:
    for address in (
        "http://[::1]:5000",
        "https://host/a/prefix",
        "mysql+pymysql://u@host/db",
        "mssql+pyodbc://host/db",
    ):
        assert resolve(address) == address
    assert resolve("HTTP://host:5000/") == "http://host:5000"
    assert resolve(f"sqlite+pysqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("command_of", [("run", "--suite", "tiny.yaml"), ("tune", "--suite", "tiny.yaml"), ("ui",),
                                        ("sync",), ("delete", "--all")])  # fmt: skip
def test_every_command_refuses_one_at_once(tmp_path: Path, command_of: tuple[str, ...]) -> None:
    write(tmp_path)
    said = command(tmp_path, *command_of, "--tracking-uri", "foo://bar")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: tracking store foo://bar: stores of this kind cannot be used")
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.yaml"]


# --- files ------------------------------------------------------------------------------------------------------------


def refused(file: Path, write: bool = True) -> str:
    with pytest.raises(InputError) as error:
        check_file("tracking store", file, write, ("t",))
    return f"{kind(error.value)}: {error.value}"


def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough")
    (tmp_path / "folder").mkdir()
    sqlite3.connect(tmp_path / "cut.db").executescript("CREATE TABLE t (x); CREATE TABLE u (x)").connection.close()
    cut = (tmp_path / "cut.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(cut[:100] + b"\xff" * 400)
    for write_ in (True, False):
        assert refused(tmp_path / "folder", write_).endswith("cannot be used: Is a directory.")
        assert refused(tmp_path / "text", write_).endswith("cannot be used: this file is no SQLite database.")
        assert refused(tmp_path / "cut.db", write_).startswith("wrong: ")
        assert refused(Path("/proc/x.db"), write_).endswith("cannot be used: No such file or directory.")
    assert "a file stands where its folder should be" in refused(tmp_path / "text" / "x.db")
    assert (tmp_path / "text").read_text() == "not a database, and long enough"


def test_a_file_is_made_only_to_be_written(tmp_path: Path) -> None:
    check_file("tracking store", tmp_path / "new" / "mlflow.db", write=True, tables=())
    assert (tmp_path / "new" / "mlflow.db").read_bytes() == b""
    assert refused(tmp_path / "other.db", write=False).startswith("wrong: ")
    assert not (tmp_path / "other.db").exists()


def test_a_file_that_another_process_has_locked_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.tracking.check.SECONDS", 0.01)
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    holder.executescript("CREATE TABLE t (x); BEGIN EXCLUSIVE")
    assert refused(tmp_path / "a.db") == f"away: tracking store {tmp_path}/a.db cannot be reached: database is locked."
    holder.close()
    check_file("tracking store", tmp_path / "a.db", write=True, tables=("t",))


def test_what_a_killed_process_left_half_written_is_rolled_back(tmp_path: Path) -> None:
    """The file as it was in the midst of a large change, with its journal beside it, is a killed process's."""
    writer = sqlite3.connect(tmp_path / "live.db", isolation_level=None)
    writer.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA cache_size = 1; BEGIN")
    writer.executemany("INSERT INTO t VALUES (?)", [(1000 * "x",)] * 1000)
    for end in ("db", "db-journal"):
        (tmp_path / f"left.{end}").write_bytes((tmp_path / f"live.{end}").read_bytes())
    writer.close()
    assert (tmp_path / "left.db").stat().st_size > 100_000
    with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
        sqlite3.connect(f"file:{tmp_path}/left.db?mode=ro", uri=True).execute("SELECT x FROM t")
    for write_ in (True, False):
        assert not check_file("tracking store", tmp_path / "left.db", write_, ("t",))
    assert sqlite3.connect(tmp_path / "left.db").execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_database_of_something_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow would make its tables in it, whether one reads or writes."""
    monkeypatch.setattr("benchmark.tracking.check.MAKING_SECONDS", 0.0)
    for name, tables in (("mine", "mine (x)"), ("like", "experiments (x); CREATE TABLE runs (x)")):
        sqlite3.connect(tmp_path / f"{name}.db").executescript(f"CREATE TABLE {tables}").connection.close()
        before = (tmp_path / f"{name}.db").read_bytes()
        for arguments in (("run", "--suite", "tiny.yaml"), ("sync",), ("doctor",)):
            write(tmp_path)
            said = command(tmp_path, *arguments, "--tracking-uri", f"sqlite:///{name}.db")
            assert said.code == (0 if arguments == ("doctor",) else 2)
            assert "cannot be used: it is a database of something else, of the tables" in " ".join(
                (said.err + said.out).split()
            )
        with pytest.raises(InputError, match="it is a database of something else"):
            Store(f"sqlite:///{tmp_path}/{name}.db")
        assert (tmp_path / f"{name}.db").read_bytes() == before
    sqlite3.connect(tmp_path / "empty.db").executescript("CREATE TABLE t (x); DROP TABLE t").connection.close()
    with pytest.raises(InputError, match=r"empty\.db: nothing is in it yet"):
        Store(f"sqlite:///{tmp_path}/empty.db")


def test_tables_that_another_process_is_making_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, waited = tmp_path / "a.db", list[float]()
    sqlite3.connect(file).executescript("CREATE TABLE experiments (x)").connection.close()

    def other(seconds: float) -> None:
        waited.append(seconds)
        sqlite3.connect(file).executescript(
            f"CREATE TABLE {'other' if len(waited) == 1 else 'runs'} (x)"
        ).connection.close()

    monkeypatch.setattr("benchmark.tracking.check.time.sleep", other)
    assert not check_file("tracking store", file, write=True, tables=("experiments", "runs"))
    assert len(waited) == 2


# --- databases with a server ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('FATAL:  password authentication failed for user "x"\nsecond line', "wrong"),
        ('FATAL:  database "x" does not exist', "wrong"),
        ('FATAL:  role "refused" does not exist', "wrong"),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4"', "wrong"),
        ("(1045, \"Access denied for user 'x'@'localhost'\")", "wrong"),
        ("(1049, \"Unknown database 'x'\")", "wrong"),
        ("received invalid response to SSL negotiation: H", "wrong"),
        ("FATAL:  the database system is starting up", "away"),
        ("FATAL:  sorry, too many clients already", "away"),
        ("server closed the connection unexpectedly", "away"),
        ("timeout expired", "away"),
        ('(2013, "Lost connection to MySQL server")', "away"),
    ],
)
def test_what_a_database_says_that_is_there(said: str, expected: str) -> None:
    error = OperationalError("", {}, Exception(said))
    found = failure("tracking store", f"postgresql://alice:{SECRET}@host/db", error)
    assert kind(found) == expected
    assert str(found).endswith(f": {said.splitlines()[0]}.")
    assert SECRET not in str(found)


def test_a_database_nobody_answers_for() -> None:
    for address in (f"postgresql://alice:{SECRET}@127.0.0.1:{free_port()}/db", "mysql+pymysql://127.0.0.1:1/db"):
        with pytest.raises(Unreachable, match="cannot be reached: Connection refused"):
            check_database("tracking store", address)


def test_a_host_that_nobody_knows_and_a_driver_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def offline(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    for answer, expected in ((unknown, "wrong"), (offline, "away")):
        monkeypatch.setattr(socket, "create_connection", answer)
        with pytest.raises(InputError, match="ame") as error:
            check_database("tracking store", "postgresql://host/db")
        assert kind(error.value) == expected
    monkeypatch.setattr("benchmark.tracking.check.knock", lambda address: None)
    with pytest.raises(InputError, match="tracking store mssql://host/db: the driver pyodbc is not installed"):
        check_database("tracking store", "mssql://host/db")


@pytest.mark.long
def test_a_real_database_that_refuses_us(tmp_path: Path, database: PostgreSQL) -> None:
    (database.folder / "data" / "pg_hba.conf").write_text("host all locked 127.0.0.1/32 scram-sha-256\n"
                                                          "host all all 127.0.0.1/32 trust\n")  # fmt: skip
    database.stop()
    database.start()
    check("postgresql+psycopg2://" + database.uri.partition("://")[2], write=True)
    write(tmp_path)
    place = f"127.0.0.1:{database.port}"
    for address, reason in (
        (f"postgresql://locked:{SECRET}@{place}/mlflow", "password authentication failed"),
        (f"postgresql://bism:{SECRET}@{place}/nothing", 'database "nothing" does not exist'),
        (f"postgresql://nobody:{SECRET}@{place}/mlflow", 'role "nobody" does not exist'),
    ):
        for more in (("run", "--suite", "tiny.yaml", "--tracking-uri", address),
                     ("tune", "--suite", "tiny.yaml", "--tracking-uri", "none", "--storage", address)):  # fmt: skip
            said = command(tmp_path, *more)
            assert said.code == 2
            assert said.err.count("\n") == 1
            assert reason in said.err
            assert SECRET not in said.out + said.err


# --- servers ----------------------------------------------------------------------------------------------------------


class Answering(http.server.ThreadingHTTPServer):
    """A server that answers every request with ``status`` and ``body``; ``asked`` has their paths."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.asked = 200, json.dumps({"experiments": []}), list[str]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "", "wrong: .*MLFLOW_TRACKING_PASSWORD"),
        (403, "Invalid Host header", "wrong: .*403"),
        (404, "<html>", "wrong: .*no MLflow server answers there"),
        (200, "<html>Welcome to nginx", "wrong: .*no MLflow server answers there"),
        (429, "", "away: .*429"),
        (500, "{}", "away: .*500"),
        (503, "", "away: .*503"),
    ],
)
def test_what_a_server_says(answering: Answering, status: int, body: str, expected: str) -> None:
    answering.status, answering.body = status, body
    with pytest.raises(InputError) as error:
        check(answering.address, write=True)
    assert re.match(expected, f"{kind(error.value)}: {error.value}")
    assert len(answering.asked) == 1


def test_a_server_under_a_path_and_one_behind_a_proxy(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    check(f"{answering.address}/prefix", write=True)
    monkeypatch.setenv("HTTP_PROXY", answering.address)
    monkeypatch.setenv("http_proxy", answering.address)
    monkeypatch.setenv("no_proxy", "")
    check("http://only.the.proxy.knows:5000/prefix", write=True)
    path = "/prefix/api/2.0/mlflow/experiments/search"
    assert answering.asked == [path, f"http://only.the.proxy.knows:5000{path}"]


def test_a_server_that_is_away_or_no_web_server_at_all() -> None:
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:\d+ cannot be reached: Connection refused\.$"):
        check(f"http://alice:{SECRET}@127.0.0.1:{free_port()}", write=True)
    wrong = failure("tracking store", "https://host", ssl.SSLCertVerificationError("self-signed certificate"))
    assert str(wrong).startswith("tracking store https://host cannot be used: ")


def test_the_form_is_asked_of_studies_as_well() -> None:
    with pytest.raises(InputError, match=r"^studies at postgresql://host/db: in an address"):
        check_form("studies at", f"postgresql://alice:{SECRET}@x@host/db")
