"""Measurements that are too expensive for every evaluation: taken at given iterations, or of the best and the last
checkpoint. A suite asks for them by name, with options; an option's default and limits are the field's."""

from benchmark.measures.probes.aggregate import Aggregate
from benchmark.measures.probes.annealing import Annealing
from benchmark.measures.probes.anomaly import Anomaly
from benchmark.measures.probes.base import NO_JUDGES, Judges, Metrics, Probe, Subject
from benchmark.measures.probes.bias import GradientBias, PracticalBias, Theorem2
from benchmark.measures.probes.bound import Bound
from benchmark.measures.probes.class_kept import ClassKept
from benchmark.measures.probes.codes import Codes
from benchmark.measures.probes.coupling import Coupling
from benchmark.measures.probes.couplings import Couplings
from benchmark.measures.probes.critic import CriticDivergence
from benchmark.measures.probes.few_labels import FewLabels
from benchmark.measures.probes.latent_likelihood import LatentLikelihood
from benchmark.measures.probes.latents import Conditional, Features
from benchmark.measures.probes.log_z_bounds import LogZBounds
from benchmark.measures.probes.out_of_distribution import OutOfDistribution
from benchmark.measures.probes.samples import Samples
from benchmark.measures.probes.stability import Stability
from benchmark.measures.probes.two_samples import TwoSamples

PROBES: dict[str, type[Probe]] = {
    "aggregate": Aggregate,
    "annealing": Annealing,
    "anomaly": Anomaly,
    "bound": Bound,
    "theorem2": Theorem2,
    "practical_bias": PracticalBias,
    "gradient_bias": GradientBias,
    "critic": CriticDivergence,
    "class_kept": ClassKept,
    "codes": Codes,
    "coupling": Coupling,
    "couplings": Couplings,
    "latent_likelihood": LatentLikelihood,
    "log_z_bounds": LogZBounds,
    "samples": Samples,
    "stability": Stability,
    "two_samples": TwoSamples,
    "conditional": Conditional,
    "features": Features,
    "few_labels": FewLabels,
    "out_of_distribution": OutOfDistribution,
}

__all__ = [
    "NO_JUDGES",
    "PROBES",
    "Aggregate",
    "Annealing",
    "Anomaly",
    "Bound",
    "ClassKept",
    "Codes",
    "Conditional",
    "Coupling",
    "Couplings",
    "CriticDivergence",
    "Features",
    "FewLabels",
    "GradientBias",
    "Judges",
    "LatentLikelihood",
    "LogZBounds",
    "Metrics",
    "OutOfDistribution",
    "PracticalBias",
    "Probe",
    "Samples",
    "Stability",
    "Subject",
    "Theorem2",
    "TwoSamples",
]
