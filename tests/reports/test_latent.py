"""What the report shows of models with a prior and a decoder."""

from pathlib import Path

import numpy as np
import pytest

from reports.artefacts import bounds, latent
from reports.artefacts import held as held_by_h
from tests.reports.stores import Held, built

TIME = {"time/ms_per_step": 2.0, "time/compile_seconds": 1.0}


def test_likelihoods_are_means_over_seeds_of_what_was_measured(tmp_path: Path) -> None:
    held = Held()
    for seed, (low, gap) in enumerate(((1.0, 0.5), (3.0, 0.7))):
        found = {"test/log_likelihood_bound_lower": low, "latent/ais_gap": gap, "test/mmd": 0.1}
        held.add("LEBM-60", "lebm", seed, **found, **TIME)
    held.add("VAE", "vae", 0, **{"test/log_likelihood": -1.5, "test/mmd": 0.2}, **TIME)  # type: ignore[arg-type]
    (artefact,) = built(latent, held, tmp_path).values()
    rows = {row["variant"]: row for row in artefact.numbers.to_dict("records")}
    assert rows["LEBM-60"]["lower"] == 2.0
    assert rows["LEBM-60"]["gap"] == pytest.approx(0.6)
    assert rows["VAE"]["exact"] == -1.5
    assert np.isnan(rows["LEBM-60"]["exact"])
    assert "importance-weighted" not in artefact.numbers
    assert not built(bounds, held, tmp_path)  # which is about log Z that AIS finds for Boltzmann machines


def test_steps_of_one_kind_of_chains_are_compared_at_the_other_s_usual_number(tmp_path: Path) -> None:
    held = Held()
    tried = [(5, 20, -3.0), (20, 20, -2.0), (60, 20, -1.0), (60, 5, -2.5), (60, 40, -0.5), (5, 5, -9.0)]
    for prior, posterior, value in tried:
        steps = {"param.prior_steps": str(prior), "param.posterior_steps": str(posterior)}
        held.add(f"LEBM-{prior} {posterior}", "lebm", 0, **{"test/log_likelihood": value}, **steps, **TIME)  # type: ignore[arg-type]
    artefact = built(latent, held, tmp_path)["chain-steps-lebm-board"]
    curves = dict(iter(artefact.numbers.groupby("chains")))
    assert curves["prior"][["steps", "quality"]].to_numpy().tolist() == [[5, -3], [20, -2], [60, -1]]
    assert curves["posterior"][["steps", "quality"]].to_numpy().tolist() == [[5, -2.5], [20, -1], [40, -0.5]]
    assert "60 on the prior and 20 on the posterior" in artefact.caption
    assert artefact.figure is not None
    lines = list(artefact.figure.axes[1].lines)
    assert [list(line.get_xdata()) for line in lines] == [[5, 20, 60], [5, 20, 40]]


def test_prior_and_codes_of_the_data_stand_in_one_panel(tmp_path: Path) -> None:
    held, draws = Held(), np.random.default_rng(0)
    held.add("VAE", "vae", 0, **{"latent/mmd_prior": 0.3, "latent/mmd_normal": 0.3})  # type: ignore[arg-type]
    content = {name: draws.normal(size=(50, 2)) for name in ("prior", "normal", "aggregate")}
    held.arrays["grbm-paper-board-VAE-0", "aggregate"] = {"step": np.array(5), **content}
    artefact = built(latent, held, tmp_path)["codes-of-data-board"]
    assert artefact.figure is not None
    prior, codes = artefact.figure.axes[0].collections
    assert np.allclose(np.asarray(prior.get_offsets()), content["prior"])
    assert np.allclose(np.asarray(codes.get_offsets()), content["aggregate"])
    assert artefact.numbers["MMD² of codes, prior"].tolist() == [0.3]


def test_few_labels_have_the_pixels_below_them(tmp_path: Path) -> None:
    held = Held()
    for count, accuracy in ((1, 0.3), (10, 0.8)):
        found = {f"latent/labels_{count}_accuracy": accuracy, f"latent/labels_{count}_pixels_accuracy": accuracy / 2}
        held.add("VAE", "vae", count, **found)  # type: ignore[arg-type]
    table = built(latent, held, tmp_path)["few-labels-board"].numbers
    assert table.to_dict("records") == [
        {"variant": "VAE", "1": 0.3, "10": 0.8},
        {"variant": "pixels", "1": 0.15, "10": 0.4},
    ]


