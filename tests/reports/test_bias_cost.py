"""What less bias costs, of cells made by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import document
from reports.artefacts import bias_cost, figure1
from tests.reports.stores import Held, biased, built, sweep

# variant: (method, its hyper-parameters, bias after 300, its interval, ms)
CELLS: dict[str, tuple[str, dict[str, str], tuple[float, float, float], float]] = {
    "BiDSM-0": ("bidsm", {"unroll_steps": "0", "hypergradient": "unroll"}, (1.2, 1.1, 1.3), 0.2),
    "BiDSM-5": ("bidsm", {"unroll_steps": "5", "hypergradient": "unroll"}, (1.0, 0.9, 1.1), 0.9),
    "implicit-5 [damping=0.1]": (
        "bidsm", {"unroll_steps": "5", "hypergradient": "implicit", "damping": "0.1"}, (2.0, 1.9, 2.1), 2.0),
    "implicit-5 [damping=1.0]": (
        "bidsm", {"unroll_steps": "5", "hypergradient": "implicit", "damping": "1.0"}, (0.9, 0.8, 1.0), 2.0),
    "VaGES-DSM-2": ("vages_dsm", {"particles": "2", "covariance": "unbiased"}, (0.3, 0.0, 0.5), 0.4),
    "VaGES-DSM-5 biased": ("vages_dsm", {"particles": "5", "covariance": "biased"}, (0.4, 0.3, 0.5), 0.5),
}  # fmt: skip


def measured(of: dict[str, tuple[float, float, float]] | None = None, **more: Any) -> Held:
    """``of``: other biases, with their intervals, by variant."""
    held, threads = Held(), {"threads": "1"}
    for variant, (method, params, known, ms) in CELLS.items():
        bias, low, high = (of or {}).get(variant, known)
        values = {"": bias, "_low": low, "_high": high, "_spread": 2.0, "_true": 6.0}
        own = {"damping": "1.0"} if method == "bidsm" else {}  # which the store holds of all of a method
        held.add(
            variant, method, 0, compiled="true",
            **{f"bias/gradient{name}_after_{after}": after / 300 * value
               for name, value in values.items() for after in (300, 600)},
            **{f"param.{name}": value for name, value in (own | params).items()},
            **{"time/ms_per_step": 3 * ms, "time/processor_ms_per_step": ms, "memory/peak_bytes": 4e8} | threads | more,
        )  # fmt: skip
    return held


def test_each_curve_has_its_variants_and_the_best_are_those_that_none_beats() -> None:
    found = built(bias_cost, measured())["bias-cost-board"]
    rows = found.numbers.set_index(["after", "variant"])
    curves = {variant: (row["series"], row["count"]) for variant, row in rows.loc[300].iterrows()}
    assert curves == {
        "BiDSM-0": ("BiDSM, unrolled", 0),
        "BiDSM-5": ("BiDSM, unrolled", 5),
        "implicit-5 [damping=0.1]": ("BiDSM, implicit, damping 0.1", 5),
        "implicit-5 [damping=1.0]": ("BiDSM, implicit, damping 1.0", 5),
        "VaGES-DSM-2": ("VaGES-DSM, covariance unbiased", 2),
        "VaGES-DSM-5 biased": ("VaGES-DSM, covariance biased", 5),
    }
    for after in (300, 600):
        assert list(rows.loc[after].index[rows.loc[after]["best"]]) == ["BiDSM-0", "VaGES-DSM-2"]
        assert rows.loc[(after, "BiDSM-5"), "bias"] == pytest.approx(after / 300)
    assert found.table is not None
    row = found.table.written.set_index(["after", "variant"]).loc[("600", "VaGES-DSM-2")]
    assert row["bias"] == "0.600"
    assert row["share of the true gradient"] == "5.0%"
    assert (row["best"], row["95% interval"]) == ("yes", "0 to 1.00")
    assert (row["ms per iteration"], row["peak MB"]) == ("0.400", "400")


def test_what_is_no_n_is_drawn_against_time_alone() -> None:
    held = measured()
    held.rows[1]["param.unroll_steps"] = "abc"
    found = built(bias_cost, held)["bias-cost-board"]
    assert found.numbers.set_index("variant").loc["BiDSM-5", "count"].isna().all()
    document.render(found, "svg")


def test_it_is_drawn_against_n_or_l_and_against_time() -> None:
    figure = built(bias_cost, measured())["bias-cost-board"].figure
    assert figure is not None
    by_count, by_time = figure.axes[:2]
    lines = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in by_count.lines}
    assert lines["BiDSM, unrolled"] == [[0.0, 1.2], [5.0, 1.0]]
    timed = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in by_time.lines}
    assert timed["BiDSM, unrolled"] == [[0.2, 1.2], [0.9, 1.0]]
    hollow = [line for line in by_time.lines if line.get_marker() == "v" and line.get_markerfacecolor() == "none"]
    assert [np.asarray(line.get_xydata()).tolist() for line in hollow] == [[[0.4, 0.5]]]  # not told from 0: at most 0.5
    assert timed["VaGES-DSM, covariance unbiased"] == []
    assert {text.get_text() for text in by_time.texts} == {"0", "2", "5"}
    assert by_count.get_ylim() == pytest.approx((0.3 / 1.3, 2.1 * 1.3))  # of what is told from 0
    assert "(true gradient: 6.00)" in by_count.get_ylabel()


def test_an_interval_that_is_0_altogether_is_at_the_edge() -> None:
    """On a logarithmic axis 0 is nowhere, and its variant would be missing."""
    nothing = (0.0, 0.0, 0.0)
    for of, edge in (({"VaGES-DSM-2": nothing}, (0.3 / 1.3, 2.1 * 1.3)), (dict.fromkeys(CELLS, nothing), (0.1, 1.0))):
        figure = built(bias_cost, measured(of))["bias-cost-board"].figure
        assert figure is not None
        by_time = figure.axes[1]
        assert by_time.get_ylim() == pytest.approx(edge)
        hollow = [line for line in by_time.lines if line.get_markerfacecolor() == "none"]
        assert [[0.4, pytest.approx(edge[0])]] in [np.asarray(line.get_xydata()).tolist() for line in hollow]


def test_time_is_the_processor_s_where_each_process_has_one_thread() -> None:
    found = built(bias_cost, measured())["bias-cost-board"]
    assert "processor time" in found.caption
    assert found.numbers["clock ms"].to_numpy() == pytest.approx(3 * found.numbers["ms"].to_numpy())
    for held in (measured(**{"time/processor_ms_per_step": math.nan}), measured(threads="2")):
        other = built(bias_cost, held)["bias-cost-board"]
        assert "training clock" in other.caption
        assert other.numbers["ms"].max() == 6.0


def test_figure_1_and_this_do_not_take_each_other_s_numbers() -> None:
    assert built(figure1, measured()) == {}
    assert list(bias_cost.build(sweep(biased(), Path("nowhere")))) == []


def test_more_bias_than_the_true_gradient_stands_at_the_edge_with_its_value() -> None:
    """One series that flies away would otherwise press all others onto a line."""
    away = {"implicit-5 [damping=0.1]": (4e6, 3e6, 5e6)}
    found = built(bias_cost, measured(away))["bias-cost-board"]
    assert found.figure is not None
    for number, axes in enumerate(found.figure.axes):
        high = axes.get_ylim()[1]
        truth = 6.0 * (1 if number < 2 else 2)
        assert truth < high < 2 * truth
        arrows = [line for line in axes.get_lines() if line.get_marker() == "^" and len(line.get_xdata()) == 1]
        edge = [float(line.get_ydata()[0]) for line in arrows if line.get_label().startswith("_")]
        assert [truth < y < high for y in edge] == [True]
    assert "5: 4,000,000" in {text.get_text() for text in found.figure.axes[1].texts}
    looks = [bias_cost._look(n) for n in range(12)]
    assert len({(look["color"], look.get("markerfacecolor"), look["marker"]) for look in looks}) == 12
    assert looks[0].get("markerfacecolor") is None
    assert looks[8]["color"] == looks[0]["color"]
    assert looks[8]["markerfacecolor"] == "white"
