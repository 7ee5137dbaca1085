"""An estimator as people use it: what the engine asks of it (``bism.hooks``), and ``fit``."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from bism.checks import check_count, check_model, check_seeds
from bism.engine import Trainer, pays
from bism.errors import InputError
from bism.fitted import Fitted
from bism.hooks import Hooks, Objective
from bism.parts import parts_given
from bism.progress import Progress, Shown, in_pieces
from bism.state import Hyper
from bism.threads import suitable_threads, using_threads

__all__ = ["Estimator", "Hyper", "Objective"]
_MOST_THREADS = 1024  # OpenMP ends the process where it has no memory for them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimator(Hooks):
    """A way to train an energy-based model. The fields are its hyper-parameters and nothing else.

    Subclasses are frozen dataclasses with ``id`` (in files and on the command line), ``label`` (in figures; may name
    hyper-parameters, as in "CD-{k}") and ``reference``. Most write ``loss`` and ``noise`` alone; the default ``step``
    is one Adam step on the gradient of ``loss``. All functions are pure and written for one seed: the engine maps
    them over seeds and compiles them, so they branch on hyper-parameters but never on tensors.

    ``hyper`` carries the continuous hyper-parameters as tensors, by name; in the functions below use ``hyper["lr"]``,
    not ``self.lr``.
    """

    @final
    def fit(
        self,
        model: nn.Module,
        data: Tensor,
        *,
        seeds: Sequence[int] = (0,),
        steps: int = 10_000,
        batch_size: int = 100,
        posterior: nn.Module | None = None,
        parts: Mapping[str, nn.Module] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compile: bool | None = None,
        data_noise: float = 0.0,
        precision: str = "float32",
        accumulate: int = 1,
        iterations: int | None = None,
        resume: Path | str | None = None,
        threads: int | None = None,
        progress: bool | Progress = False,
    ) -> Fitted:
        """Trains ``model`` on ``data`` once for every seed, all seeds side by side.

        Args:
            model: an energy model (see ``EnergyModel``); it is read, not changed.
            data: [n, *visible_shape], floating point, finite.
            steps: iterations in all; with ``resume``, those of the checkpoint included.
            posterior: q(h|v), for methods that train one; by default the one that fits the latent's kind. Short for
                parts={"posterior": q}.
            parts: networks beside the model by the names of ``trains``, {"posterior": q} for one; what is not given
                is the method's own choice.
            compile: True, False, or None for when the run is long enough to pay for it.
            data_noise: standard deviation of Gaussian noise added anew to every minibatch: what is learnt is the
                density of the smoothed data, as by denoising score matching.
            precision: "float32", "tf32" for products in TF32 on a GPU, or "bf16" for matrix products and convolutions
                in bfloat16 (autocast); parameters, energies and objectives stay in float32.
            accumulate: shards of equal size that a minibatch is taken in, one after another, to save memory.
            iterations: those that the stages of a method share, where training is to go on beyond ``steps`` later; by
                default ``steps``.
            resume: a checkpoint written by ``Fitted.save``.
            threads: of the CPU; None for one where the model is so small that more would only wait for each other, and
                else as many as torch has. Those of before are restored.
            progress: True to be told on standard error, or a function that is called now and then with the iterations
                done and all of them; an exception that it raises ends the training.

        Raises:
            InputError: unsupported model, or data of the wrong shape, type or value.
        """
        check_count("steps", steps, 0)
        shared = steps if iterations is None else check_count("iterations", iterations, steps)
        compiled = pays(steps) if compile is None else compile
        shown = Shown(self.name) if progress is True else progress or None
        check_model(self, model)
        given = parts_given(parts, posterior)
        work = len(check_seeds(seeds)), check_count("batch_size", batch_size, 1)
        count = suitable_threads(model, *work) if threads is None else check_count("threads", threads, 1, _MOST_THREADS)
        with using_threads(count if device == "cpu" else None):
            if isinstance(shown, Shown) and compiled:
                shown.note("compiling, which takes some seconds and pays later")
            trainer = Trainer(
                self,
                model,
                data,
                seeds=seeds,
                batch_size=batch_size,
                parts=given,
                device=device,
                dtype=dtype,
                compile=compiled,
                data_noise=data_noise,
                precision=precision,
                accumulate=accumulate,
                iterations=shared,
            )
            if isinstance(shown, Shown):
                shown.stage = lambda: trainer.stage.name
            if resume is not None:
                trainer.load(resume)
            if steps < trainer.step:
                raise InputError(f"steps must be at least the checkpoint's {trainer.step}, got {steps}")
            if shown is None:
                trainer.run(steps - trainer.step)
            else:
                in_pieces(trainer.run, trainer.step, steps, shown)
            return trainer.fitted()
