"""Whether examples of a class that was held out are told from those that were trained on."""

import warnings
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmark.data.datasets import DataSet
from benchmark.measures.pictures import save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from benchmark.measures.probes.latents import in_parts, seeded
from benchmark.measures.probes.out_of_distribution import draw_energies
from bism import Estimator
from bism.latent_likelihood import posterior_mean
from bism.variables import Gaussian


class Anomaly(Probe):
    """Detection of a held-out class (``data: {name: mnist, held_out: 4}``), after Zenati et al. 2018.

    ``anomaly/auprc`` is the average precision, and ``anomaly/auroc`` the area under the ROC curve, by which test
    examples of that class are found among all by their score: F(v) where the model has it; else -log p~(v, h) (Pang et
    al. 2020) at the mean h of the posterior, or without a posterior at E[h|v] by annealing (``posterior_mean``): at the
    end of a single chain, as Pang et al. take it, the chain's noise hides what the score is about. ``anomaly/share`` is
    the share of the class, which is the precision of guessing.

    Beside it for scale: ``..._reconstruction`` by the squared error of E[v|h] at that h, of models with a decoder, and
    ``..._gaussian`` by the distance from a Gaussian fit to the training data (Ledoit and Wolf 2004's covariance).

    Options:
        train_examples: for the Gaussian, at most, drawn at random.
    """

    train_examples: int = Field(10_000, gt=1)

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        if hasattr(model, "free_energy") or isinstance(model.latent, Gaussian):
            return None
        return "the model has neither a free energy nor real latent variables at which its energy could be taken"

    @staticmethod
    def lacking(data: DataSet) -> str | None:
        return None if data.held_out is not None else "no class was held out: data: {name: digits, held_out: 4} does so"

    def measure(self, subject: Subject) -> Metrics:
        data = subject.data
        assert data.labels is not None  # see lacking()
        assert data.held_out is not None
        odd = data.labels[2].eq(data.held_out)
        scores = self.scores(subject) | {"gaussian": self.by_gaussian(subject)}
        metrics = Metrics({"anomaly/share": float(odd.float().mean())})
        for name, values in scores.items():
            metrics |= _found(odd, values, "" if name == "energy" else f"_{name}")
        subject.folder.mkdir(parents=True, exist_ok=True)
        file = save_arrays(subject.folder, "anomaly", subject.fitted.step, held_out=odd, **scores)
        if "anomaly/auroc" in metrics:
            shown = {"test": scores["energy"][~odd].numpy(), f"class {data.held_out}": scores["energy"][odd].numpy()}
            said = {f"ood/auroc_class {data.held_out}": metrics["anomaly/auroc"]}
            draw_energies(shown, said, file, f"step {subject.fitted.step:,}")
        return metrics

    def scores(self, subject: Subject) -> dict[str, Tensor]:
        """Scores of the test data by the model, by name, each [test], higher for what is odd."""
        model, test, scaling = subject.fitted.model(subject.seed), subject.data.test, subject.data.scaling
        if hasattr(model, "free_energy"):
            return {"energy": in_parts(model.free_energy, test, subject)}
        joint, posterior = subject.fitted.joint(subject.seed)  # in the units of the training
        decodes = hasattr(joint, "visible_mean")

        def of(v: Tensor) -> Tensor:
            v = v.to(next(joint.parameters()))
            h = posterior_mean(joint, v, seed=subject.seed) if posterior is None else posterior.mean(v)
            error = (v - joint.visible_mean(h)).flatten(1).square().sum(1) if decodes else v.new_zeros(len(v))
            return torch.stack([joint.energy(v, h), error], 1)

        energy, error = in_parts(of, scaling.scaled(test) if scaling else test, subject).unbind(1)
        return {"energy": energy, "reconstruction": error} if decodes else {"energy": energy}

    def by_gaussian(self, subject: Subject) -> Tensor:
        """Squared Mahalanobis distances of the test data, [test]."""
        from sklearn.covariance import LedoitWolf

        train, test = (split.flatten(1).double() for split in (subject.data.train, subject.data.test))
        order = seeded(subject, "rows for a Gaussian", train).uniform((len(train),)).argsort()[: self.train_examples]
        fit = LedoitWolf().fit(train[order].numpy())
        return torch.from_numpy(fit.mahalanobis(test.numpy()))


def _found(odd: Tensor, scores: Tensor, end: str) -> Metrics:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not scores.isfinite().all():
        warnings.warn(f"anomaly/auprc{end} was not computed: scores that are not finite", stacklevel=3)
        return {}
    return {
        f"anomaly/auprc{end}": float(average_precision_score(odd.numpy(), scores.numpy())),
        f"anomaly/auroc{end}": float(roc_auc_score(odd.numpy(), scores.numpy())),
    }
