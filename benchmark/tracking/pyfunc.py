"""The code of the models in MLflow: log p(v) of the rows of a table, and samples. Run by MLflow, which keeps a copy of
it in each model. Loading one needs ``bism`` and ``benchmark`` importable.
"""

import json
import math
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from benchmark.tasks.models import build_model
from benchmark.tasks.registry import methods
from bism import Estimator
from bism.checkpoint import load_checkpoint
from bism.checks import check_count, not_binary
from bism.errors import InputError
from bism.likelihood import log_density_bound, log_likelihood, log_partition_if_any, not_exact
from bism.posteriors import default_posterior
from bism.rng import Rng, generator
from bism.sampling import no_sampler, sampler
from bism.scaling import Scaling
from bism.state import Parts
from bism.variables import has_binary_v

SAMPLING = {"sample": 0, "sweeps": 1000, "seed": 0}  # what ``params`` may have, and its defaults


class TrainedModel(PythonModel):
    """A trained energy-based model, rebuilt from its configuration and a checkpoint."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuilds the model in float64, and its log Z where that can be had."""
        config = json.loads(Path(context.artifacts["config"]).read_text())
        tensors = load_checkpoint(context.artifacts["checkpoint"])["tensors"]
        saved = tensors.get("average", tensors["state"]["params"])
        self.model: Any = _filled(build_model(config["model"]), saved["model"])
        self.posterior = None
        if joint := _joint(config, {**tensors["state"], "params": saved}):
            self.model, self.posterior = joint
        elif not hasattr(self.model, "free_energy") and "posterior" in saved:
            own: Any = default_posterior(self.model)
            if dict(own.named_parameters()).keys() <= saved["posterior"].keys():  # else the method has one of its own
                self.posterior = _filled(own, saved["posterior"])
        self.scaling = None
        if "scaling" in config["data"]:  # trained on scaled data; tables and densities are in the data's own units
            self.scaling = scaling = Scaling.from_record(config["data"]["scaling"])
            self.model = scaling.model(self.model)
            self.posterior = self.posterior and scaling.posterior(self.posterior)
        self.log_z = None if not_exact(self.model) else log_partition_if_any(self.model)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per row: ``log_likelihood`` in nats, or ``log_density_unnormalised`` where log Z is not known, or
        ``log_density_bound`` where the density is not either: a lower bound of it, unnormalised, by the model's mean
        field or by the posterior.

        With ``params={"sample": n}`` n samples instead, a row each and a column per visible unit:
        drawn as ``bism.sampling`` chooses: independent ones where h or binary v can be enumerated, else the ends of
        block Gibbs chains of ``sweeps`` sweeps (default: 1,000), or of annealed Langevin chains. Chains start at the
        rows of the input in turn, or where it has none at N(0, I) in the units of the training (at fair coins where v
        is binary).
        ``seed`` (default: 0) is theirs.

        Raises:
            InputError: another number of columns than the model has visible units, values that are not finite, or a
                model that cannot be sampled, or of which no density or bound of it can be had.
        """
        settings = {**SAMPLING, **(params or {})}
        if settings["sample"]:
            return self._samples(model_input, **settings)
        v = self._visible(model_input)
        if self.log_z is None and not hasattr(self.model, "free_energy"):
            own = hasattr(self.model, "variational_free_energy")
            if not own and self.posterior is None:
                raise InputError(
                    f"model input: p(v) of {type(self.model).__name__} is not tractable, and without an encoder of the "
                    f"usual kind there is no bound of it here: the probe latent_likelihood has one; to sample, give "
                    f'params={{"sample": 16}}'
                )
            with torch.no_grad():
                bound = -self.model.variational_free_energy(v) if own else None
            bound = log_density_bound(self.model, self.posterior, v) if bound is None else bound
            return pd.DataFrame({"log_density_bound": bound.numpy()})
        column = "log_density_unnormalised" if self.log_z is None else "log_likelihood"
        return pd.DataFrame({column: log_likelihood(self.model, v, self.log_z or 0.0).numpy()})

    def _samples(self, model_input: Any, sample: int, sweeps: int, seed: int) -> pd.DataFrame:
        count, sweeps, seed = int(sample), int(sweeps), int(seed)  # MLflow brings numpy's
        for name, value, least in (("sample", count, 1), ("sweeps", sweeps, 1), ("seed", seed, 0)):
            check_count(name, value, least)
        given = model_input is not None and len(model_input) > 0
        rows = self._visible(model_input) if given else None
        chosen = sampler(self.model, rows=rows, scaling=self.scaling, sweeps=sweeps)
        if chosen is None:
            raise InputError(no_sampler(self.model))
        v = chosen.draw(count, Rng(generator(seed, 0, "samples", torch.device("cpu")), torch.float64))
        names = list(model_input.columns) if given and isinstance(model_input, pd.DataFrame) else None
        return pd.DataFrame(v.detach().flatten(1).numpy(), columns=names)

    def _visible(self, model_input: Any) -> torch.Tensor:
        shape = self.model.visible_shape
        expected = f"expected {math.prod(shape)} numeric columns, one per visible unit"
        if model_input is None:
            raise InputError(f'model input: {expected}; to sample, give params={{"sample": 16}}')
        try:
            values = np.asarray(model_input, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"model input: {expected}; {error}") from error
        if values.ndim != 2 or values.shape[1] != math.prod(shape):
            raise InputError(f"model input: {expected}, got an array of shape {values.shape}")
        if not np.isfinite(values).all():
            row, unit = np.argwhere(~np.isfinite(values))[0]
            raise InputError(f"model input: row {row}, column {unit} is {values[row, unit]}; expected finite numbers")
        if has_binary_v(self.model) and (where := not_binary(torch.tensor(values))):
            raise InputError(f"model input: {where}; expected 0 or 1, for v is binary")
        return torch.tensor(values).reshape(-1, *shape)


def _joint(config: dict[str, Any], state: dict[str, Any]) -> tuple[Any, Any] | None:
    """p(v, h) and q(h|v) of a method of the package whose prior is fitted after training, or is a model of its own."""
    kind = methods().get(config.get("method", ""))
    if kind is None or kind.joint_model is Estimator.joint_model:
        return None
    estimator = kind(**config["hyper"])
    networks = estimator.modules(build_model(config["model"]), {})
    parts = {name: _filled(network, state["params"][name]).requires_grad_(False) for name, network in networks.items()}
    carry = {name: value[0].double() for name, value in state["carry"].items()}
    return estimator.joint_model(Parts({**parts, "carry": carry}))


def _filled(module: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A module in float64 with the parameters of a checkpoint's one seed."""
    module.double().load_state_dict({name: tensor[0] for name, tensor in tensors.items()}, strict=False)
    return module


mlflow.models.set_model(TrainedModel())
