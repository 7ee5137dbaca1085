"""Which claims somebody asks about."""

from collections.abc import Sequence

from bism.errors import InputError, nearest
from reports.claims.claim import Claim, method_of


def chosen(ledger: Sequence[Claim], ids: Sequence[str] = (), suites: Sequence[str] | None = None) -> list[Claim]:
    """The claims of these ids, and that need runs of one of these suites; all without.

    Raises:
        InputError: an unknown id, or a suite that no claim needs, or nothing is left.
    """
    known, needed = [claim.id for claim in ledger], sorted({suite for claim in ledger for suite in claim.suites})
    for one in ids:
        if one not in known:
            raise InputError(f"no claim '{one}': {nearest(one, known)}; `python -m reports claims --list` has them all")
    for suite in suites or ():
        if suite not in needed:
            raise InputError(f"no claim needs runs of a suite '{suite}': {nearest(suite, needed)}")
    found = [
        claim
        for claim in ledger
        if (not ids or claim.id in ids) and (suites is None or set(suites) & set(claim.suites))
    ]
    if not found:
        raise InputError(f"none of {', '.join(ids)} needs runs of {', '.join(suites or ())}")
    return found


def shown_in(
    ledger: Sequence[Claim],
    suites: Sequence[str] | None,
    presets: Sequence[str] | None,
    tasks: Sequence[str] | None,
    methods: Sequence[str] | None,
) -> list[Claim]:
    """The claims that need nothing beside what a report was asked to show."""

    def has(choice: Sequence[str] | None, value: str) -> bool:
        return choice is None or value in choice

    return [
        claim
        for claim in ledger
        if all(
            has(suites, one.at.suite)
            and has(presets, one.at.preset)
            and has(tasks, one.at.task)
            and all(has(methods, method_of(variant)) for variant in one.variants)
            for one in claim.comparisons
        )
    ]