def test_anomalies_stand_beside_what_is_published_of_the_same_digit(tmp_path: Path) -> None:
    held = Held()
    for seed, value in enumerate((0.5, 0.7)):
        labels = {"param.data": "mnist", "param.data_held_out": "4"}
        held.add("LEBM-60", "lebm", seed, **{"anomaly/auprc": value, "anomaly/share": 0.1}, **labels)  # type: ignore[arg-type]
    table = built(latent, held, tmp_path)["anomaly"].numbers
    assert table["AUPRC"].tolist() == pytest.approx([0.6, 0.630, 0.337, 0.401, 0.443])
    assert table["held out"].tolist() == [4.0] * 5
    assert table["± 95%"].tolist()[0] == pytest.approx(12.7062 * 0.1, rel=1e-4)  # Student's t of two
    other = Held()
    other.add("VAE", "vae", 0, **{"anomaly/auprc": 0.5, "param.data": "digits", "param.data_held_out": "4"})  # type: ignore[arg-type]
    assert built(latent, other, tmp_path)["anomaly"].numbers["variant"].tolist() == ["VAE"]


@pytest.mark.parametrize("text", ["abc", "", "inf"])
def test_what_is_no_number_of_steps_and_no_digit_is_left_out(text: str, tmp_path: Path) -> None:
    held = Held()
    for prior, posterior in (("5", "20"), ("20", "20"), ("60", "20"), ("60", text), (text, "20")):
        steps = {"param.prior_steps": prior, "param.posterior_steps": posterior}
        held.add(f"LEBM-{prior} {posterior}", "lebm", 0, **{"test/log_likelihood": 1.0}, **steps, **TIME)  # type: ignore[arg-type]
    held.add("VAE", "vae", 0, **{"anomaly/auprc": 0.5, "param.data": "mnist", "param.data_held_out": text})  # type: ignore[arg-type]
    found = built(latent, held, tmp_path)
    assert found["chain-steps-lebm-board"].numbers["steps"].tolist() == [5, 20, 60]
    assert found["anomaly"].numbers["held out"].isna().all()


def test_what_h_holds_has_the_images_below_it(tmp_path: Path) -> None:
    held = Held()
    for seed, (kept, probe) in enumerate(((0.7, 0.9), (0.9, 0.94))):
        found = {"class_kept/share": kept, "class_kept/by_chance": 0.1, "class_kept/of_images": 0.98}
        held.add("VAE", "vae", seed, **found, **{"latent/linear_probe_accuracy": probe}, **TIME)
    held.add("BiMDSM", "bimdsm", 0, **{"class_kept/share_of_h": 0.0001, "class_kept/of_images": 0.96}, **TIME)  # type: ignore[arg-type]
    held.add("MDSM", "mdsm", 0, **TIME)  # type: ignore[arg-type]  # has no h
    held.add("LEBM", "lebm", 0, **{"class_kept/share": 0.95, "test/mmd": 0.005}, **TIME)  # type: ignore[arg-type]
    held.add("LEBM", "lebm", 1, "diverged")
    held.add("VaGES", "vages_mdsm", 0, "diverged")
    (artefact,) = built(held_by_h, held, tmp_path).values()
    assert artefact.table is not None
    rows = artefact.table.written.set_index("variant")
    assert list(rows.index) == ["LEBM", "VAE", "BiMDSM", "images"]  # by class kept, then what has none
    assert rows["seeds"].tolist() == ["1", "2", "1", ""]
    assert rows["± class kept"].tolist() == ["", "1.27", "", ""]  # 12.7 × 0.1
    assert rows["MMD²"].tolist() == ["0.0050", "", "", ""]
    assert "± by chance" not in rows
    assert "sorted by class kept" in artefact.caption
    assert artefact.caption.endswith(" Diverged, and not in here: VaGES (all seeds), LEBM (1 of 2 seeds).")
    rows = rows.loc[["VAE", "BiMDSM", "images"]]
    assert len(rows) == 3
    assert rows["class kept"].tolist() == ["0.80", "", "0.97"]
    assert rows["by chance"].tolist() == ["0.10", "", ""]
    assert rows["share of h"].tolist() == ["", "0.0001", ""]
    assert rows["linear probe"].tolist() == ["0.92", "", ""]
