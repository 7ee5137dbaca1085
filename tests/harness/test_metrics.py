"""What a metric is, is said in one place: the end of a run, the tuning and the report agree."""

import pandas as pd
import pytest
from torch import nn

from baselines import CD
from benchmark.records.metrics import OTHERS, RANKED, metric_of, ranked_by
from benchmark.records.selection import better
from benchmark.tasks.suite import METRICS
from benchmark.tuning.study import is_measured
from bism import GRBM, BiDSM
from bism.resnet import ResNetEBLVM
from reports import terms
from reports.sweep import better_is_high


@pytest.mark.parametrize("metric", [*RANKED, *OTHERS], ids=lambda metric: metric.name)
def test_every_part_of_the_suite_takes_the_direction_from_the_metric(metric: object) -> None:
    name = f"test/{metric.name}"  # type: ignore[attr-defined]
    assert metric_of(name) is metric
    assert better_is_high(name) == metric.higher  # type: ignore[attr-defined]
    assert (better(name, 1.0) > better(name, 0.0)) == metric.higher  # type: ignore[attr-defined]


def test_directions() -> None:
    higher = {metric.name for metric in (*RANKED, *OTHERS) if metric.higher}
    assert higher == {
        "log_likelihood", "log_likelihood_bound", "log_likelihood_lower", "log_likelihood_upper",
        "log_likelihood_bound_lower", "log_likelihood_bound_upper", "log_likelihood_iw", "raise_log_likelihood",
        "inception_score",
    }  # fmt: skip
    assert metric_of("test/features_accuracy").higher
    assert metric_of("ood/auroc_noise").higher
    assert not metric_of("ood/energy").higher
    assert not metric_of("val/objective").higher


def test_models_are_ranked_by_the_preferred_of_what_was_measured() -> None:
    measured = ["test/fisher_divergence", "test/log_likelihood", "val/fid", "test/kid"]
    assert ranked_by(measured) == "test/log_likelihood"
    assert ranked_by([*measured, "test/frechet_resnet56"]) == "test/frechet_resnet56"
    assert ranked_by(["test/posterior_fisher_divergence"]) == "test/posterior_fisher_divergence"
    assert ranked_by(pd.DataFrame({"test/kid": [1.0]})) is None


class Visible(nn.Module):
    visible_shape, latent = (2,), None


def test_a_metric_says_which_models_it_suits() -> None:
    small, large, deep = GRBM(2, 3), GRBM(3, 21), ResNetEBLVM((1, 8, 8), hidden=2, width=2, layers=12)
    suited = {
        name: [metric_of(name).unsuited(model) is None for model in (small, large, deep, Visible())] for name in METRICS
    }
    assert suited == {
        "log_likelihood": [True, False, False, False],
        "fisher_divergence": [True, True, False, False],
        "posterior_fisher_divergence": [False, False, True, True],
    }
    assert metric_of("log_likelihood").unsuited(large) == (
        "needs log Z, by enumeration: 2^21 configurations are too many (at most 2^20); by quadrature: "
        "v is not one or two real units"
    )
    assert metric_of("fisher_divergence").unsuited(Visible()) == "needs free_energy(v), which Visible lacks"


def test_a_metric_of_a_part_is_measured_of_those_who_train_it() -> None:
    assert is_measured(METRICS, BiDSM) == METRICS
    assert is_measured(METRICS, CD) == ["log_likelihood", "fisher_divergence"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("test/log_likelihood", "test log-likelihood (nats)"),
        ("val/fisher_divergence", "validation Fisher divergence (up to a constant)"),
        ("val/fid", "FID"),
        ("time/train_seconds", "training time (s)"),
        ("ood/auroc_noise", "ood/auroc_noise"),
    ],
)
def test_what_it_is_called(name: str, said: str) -> None:
    assert terms.measure(name) == said
