"""The figures show the frame they are given, and say when it is not whole."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports import figure2, figure3, style
from reports.__main__ import main


def curves(variants: dict[str, str]) -> pd.DataFrame:
    """Three seeds and three steps; the value is the seed plus a thousandth of the step."""
    rows = [
        {"method": method, "variant": variant, "seed": seed, "step": step, "value": seed + step / 1000}
        for variant, method in variants.items()
        for seed in (0, 1, 2)
        for step in (0, 500, 1000)
    ]
    return pd.DataFrame(rows)


def test_band_is_the_mean_and_student_interval_over_seeds() -> None:
    summary = figure3.band(curves({"CD-1": "cd"}))
    assert summary["mean"].tolist() == [1.0, 1.5, 2.0]
    # three values 0, 1, 2 around their mean: deviation 1, t quantile 4.303 with 2 degrees of freedom
    assert summary["half_width"].tolist() == pytest.approx([4.302653 / np.sqrt(3)] * 3)


def test_one_seed_has_no_band() -> None:
    frame = curves({"CD-1": "cd"})
    assert figure3.band(frame[frame["seed"] == 1])["half_width"].tolist() == [0.0, 0.0, 0.0]


def test_figure3_draws_every_variant_in_the_panel_of_its_family() -> None:
    figure = figure3.draw(curves({"CD-1": "cd", "PCD-5": "pcd", "BiDSM-5": "bidsm", "Mine": "mine"}))
    shown = {axes.get_title(): [text.get_text() for text in axes.get_legend().get_texts()]
             for axes in figure.axes if axes.get_legend()}  # fmt: skip
    assert shown == {
        "Contrastive divergence": ["CD-1", "PCD-5"],
        "Bi-level score matching": ["BiDSM-5"],
        "Other": ["Mine"],
    }
    thick = next(line for line in figure.axes[0].lines if line.get_label() == "CD-1")
    assert thick.get_xydata().tolist() == [[0, 1.0], [500, 1.5], [1000, 2.0]]


def test_an_incomplete_figure_says_so() -> None:
    frame = curves({"CD-1": "cd"})
    assert figure3.draw(frame).get_suptitle() == ""
    assert figure3.draw(frame, missing=3).get_suptitle() == "INCOMPLETE: 3 cells are missing or failed"


def test_figure2_shows_the_data_beside_the_models(tmp_path: Path) -> None:
    axis = np.linspace(-0.25, 1.25, 151)
    np.savez(tmp_path / "a.npz", axis=axis, density=np.full((151, 151), 0.25))
    figure = figure2.draw({"SM": tmp_path / "a.npz"})
    panels = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    assert set(panels) == {"data", "SM"}
    assert float(panels["data"].sum() * 0.01**2) == pytest.approx(1.0, abs=0.02)
    assert float(panels["SM"].max()) == 0.25


def test_the_checkerboard_density_lies_on_the_rising_diagonal() -> None:
    density = figure2.checkerboard(np.array([0.25, 0.75]))
    assert density.tolist() == [[2.0, 0.0], [0.0, 2.0]]


def test_methods_keep_their_colours() -> None:
    assert len({str(style.colour(method)) for method in ("cd", "pcd", "nce", "vnce", "sm", "ssm", "dsm", "mdsm",
                                                         "bissm", "bidsm", "bimdsm")}) == 11  # fmt: skip


def test_a_store_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--tracking-uri", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert "no such store; `python -m benchmark run` makes one" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
