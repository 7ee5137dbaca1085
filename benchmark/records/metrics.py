"""What is measured of a model, each metric one object: what it is called, its unit, which way is better, which models
it suits, and whether models are ranked by it. In stores and journals "test/log_likelihood" is a metric of a split."""

import dataclasses
import re
from collections.abc import Callable, Container
from typing import Any

SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric by itself, of whatever split of the data.

    Attributes:
        name: in files, stores and on the command line, without the split.
        label: for people.
        unit: empty where it has none.
        higher: whether a model is better the higher it is.
        of_models: whether a suite's tasks may list it, to be computed at every evaluation.
        of_samples: whether it is of samples, and so the same for all splits and measured where a probe samples.
        positive: whether no value of it is below 0.
        part: the trained part that it is of, where it is not of the model alone.
        known: whether it is one of these here; a probe may measure more.
        unsuited: why it cannot be computed for a model, or None.
    """

    name: str
    label: str
    unit: str = ""
    higher: bool = False
    of_models: bool = False
    of_samples: bool = False
    positive: bool = False
    part: str = "model"
    known: bool = True
    unsuited: Callable[[Any], str | None] = lambda model: None


def _no_log_z(model: Any) -> str | None:
    from bism.likelihood import not_exact

    reason = not_exact(model)
    return f"needs log Z, by enumeration: {reason}" if reason else None


def _no_score(model: Any) -> str | None:
    from bism.variables import has_binary_v

    if has_binary_v(model):
        return f"is undefined, for v of {type(model).__name__} is binary and has no score: leave it out of metrics"
    lacks = not hasattr(model, "free_energy")
    return f"needs free_energy(v), which {type(model).__name__} lacks" if lacks else None


def _no_continuous_latent(model: Any) -> str | None:
    from bism.variables import Bernoulli

    return "differentiates in h, which is binary" if isinstance(model.latent, Bernoulli) else None


# Those that models are ranked by, the preferred first: a task's models are compared by the first that was measured.
RANKED = (
    Metric("fid", "FID", of_samples=True, positive=True),
    Metric("frechet_resnet56", "Fréchet distance of ResNet-56 features", of_samples=True, positive=True),
    Metric("log_likelihood", "log-likelihood", "nats", higher=True, of_models=True, unsuited=_no_log_z),
    Metric("log_likelihood_bound", "log-likelihood, its bound or estimate", "nats", higher=True),
    Metric("fisher_divergence", "Fisher divergence", "up to a constant", of_models=True, unsuited=_no_score),
    Metric(
        "posterior_fisher_divergence",
        "Fisher divergence of the posterior",
        of_models=True,
        positive=True,
        part="posterior",
        unsuited=_no_continuous_latent,
    ),
)
OTHERS = (
    Metric("kid", "KID", of_samples=True),
    Metric("inception_score", "Inception Score", higher=True, of_samples=True),
    *(
        Metric(f"{prefix}{name}", f"{label} of {whose} and data", of_samples=True)
        for prefix, whose in (("", "samples"), ("long_", "long chains"))
        for name, label in (
            ("mmd", "squared MMD"),
            ("ksd", "squared kernel Stein discrepancy"),
            ("c2st", "accuracy of a classifier"),
        )
    ),
    Metric("log_likelihood_iw", "importance-weighted bound of the log-likelihood", "nats", higher=True),
    Metric("log_likelihood_bound_lower", "lower end of the log-likelihood's bound", "nats", higher=True),
    Metric("log_likelihood_bound_upper", "upper end of the log-likelihood's bound", "nats", higher=True),
    Metric("raise_log_likelihood", "log-likelihood by RAISE", "nats", higher=True),
    Metric("log_likelihood_lower", "lower bound of the log-likelihood", "nats", higher=True),
    Metric("log_likelihood_upper", "upper bound of the log-likelihood", "nats", higher=True),
    Metric("objective", "objective of the method"),
    Metric("train_seconds", "training time", "s"),
)
_BY_NAME = {metric.name: metric for metric in (*RANKED, *OTHERS)}
_HIGHER_ENDINGS = ("accuracy",)  # of metrics whose names begin with what they are of
_HIGHER_BEGINNINGS = ("auroc", "auprc")


def metric_of(name: str) -> Metric:
    """The metric behind a name with or without a split: "test/log_likelihood". Lower is better of one that is not
    known."""
    own = name.rpartition("/")[2]
    higher = own.endswith(_HIGHER_ENDINGS) or own.startswith(_HIGHER_BEGINNINGS)
    return _BY_NAME.get(own) or Metric(own, own.replace("_", " "), higher=higher, known=False)


def ranked_by(measured: Container[str]) -> str | None:
    """Of what was measured on the test data what models are ranked by, "test/log_likelihood"; None where there is
    none of those."""
    return next((f"test/{metric.name}" for metric in RANKED if f"test/{metric.name}" in measured), None)


# What else stands in journals: of a split beside the metrics above, and what probes and the clock measure.
_OF_A_SPLIT = ("lower_objective", "critic_fisher_divergence", "ais_effective_samples", "iw_effective_samples")
_ERRORS = ("", "_stderr", "_examples_stderr")
_OF_A_METHOD = re.compile("val/[a-z][a-z0-9_]{0,60}")  # figures of its own: how many coupled chains have not met
STUDIES = (
    "ais", "anomaly", "bias", "bound", "class_kept", "codes", "coupling", "couplings", "langevin", "latent", "log_z",
    "ood", "stability", "time", "memory",
)  # fmt: skip


def is_measured(name: str) -> bool:
    """Whether something by this name is measured here: "test/log_likelihood_bound_stderr", "ais/gap", "val/not_met".

    Methods, those of users too, name their own figures, which are of validation data.
    """
    if _OF_A_METHOD.fullmatch(name):
        return True
    split, slash, own = name.partition("/")
    if split == "selected":
        return own == "step" or (own.partition("/")[0] in SPLITS and is_measured(own))
    if split in STUDIES:
        return re.fullmatch("[A-Za-z0-9_.+-]{1,80}", own) is not None
    bare = [own.removesuffix(ending) for ending in _ERRORS]
    return bool(slash) and split in SPLITS and any(one in _BY_NAME or one in _OF_A_SPLIT for one in bare)
