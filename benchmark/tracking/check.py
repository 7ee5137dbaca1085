"""Whether a store of runs or studies can be used, known in seconds: what is wrong, and what is only away.

MLflow and Optuna try for minutes, and not quietly, whatever is the matter. So we look first.
"""

import contextlib
import os
import re
import socket
import sqlite3
import ssl
import time
from collections.abc import Collection, Iterator
from http.client import BadStatusLine, RemoteDisconnected
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from benchmark.system.credentials import HIDDEN, clean, remember, unsecret
from bism.errors import InputError, first_line

SECONDS = 5.0  # to wait for an answer, and for a file that another process has locked
MAKING_SECONDS = 60.0  # at most, for another process to make the tables of a database that it has begun
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_WRITTEN = "%40 for @, %2F for /, %3F for ?, %23 for #, %3A for :"
# What a database's server says that is there and has no room or no time now; all else that it says will not pass.
_FOR_NOW = re.compile(
    r"starting up|shutting down|in recovery|not yet accepting|too many (?:clients|connections)|connection slots|"
    r"timeout|timed out|refused|unreachable|closed the connection|lost connection|reset by peer|database is locked|"
    r"\((?:1040|2002|2003|2006|2013)\b",
    re.IGNORECASE,
)


class Unreachable(InputError):
    """A store that may be there later."""


def scheme_of(address: str) -> str:
    """``postgresql`` of ``postgresql+psycopg2://...``; "" of a path."""
    return address.partition("://")[0].partition("+")[0].lower() if "://" in address else ""


def with_driver(address: str) -> str:
    """A PostgreSQL address that names no driver, with the one that is here: SQLAlchemy would look for psycopg alone."""
    plain = "postgresql://"
    if address.startswith(plain) and not find_spec("psycopg") and find_spec("psycopg2"):
        return "postgresql+psycopg2://" + address.removeprefix(plain)
    return address


def check_form(what: str, address: str) -> None:
    """Refuses what cannot be the address of a server; a file's or a database's of no server passes.

    Raises:
        InputError: it cannot be read, has no host, or has a password in which an address ends.
    """
    remember(address)
    scheme, shown = scheme_of(address), unsecret(address)
    if scheme in ("", "sqlite"):
        return
    where = f"{what} {shown}"
    try:
        read, meant = urlsplit(address), urlsplit(shown)
        host, _ = meant.hostname, meant.port
        same = read.hostname == host if scheme.startswith("http") else address.count("@") < 2
    except ValueError:  # its text may have a part of the password
        raise InputError(f"{where}: this is no address; expected one like http://localhost:5000") from None
    if re.search(r"[\s\x00-\x1f]", shown):
        raise InputError(f"{what} {shown!r}: an address has no blanks; expected one like http://localhost:5000")
    if scheme.startswith("http") and not host:
        raise InputError(f"{where}: the address has no host; expected one like http://localhost:5000")
    if HIDDEN in shown or not same:
        raise InputError(f"{where}: in an address, users and passwords are written with {_WRITTEN}")


def check_file(what: str, file: Path, write: bool, tables: Collection[str]) -> bool:
    """A database in a file: whether it can be read, or else (``write``) made and written; it is made where it is not.

    Args:
        tables: that a database of this kind has, among others; one of something else is left alone.

    Returns:
        Whether nothing is in it yet.

    Raises:
        Unreachable: another process has locked it.
        InputError: it cannot be used.
    """
    try:
        if write:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab"):  # a journal is written beside it
                writable = os.access(file.parent, os.W_OK)
        if not file.is_file() or file.stat().st_size:
            with file.open("rb") as content:
                header = content.read(16)
            if header != b"SQLite format 3\0":
                raise InputError(f"{what} {file} cannot be used: this file is no SQLite database.")
    except FileExistsError:
        raise InputError(f"{what} {file} cannot be used: a file stands where its folder should be.") from None
    except OSError as error:
        raise InputError(f"{what} {file} cannot be used: {error.strerror or error}.") from None
    if write and not writable:
        raise InputError(f"{what} {file} cannot be used: the folder {file.parent} cannot be written.")
    found = _tables(what, file)
    deadline = time.monotonic() + MAKING_SECONDS
    while not found.issuperset(tables) and found.intersection(tables) and time.monotonic() < deadline:
        time.sleep(0.1)  # another process is making them
        found = _tables(what, file)
    if found and not found.issuperset(tables):
        shown = ", ".join(sorted(found)[:3]) + (", ..." if len(found) > 3 else "")
        raise InputError(f"{what} {file} cannot be used: it is a database of something else, of the tables {shown}.")
    return not found


