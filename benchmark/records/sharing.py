"""What may be told of where results were made: no folders, no names of machines and people, no secrets."""

import re
import shlex

from benchmark.system.credentials import clean

# Of a command that trains, what decides the numbers; where it read and wrote is nobody's business.
_TOLD = (
    "--suite", "--preset", "--tasks", "--methods", "--variants", "--seeds", "--steps", "--set", "--plugin",
    "--devices", "--threads", "--jobs-per-device", "--data-parallel", "--executor", "--shard", "--rerun",
)  # fmt: skip
_TRAINING = ("run", "compare")
_END = r"""[^\s'"`,;()\[\]{}<>|]"""  # of a path: up to a space, a quote or a bracket
_PATH = re.compile(rf"(?<![\w.~/\\])(?:\w{{1,40}}:/{{1,4}}|[A-Za-z]:\\|\\\\|~[\w.-]*[/\\]|\.{{0,2}}/){_END}+")
_DIVERGED = re.compile(r"not finite at step [\d,]{1,20}")


def plain(text: str) -> str:
    """A text without secrets, and with the last part of every path or address in its place."""
    return _PATH.sub(lambda found: _last(found[0]), clean(text))


def names_a_place(text: str) -> bool:
    """Whether there is a path or an address in a text."""
    return _PATH.search(text) is not None


def value(text: str) -> str:
    """The value of a hyper-parameter or of an option: what looks like a relative path is one, too."""
    return _last(clean(text)) if re.search(r"[/\\]", text) else plain(text)


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "..."


def diverged(error: str) -> str:
    """Why a cell ended, where the program itself says it; what a method raises may hold anything."""
    return error if _DIVERGED.fullmatch(error) else ""


def command(text: str) -> str:
    """A command that trains, without folders, addresses and files' places; "" of anything else."""
    try:
        words = shlex.split(text)
    except ValueError:
        return ""
    if len(words) < 4 or words[1:3] != ["-m", "benchmark"] or words[3] not in _TRAINING:
        return ""
    told, kept = ["python", "-m", "benchmark", words[3]], False
    for word in words[4:]:
        option, equals, given = word.partition("=") if word.startswith("--") else ("", "", word)
        if option:
            kept = option in _TOLD
            told += [option] if kept else []
        if kept and (equals or not option):
            told.append(given if re.fullmatch(r"\d+/\d+", given) else _assigned(given))
    return shlex.join(told)


def _assigned(given: str) -> str:
    """``mine.weights=/home/me/w.pt`` is ``mine.weights=w.pt``."""
    name, equals, found = given.rpartition("=")
    return f"{name}{equals}{value(found)}"
