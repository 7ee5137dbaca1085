"""How command lines are read, and what is said of one that cannot be: one message like any other, where argparse would
answer with all that a command knows."""

import argparse
import re
import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmark.system.invocation import call
from benchmark.system.limits import decimal, integer
from bism.errors import InputError, nearest, shortened, shown


class Parser(argparse.ArgumentParser):
    """A parser of ``python -m PACKAGE``, whose errors are InputErrors. No option takes an empty value: as the name of a
    folder it would be the working directory, and elsewhere the default."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._negative_number_matcher = re.compile(r"-[0-9.]")  # "-1s" is a value that is wrong, and no option
        self.set_defaults(parser=self)  # of a command's options, the innermost
        self._line: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's."""
        self._line = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # two of its overloads
        """The options; ``parser`` is that of the command.

        Raises:
            InputError: the line cannot be read.
        """
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise InputError(_said_of(found.parser, unknown[0], sys.argv[1:] if args is None else list(args)))
        return found

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        said = shortened(message.removeprefix("argument "))
        raise InputError(f"{said}; `{call(*self.prog.split()[2:], '--help')}` says what there is")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string.strip() and action.nargs != argparse.PARSER:
            raise InputError(f"{_name(action)} must not be empty, got {shown(arg_string)}")
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            is_command = action.nargs == argparse.PARSER
            before = self._line[max(0, self._line.index(value) - 1)] if is_command and value in self._line else ""
            if before.startswith("--") and before not in self._option_string_actions:  # its value, and no command
                raise InputError(_said_of(self, before, self._line))
            what = f"no command {shown(value)}" if is_command else f"{_name(action)} cannot be {shown(value)}"
            raise InputError(f"{what}: {nearest(str(value), map(str, action.choices))}")


def _said_of(parser: argparse.ArgumentParser, text: str, line: Sequence[str]) -> str:
    """What is wrong with a text that no option takes."""
    if not text.startswith("-"):
        before = line[: line.index(text)] if text in line else []
        last = next((one for one in reversed(before) if one.startswith("--")), "")
        action = parser._option_string_actions.get(last)
        if action is not None and action.nargs is None:
            again = f", or {last} again for each" if isinstance(action, argparse._AppendAction) else ""
            return f"{_command(parser)} takes no {shortened(text)}: {last} takes one value{again}"
    for action in parser._get_positional_actions():
        if action.dest == text.partition("=")[0].removeprefix("--"):
            how = call(*parser.prog.split()[2:], str(action.metavar or action.dest))
            return f"{_command(parser)} takes no {shortened(text)}: its value stands alone, as in `{how}`"
    known = [one for one in parser._option_string_actions if one.startswith("--") and one != "--help"]
    return f"{_command(parser)} takes no {shortened(text)}: {nearest(text.partition('=')[0], known)}"


def _name(action: argparse.Action) -> str:
    """What people call an option."""
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


def _command(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.prog.split()[3:]) or parser.prog


class _Given(argparse.Action):
    """An option with numbers, read in one place and refused in our words."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        name = option or self.dest
        read = [self.read(name, one) for one in values] if isinstance(values, list) else self.read(name, values)
        setattr(namespace, self.dest, read)

    @staticmethod
    @abstractmethod
    def read(option: str, text: str) -> float: ...


class Whole(_Given):
    """An option with whole numbers."""

    read = staticmethod(integer)


class Number(_Given):
    """An option with numbers."""

    read = staticmethod(decimal)
