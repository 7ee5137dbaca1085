"""Every estimator of the packages, found by discovery, with small settings to train it with."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import baselines
import bism
from bism import DBM, DBN, GRBM, RBM, Estimator
from bism.engine import Trainer
from bism.flips import BiFlips
from bism.hyperparameters import specs
from bism.latent import latent_mlp
from bism.mlp import MLPEBM
from bism.rng import Rng
from bism.variables import has_binary_v
from tests.contracts.phased import Phased
from tests.contracts.staged import Staged
from tests.maths.exact import BernoulliGaussian, LinearGaussian

SMALL = {
    "inner_steps": 2,
    "unroll_steps": 1,
    "k": 2,
    "nu": 2,
    "noise_particles": 2,
    "max_steps": 4,
    "tries": 2,
    "samples": 2,
    "decoder_steps": 1,
    "proposal_steps": 2,
    "mean_field_steps": 2,
    "code_steps": 1,
    "prior_steps": 2,
    "posterior_steps": 1,
    "chain_steps": 2,
    "leapfrog_steps": 2,
    "gibbs_sweeps": 2,
    "chains": 4,
    "components": 2,
    "second_width": 4,
    "second_layers": 1,
    "points": 2,
    "couplings": 1,  # compiling two took four minutes
    "width": 8,
}
ALIKE = {
    *("ratio_matching", "mpf", "bi_pseudo_likelihood", "bi_mpf"),  # but for a function of the log-ratios, as others
    "bimdsm_gmm",  # bimdsm's steps, and of rae what is kept for afterwards
    "vae_gmm",  # vae's steps, and of rae what is kept for afterwards
    "lebm_amortised",  # lebm's chains on the prior, and hoffman's start and bound
}
PROGRAMS_ALIKE = ALIKE | {  # compiled programs that have no part which no other has
    *("bissm", "vages_mdsm", "vages_ksd"),  # bidsm's or vages_dsm's steps with the objective of another
    *("langevin_pcd", "short_run", "generative_convnet"),  # chains of langevin_cd, pcd and igebm
    "two_stage_vae",  # vae twice, in stages as staged has
}
ITERATIONS = 10  # that stages share; the last goes on


def discovered() -> list[type[Estimator]]:
    """All estimators that the modules of ``bism`` and ``baselines`` define, by id; but that which the study of biases
    compares others by, which is none to train models with."""
    for package in (bism, baselines):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    found, waiting = [], list(Estimator.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not inspect.isabstract(kind) and re.match(r"(bism|baselines)\.(?!bias\.)", kind.__module__):
            found.append(kind)
    return sorted(dict.fromkeys(found), key=lambda kind: kind.id)


def kinds() -> list[type[Estimator]]:
    """These, one that trains in stages, and one whose steps have phases."""
    return [*discovered(), Phased, Staged]


@dataclasses.dataclass(frozen=True)
class Case:
    """An estimator with its settings, and a model that it can train; ``long`` where the quick tests do without it."""

    name: str
    estimator: Estimator
    model: nn.Module
    long: bool = False

    def data(self, size: int = 200) -> Tensor:
        """Something to train this model on, in float64."""
        return (data(size) > 0.2).double() if has_binary_v(self.model) else data(size)


def small(kind: type[Estimator], of: type[nn.Module] | None = None, **changes: Any) -> Case:
    """An estimator with few steps and samples, and the first model that it supports; another one with ``of``."""
    options = {name: value for name, value in SMALL.items() if name in specs(kind)} | changes
    estimator = kind(**options)
    torch.manual_seed(1)
    models = [m for m in zoo(kind) if of in (None, type(m))]
    model = next(m for m in models if estimator.unsupported(m) is None)
    own = [of.__name__] if of else []
    return Case("-".join([kind.id, *map(str, changes.values()), *own]), estimator, model)


def zoo(kind: type[Estimator]) -> list[nn.Module]:
    """A model of each kind of units; for methods that need a decoder, those that have one."""
    if "log_visible" in kind.needs:
        sizes: Any = {"width": 4, "layers": 1}
        made: Any = (
            {},
            {"prior": "tilted", "prior_width": 4, "prior_layers": 1},
            {"observation": "bernoulli"},
            {"learn_sigma": True},
            {"spectral_norm": True},
            {"prior": "rbm", "smoothing": "overlapping_exponential"},
            {"prior": "rbm", "observation": "bernoulli"},
        )
        made = made[1:] + made[:1] if getattr(kind, "any_prior", False) else made
        return [latent_mlp(2, 2, **options, **sizes) for options in made]
    return [
        GRBM(2, 3),
        LinearGaussian(2, 2),
        RBM(2, 3),
        BernoulliGaussian(2, 2),
        DBM(2, [3, 2]),
        DBN(2, [3, 2]),
        MLPEBM(2, width=4, layers=1),
    ]


@functools.cache  # three modules ask
def cases() -> list[Case]:
    """Each estimator, and each with every other value of its named choices; of those that are declared for several
    methods by a base of theirs, once. And each with the other models of the zoo that it can train."""
    found, seen = [], set[tuple[type, str, str]]()
    for kind in kinds():
        found.append(dataclasses.replace(small(kind), long=kind.id in ALIKE))
        base = kind.__bases__[-1]
        long = base is BiFlips or kind.id in ALIKE
        for name, spec in specs(kind).items():
            default = next(field.default for field in dataclasses.fields(kind) if field.name == name)
            declared = base if name in specs(base) else kind
            others = [one for one in spec.choices or () if one != default and (declared, name, one) not in seen]
            seen |= {(declared, name, one) for one in others}
            found += [dataclasses.replace(small(kind, **{name: value}), long=long) for value in others]
        if "particles" in specs(kind):
            found.append(dataclasses.replace(small(kind, particles=2), long=long))
        first = small(kind)
        others = [
            type(m) for m in zoo(kind) if type(m) is not type(first.model) and first.estimator.unsupported(m) is None
        ]
        found += [dataclasses.replace(small(kind, of=other), long=other is not RBM) for other in others]
    return found


def smallest() -> list[Case]:
    """Each estimator once."""
    return [dataclasses.replace(small(kind), long=kind.id in ALIKE) for kind in kinds()]


def parameters_of(chosen: Sequence[Case]) -> list[Any]:
    """The cases as pytest takes them."""
    return [pytest.param(case, id=case.name, marks=[pytest.mark.long] * case.long) for case in chosen]


def to_resume() -> list[Case]:
    """Each estimator, and the variants that carry other things from step to step."""
    chosen = [small(kind) for kind in kinds()]
    bidsm = next(kind for kind in discovered() if kind.id == "bidsm")
    changes: list[dict[str, Any]] = [{"lower_optimiser": "sgd"}, {"inner_batches": "fresh"}, {"lower": "fisher"}]
    return chosen + [small(bidsm, **change) for change in changes]


def data(size: int = 200) -> Tensor:
    """Something to train on, in float64."""
    return 0.7 * Rng(torch.Generator().manual_seed(2), torch.float64).normal((size, 2)) + 0.2


def trainer(case: Case, seeds: tuple[int, ...] = (0, 1), **options: Any) -> Trainer:
    """A trainer of a case in float64 on small minibatches."""
    options = {"batch_size": 20, "dtype": torch.float64, "iterations": ITERATIONS, **options}
    return Trainer(case.estimator, case.model, case.data(), seeds=seeds, **options)


def distance(x: Any, y: Any) -> float:
    """The largest difference between two trees, relative where the numbers are larger than one."""
    pairs = [(a.double(), b.double()) for a, b in zip(tree_leaves(x), tree_leaves(y), strict=True) if a.numel()]
    return max((float(((a - b).abs() / b.abs().clamp(min=1)).max()) for a, b in pairs), default=0.0)


def one_seed(tensors: Any, index: int) -> Any:
    """A trainer's numbers of one seed."""
    return tree_map(lambda x: x[index], tensors)


def fit(case: Case, steps: int, resume: Path | None = None) -> Any:
    """``Estimator.fit`` with the same."""
    options: Any = {"batch_size": 20, "dtype": torch.float64, "compile": False, "iterations": max(steps, 60)}
    return case.estimator.fit(case.model, case.data(), seeds=(0, 1), steps=steps, resume=resume, **options)


def same(x: Any, y: Any) -> bool:
    """Whether two trees are equal to the last bit."""
    pairs = list(zip(tree_leaves(x), tree_leaves(y), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def go_on(folder: str, steps: str) -> None:
    """Resumes each from its checkpoint in ``folder`` and saves it beside; run in a process of its own."""
    torch.set_num_threads(1)
    for case in to_resume():
        fit(case, int(steps), Path(folder) / f"{case.name}.begun").save(Path(folder) / f"{case.name}.resumed")


if __name__ == "__main__":
    go_on(*sys.argv[1:])
