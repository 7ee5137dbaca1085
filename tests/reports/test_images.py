"""The table of samples of images and of what energies tell apart."""

import math

import pytest

from reports.artefacts import images
from tests.reports.stores import Held, built, learning


def test_samples_have_intervals_and_energies_means() -> None:
    held = Held()
    for seed, (mmd, noise) in enumerate([(0.010, 1.0), (0.014, 0.9)]):
        held.add("Short run-50", "short_run", seed, **{"test/mmd": mmd, "ood/auroc_noise": noise})
    held.add("MDSM", "mdsm", 0, **{"test/mmd": 0.02, "ood/auroc_fashion_mnist": 0.7})
    held.add("MDSM", "mdsm", 1, "diverged", **{"test/mmd": 9.0})
    held.add("CD-1", "cd", 0)  # neither was asked for
    artefact = built(images, held)["images-board"]
    table = artefact.numbers.set_index("variant")
    assert set(table.index) == {"Short run-50", "MDSM"}
    assert table["seeds"].to_dict() == {"Short run-50": 2, "MDSM": 1}
    assert table.loc["Short run-50", ["MMD²", "AUROC, noise"]].tolist() == pytest.approx([0.012, 0.95])
    assert table.loc["Short run-50", "± MMD²"] == pytest.approx(12.7062 * 0.002, rel=1e-4)
    assert table.loc["MDSM", ["MMD²", "AUROC, fashion mnist"]].tolist() == [0.02, 0.7]
    assert math.isnan(table.loc["MDSM", "± MMD²"])
    assert (len(artefact.runs), "AUROC" in artefact.caption) == (3, True)
    assert artefact.table is not None
    assert artefact.table.written.set_index("variant").loc["Short run-50", "MMD²"] == "0.0120"


def test_where_only_samples_were_judged_nothing_is_said_of_energies() -> None:
    held = Held()
    held.add("MDSM", "mdsm", 0, **{"test/fid": 31.5})
    (artefact,) = built(images, held).values()
    assert (list(artefact.numbers["FID"]), "AUROC" in artefact.caption) == ([31.5], False)
    assert "Fréchet" in artefact.caption
    assert not any(word in artefact.caption for word in ("Inception", "discrepancy"))  # no column of those


def test_points_in_the_plane_are_none_and_neither_is_what_was_not_sampled() -> None:
    held = Held()
    held.add("SM", "sm", 0, **{"test/mmd": 0.1, "test/c2st": 0.5})
    assert not built(images, held)
    assert not built(images, learning(Held(), {"CD-1": ("cd", 0.1)}))
