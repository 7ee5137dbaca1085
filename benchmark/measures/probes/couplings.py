"""How near the couplings of an Ising model are to those that made the data."""

from typing import Any

import torch
from pydantic import Field

from benchmark.data.datasets import FERROMAGNET
from benchmark.measures.pictures import save_arrays
from benchmark.measures.probes.base import Metrics, Probe, Subject
from bism import Estimator, Ising
from bism.ising import lattice


class Couplings(Probe):
    """``couplings/rms_error``: of J over all pairs, against a periodic cubic lattice with one J between neighbours and
    0 elsewhere, as the data set ``ferromagnet`` has; ``couplings/rms_error_neighbours`` and ``_others`` are its parts.

    J is an array beside it and, of persistent VI, log s of it, ``couplings_step_*.npz``.

    Options:
        side: of the lattice.
        coupling: J between neighbours.
    """

    side: int = Field(4, gt=1)
    coupling: float = FERROMAGNET

    @staticmethod
    def unsuitable(estimator: Estimator, model: Any) -> str | None:
        return None if isinstance(model, Ising) else "only Ising models have couplings"

    def measure(self, subject: Subject) -> Metrics:
        with torch.no_grad():
            found = subject.fitted.model(subject.seed).couplings().double().cpu()
        near = lattice(self.side) > 0
        pairs = torch.ones_like(near).triu(1)
        error = (found - self.coupling * near).square()
        arrays = {"J": found}
        spread = subject.fitted.state(subject.seed)["params"].get("spread", {})
        if "J" in spread:
            arrays["log_s"] = spread["J"].double().cpu()
        subject.folder.mkdir(parents=True, exist_ok=True)
        save_arrays(subject.folder, "couplings", subject.fitted.step, **arrays)
        return {
            "couplings/rms_error": float(error[pairs].mean().sqrt()),
            "couplings/rms_error_neighbours": float(error[pairs & near].mean().sqrt()),
            "couplings/rms_error_others": float(error[pairs & ~near].mean().sqrt()),
        }
