"""What a user did wrong, said in one message: what, where, what was expected, how to mend it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user. Its text is shown as it is, without a traceback."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``did you mean 'sigma'? valid: k, lr, sigma`` for a misspelt ``name``."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(names)}"