def _tables(what: str, file: Path) -> set[str]:
    """The tables of a database in a file. It is opened to be written where it can be: what a killed process left half
    written is then rolled back, for which SQLite refuses who opens it to read alone."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=SECONDS)
        ) as database:
            return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        kind, text = (Unreachable, "reached") if "locked" in str(error) else (InputError, "used")
        raise kind(f"{what} {file} cannot be {text}: {error}.") from None


def check_database(what: str, address: str) -> None:
    """A database with a server: whether it lets us in.

    Raises:
        Unreachable: the server does not answer, or has no time now.
        InputError: it refuses us, or there is none of that name.
    """
    shown = unsecret(address)
    try:
        knock(address)
        _log_in(address)
    except ModuleNotFoundError as error:
        hint = ": pip install '.[server]'" if error.name in ("psycopg", "psycopg2") else ""
        raise InputError(f"{what} {shown}: the driver {error.name} is not installed{hint}") from error
    except Exception as error:  # SQLAlchemy's, or any of a driver's
        raise failure(what, address, error) from error


def knock(address: str) -> None:
    """Knocks at the port of a server.

    Raises:
        OSError: nobody answers.
    """
    meant = urlsplit(unsecret(address))
    port = meant.port or _PORTS.get(scheme_of(address))
    if meant.hostname and port and not address.startswith("http"):
        socket.create_connection((meant.hostname, port), timeout=SECONDS).close()


def _log_in(address: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    takes_timeout = re.match(r"(postgresql(\+psycopg2?)?|mysql(\+(pymysql|mysqldb|mysqlconnector))?)://", address)
    options: dict[str, Any] = {"connect_timeout": int(SECONDS)} if takes_timeout else {}
    with create_engine(address, poolclass=NullPool, connect_args=options).connect():
        pass


def failure(what: str, address: str, error: BaseException) -> InputError:
    """What the failure of a store means to people: it is away, or it will never be there."""
    chain = list(_causes(error))
    where, reason = f"{what} {unsecret(address)}", brief(_reason(chain))
    return (
        InputError(f"{where} cannot be used: {reason}")
        if _is_wrong(chain)
        else Unreachable(f"{where} cannot be reached: {reason}")
    )


def advised(error: InputError, advice: str) -> InputError:
    """The same error with what may be done about it."""
    return type(error)(f"{str(error).rstrip('.')}. {advice}".strip())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_wrong(chain: list[BaseException]) -> bool:
    for error in chain:
        if isinstance(error, socket.gaierror):
            return error.errno != socket.EAI_AGAIN  # else the network is away
        if isinstance(error, (ssl.SSLCertVerificationError, UnicodeError)):
            return True
        if isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected):
            return True
    names = {type(error).__name__ for error in chain}
    if names & {"InvalidURL", "InvalidUrlException", "InvalidProxyURL", "MissingSchema", "InvalidSchema", "SSLError"}:
        return True
    if any(type(error).__module__.startswith("sqlalchemy") for error in chain):
        texts = (re.sub(r'".*?"', "", str(error)) for error in chain)  # a user may be called "refused"
        return not any(_FOR_NOW.search(text) for text in texts)
    ours = (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError)  # of this machine's files
    return not any(isinstance(error, OSError) and not isinstance(error, ours) for error in chain)


def _reason(chain: list[BaseException]) -> BaseException:
    """What lies at the bottom: of a chain of wrappers, the system's error."""
    wrappers = ("requests", "urllib3")
    systems = (error for error in reversed(chain) if isinstance(error, OSError))
    return next((error for error in systems if not type(error).__module__.startswith(wrappers)), chain[0])


def brief(error: BaseException) -> str:
    """An error in one line, without passwords."""
    within = getattr(error, "orig", None) or error  # SQLAlchemy's wrapper of a driver's error
    text = getattr(within, "strerror", None) or first_line(within)
    return clean(text).rstrip(".") + "."
