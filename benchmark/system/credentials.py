"""Passwords and tokens: where they may stand, and how they are kept out of what is written.

Addresses that users give are shown through ``unsecret``; all other text that may hold one (an error of a library, a
traceback) goes through ``clean``, and so does, as a net below both, whatever a command prints (``kept_out``).
"""

import contextlib
import itertools
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
_SHORTEST = 6  # a shorter password is hidden inside addresses alone: as a word it would be found everywhere
_NAMES = r"(?:pass(?:word|wd|phrase)?|pwd|token|secret|api[_-]?key|access[_-]?key|credentials?|auth|sig(?:nature)?)"
_KEY = re.compile(rf"(?:\w*[_-])?{_NAMES}|\w*(?:password|secret|token)|user(?:name)?|sslkey", re.IGNORECASE)
_VARIABLE = re.compile(r"pass(word|wd|phrase)?$|pwd$|token$|secret|access[_-]?key$|api[_-]?key$", re.IGNORECASE)
_NO_SECRETS = {"PWD", "OLDPWD"}  # the shell's working directories
_SCHEME = r"[A-Za-z][\w+.-]{0,40}"  # bounded: a word of a million letters is looked through once, and not from each
_ADDRESS = re.compile(rf"{_SCHEME}://[^\s'\"<>]+")
_QUERY = re.compile(r"\?([\w.-]+=.*)", re.DOTALL)
_PAIR = re.compile(rf"\b((?:[\w-]+[_-])?{_NAMES})=([^\s&;,'\"<>]+)", re.IGNORECASE)
_HEADER = re.compile(r"(authorization\W{1,4}(?:basic|bearer)?\s*)[\w+/=.~-]+", re.IGNORECASE)
_known = set[str]()


def unsecret(address: str) -> str:
    """An address, or an option with one (``--tracking-uri=ADDRESS``), without user, password and token.

    People write ``@``, ``/``, ``?`` and ``#`` into passwords as they are. So all up to the last ``@`` goes, and what
    could be either is hidden. The name of a file (``sqlite:///``, ``file:///``) may have an ``@`` of its own.
    """
    before, scheme, rest = _parts(address)
    query = _QUERY.search(rest)
    head, pairs = (rest[: query.start()], query[1].split("&")) if query else (rest, [])
    kept = list(itertools.takewhile(lambda pair: not _KEY.fullmatch(pair.partition("=")[0]), pairs))
    if _is_file(scheme, rest):
        pass
    elif any("@" in pair for pair in pairs) and re.search("[:@]", head):  # the question mark may be a password's
        head, kept = HIDDEN, []
    elif "@" in head and (scheme or ":" in head.rpartition("@")[0]):
        head = head.rpartition("@")[2]
    return f"{before}{scheme}{head}{'?' if kept else ''}{'&'.join(kept)}"


def _parts(address: str) -> tuple[str, str, str]:
    """What stands before an address, its scheme with the slashes, and the rest."""
    found = re.fullmatch(rf"(.*?)({_SCHEME}:/{{1,2}})(.*)", address, re.DOTALL)
    return (found[1], found[2], found[3]) if found else ("", "", address)


def _is_file(scheme: str, rest: str) -> bool:
    return scheme.partition(":")[0].partition("+")[0] in ("sqlite", "file") and rest.startswith("/")


def remember(*texts: str | None) -> None:
    """Takes note of the passwords in addresses, so that ``clean`` finds them wherever they come up again."""
    for text in texts:
        _, scheme, rest = _parts(text or "")
        user, at, _ = rest.rpartition("@")
        found = [user.partition(":")[2]] if scheme and at and not _is_file(scheme, rest) else []
        pairs = (pair.partition("=") for pair in rest.partition("?")[2].split("&"))
        found += [value for key, _, value in pairs if _KEY.fullmatch(key) and "user" not in key.lower()]
        _known.update(_spellings(found))


def _spellings(secrets: Iterable[str]) -> Iterator[str]:
    """Each secret as it is, and as addresses write and libraries read it."""
    for secret in secrets:
        plain = {secret, unquote(secret), unquote_plus(secret)}
        for one in plain | {quote(text, safe="") for text in plain} | {quote_plus(text) for text in plain}:
            if len(one) >= _SHORTEST:
                yield one


def clean(text: str) -> str:
    """A text without the passwords that it may hold: in addresses, in pairs like ``password=``, and all that are known
    from the command line or the environment (such as MLFLOW_TRACKING_PASSWORD)."""
    for secret in sorted(_known.union(_spellings(_of_environment())), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)  # no part of a longer word
    text = _ADDRESS.sub(lambda found: unsecret(found[0]), text)
    text = _PAIR.sub(rf"\1={HIDDEN}", text)
    return _HEADER.sub(rf"\1{HIDDEN}", text)


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if _VARIABLE.search(name) and name not in _NO_SECRETS and not value.startswith(("/", "~")):
            yield value


class _Cleaned:
    """A stream that passes on what is written to it without passwords. Where it cannot, an error says so that names it,
    and what comes later is lost."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        with self._named():
            self._stream.write(clean(text))
        return len(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:  # what Python still holds goes there
                os.dup2(nowhere.fileno(), self._stream.fileno())
            raise OSError(error.errno, error.strerror or str(error), self._name) from error

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error that nobody has caught, as Python does (``sys.excepthook``)."""
    print(clean("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


@contextlib.contextmanager
def kept_out(*addresses: str) -> Iterator[None]:
    """Inside, nothing that this process prints or logs has passwords in it, those of ``addresses`` included."""
    remember(*addresses, *sys.argv[1:], *os.environ.values())
    out, err = _Cleaned(sys.stdout, "standard output"), _Cleaned(sys.stderr, "standard error")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
