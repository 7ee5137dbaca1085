"""YAML as people write it in suite files and behind ``--set``: safe, and of bounded size, depth and numbers."""

import re
from collections.abc import Callable
from typing import Any

import yaml

BYTES = 1 << 18  # of a file
_NODES, _DEPTH = 20_000, 20  # of a document, with what its aliases stand for
_MOST = 2**63 - 1  # what databases and tensors hold
_BAD_VALUE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number: PyYAML's rules, those of YAML 1.1, make it a text.

    What costs more than its text shows is refused where it is met: aliases of aliases, lists in lists in lists, and
    what contains itself. So are values that their own tag or form excludes (the 99th of January), which PyYAML lets
    raise whatever they raise, and whole numbers of more than 64 bits.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._total = 0
        self._sizes = dict[int, int]()  # of finished nodes, by id: how many nodes they are, aliases written out

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, counted."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # of yaml's
        mark = event.start_mark
        self._depth += 1
        if self._depth > _DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {_DEPTH} levels in each other", mark)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                raise yaml.composer.ComposerError(
                    None, None, f"'*{event.anchor}' stands within what it stands for", mark
                )
            self._total += self._sizes[id(node)]
        else:
            self._total += 1
            self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in _children(node))
        if self._total > _NODES:
            raise yaml.composer.ComposerError(
                None, None, f"more than {_NODES:,} keys and values, those counted that aliases stand for", mark
            )
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            value: Any = super().construct_object(node, deep)
        except _BAD_VALUE as error:
            tag = str(node.tag).rpartition(":")[2]
            text = f"is not a value of this kind, {tag} ({error})"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error
        if isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
            raise yaml.constructor.ConstructorError(None, None, "half a character (a surrogate)", node.start_mark)
        if isinstance(value, int) and abs(value) > _MOST:
            text = f"whole numbers go up to {_MOST:,}, this one has {value.bit_length():,} bits"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        return value


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def read(text: str, look: Callable[[yaml.Node], None] = lambda node: None) -> Any:
    """The content of the one document in a text; None of an empty one.

    Args:
        look: is shown the nodes, which know their lines, as they stand in the text: what ``<<`` merges is not in yet.

    Raises:
        yaml.YAMLError: it is none, or more than is read.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        look(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def problem(error: yaml.YAMLError) -> str:
    """What is wrong, in a line."""
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return next(iter(str(said).splitlines()), type(error).__name__)
