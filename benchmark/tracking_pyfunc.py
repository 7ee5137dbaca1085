"""The code of the models in MLflow: log p(v) of the rows of a table. Run by MLflow, which keeps a copy of it
in each model. Loading one needs ``bism`` and ``benchmark`` importable.
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

from benchmark.models import build_model
from bism.checkpoint import load_checkpoint
from bism.enumeration import not_enumerable
from bism.errors import InputError
from bism.likelihood import log_density_bound, log_likelihood, log_partition
from bism.posteriors import default_posterior
from bism.scaling import Scaling


class TrainedModel(PythonModel):
    """A trained energy-based model, rebuilt from its configuration and a checkpoint."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuilds the model in float64, and its log Z where that can be enumerated."""
        config = json.loads(Path(context.artifacts["config"]).read_text())
        tensors = load_checkpoint(context.artifacts["checkpoint"])["tensors"]
        saved = tensors.get("average", tensors["state"]["params"])
        self.model: Any = _filled(build_model(config["model"]), saved["model"])
        tractable = hasattr(self.model, "free_energy")
        self.posterior = None if tractable else _filled(default_posterior(self.model), saved["posterior"])
        if (
            "scaling" in config["data"]
        ):  # trained on scaled data; tables come, and densities are, in the data's own units
            scaling = Scaling.from_record(config["data"]["scaling"])
            self.model = scaling.model(self.model)
            self.posterior = self.posterior and scaling.posterior(self.posterior)
        self.log_z = None if not_enumerable(self.model) else log_partition(self.model)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per row: ``log_likelihood`` in nats, or ``log_density_unnormalised`` where log Z is not known, or
        ``log_density_bound`` where the density is not either: a lower bound of it, unnormalised, by the posterior.

        Raises:
            InputError: another number of columns than the model has visible units, or values that are not finite.
        """
        v = self._visible(model_input)
        if self.posterior is not None:
            return pd.DataFrame({"log_density_bound": log_density_bound(self.model, self.posterior, v).numpy()})
        column = "log_density_unnormalised" if self.log_z is None else "log_likelihood"
        return pd.DataFrame({column: log_likelihood(self.model, v, self.log_z or 0.0).numpy()})

    def _visible(self, model_input: Any) -> torch.Tensor:
        shape = self.model.visible_shape
        expected = f"expected {math.prod(shape)} numeric columns, one per visible unit"
        try:
            values = np.asarray(model_input, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"model input: {expected}; {error}") from error
        if values.ndim != 2 or values.shape[1] != math.prod(shape):
            raise InputError(f"model input: {expected}, got an array of shape {values.shape}")
        if not np.isfinite(values).all():
            row, unit = np.argwhere(~np.isfinite(values))[0]
            raise InputError(f"model input: row {row}, column {unit} is {values[row, unit]}; expected finite numbers")
        return torch.tensor(values).reshape(-1, *shape)


def _filled(module: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A module in float64 with the parameters of a checkpoint's one seed."""
    module.double().load_state_dict({name: tensor[0] for name, tensor in tensors.items()}, strict=False)
    return module


mlflow.models.set_model(TrainedModel())
