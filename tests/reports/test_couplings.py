"""The table of errors of Ising models' couplings."""

import math

import pytest

from reports.artefacts import couplings
from tests.reports.stores import Held, built, learning

ERRORS = ("couplings/rms_error", "couplings/rms_error_neighbours", "couplings/rms_error_others")


def test_the_smallest_error_is_first_and_seeds_have_an_interval() -> None:
    held = Held()
    for seed, error in enumerate([0.05, 0.07]):
        held.add("Persistent VI", "persistent_vi", seed, **dict(zip(ERRORS, (error, 0.09, 0.04), strict=True)))
    held.add("MPF", "mpf", 0, **dict.fromkeys(ERRORS, 0.03))
    held.add("MPF", "mpf", 1, "diverged", **dict.fromkeys(ERRORS, 9.0))
    artefact = built(couplings, held)["couplings-board"]
    assert list(artefact.numbers["variant"]) == ["MPF", "Persistent VI"]
    alone, both = artefact.numbers.to_dict("records")
    assert (alone["seeds"], alone["RMS error"], math.isnan(alone["± RMS error"])) == (1, 0.03, True)
    assert (both["between neighbours"], both["between others"]) == pytest.approx((0.09, 0.04))
    assert (both["RMS error"], both["± RMS error"]) == pytest.approx((0.06, 12.7062 * 0.01), rel=1e-4)
    assert len(artefact.runs) == 3


def test_other_models_have_none() -> None:
    assert not built(couplings, learning(Held(), {"CD-1": ("cd", 0.1)}))
