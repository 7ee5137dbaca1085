"""What pydantic finds wrong with a file, in our words."""

from typing import Any

from pydantic import ValidationError

from bism.errors import shown

_EXPECTED = {
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le:,}",
    "finite_number": "must be finite",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "needs at least {min_length} characters",
    "too_short": "needs at least {min_length}",
    "too_long": "takes at most {max_length}",
    "string_pattern_mismatch": "must be as {pattern} says",
}
_PATTERNS = {  # in words
    "^[A-Za-z0-9_.-]+$": "must consist of letters, digits, '.', '_' and '-'",
    "^[A-Za-z0-9_-]+$": "must consist of letters, digits, '_' and '-'",
    "^[0-9]{0,5}$": "must be a whole number of at most 5 digits",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}$": "must be a day as in 2026-01-31",
    "^[0-9a-f]{0,64}$": "must be a hash of at most 64 hexadecimal digits",
    "^[0-9a-f]{64}$": "must be a hash of 64 hexadecimal digits",
}


def expected(problem: Any) -> str:
    """What one of pydantic's errors expected, and what it got."""
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("ctx", {})
    text = _PATTERNS.get(given.get("pattern", "")) or _EXPECTED.get(problem["type"], message).format(**given)
    return f"{text}, got {shown(problem['input'])}"


def first_problem(error: ValidationError) -> str:
    """The first of them: "seeds.3.steps: must be an integer, got 'x'"."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    match problem["type"]:
        case "extra_forbidden":
            what = "unknown key"
        case "missing":
            what = "this key is missing"
        case "value_error":
            what = problem["msg"].removeprefix("Value error, ")
        case _:
            what = expected(problem)
    return f"{where or 'it'}: {what}"
