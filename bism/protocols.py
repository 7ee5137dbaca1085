"""What is asked of models, posteriors and samplers, as types."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from bism.rng import Rng
from bism.variables import Units


@runtime_checkable
class EnergyModel(Protocol):
    """A ``torch.nn.Module`` with an energy; p(v, h) = exp(-E(v, h)) / Z, eq. (6).

    Required:
        ``visible_shape``: shape of one visible vector.
        ``latent``: ``Bernoulli(m)``, ``Gaussian(m)``, or None for a fully visible model.
        ``energy(v, h)``: [batch] from v [batch, *visible_shape] and h [batch, m]; ``energy(v)`` where latent is None.

    Optional:
        ``visible_units``: what v is, ``Bernoulli(D)`` for binary or ``Gaussian(D)`` for real v; real where it is not
            said.

    Optional, where tractable; estimators that need one say so:
        ``free_energy(v)``: [batch], -log of the integral (sum) of exp(-E(v, h)) over h.
        ``sample_hidden(v, noise)``: h [batch, m] from p(h|v), with the noise of ``latent.noise``.
        ``sample_visible(h, noise)``: v [batch, *visible_shape] from p(v|h), with standard normal noise, or logistic
            noise where v is binary (``variables.visible_noise``).
        ``transition(chains, noise)``: one sweep of Gibbs sampling of the model's own, as of layers, with
            ``transition_noise(rng, batch)``, a tree of tensors [*batch, ...]. Chains are a dictionary of tensors
            [batch, ...] with "v" among them, and of "v" alone where they start.
        ``draw(count, rng)``: v [count, *visible_shape], where the model can be sampled directly.
        ``hidden_free_energy(h)``: [batch], -log of the integral of exp(-E(v, h)) over v; makes log Z enumerable.
        ``default_posterior()``: the q(h|v) that methods with a posterior train beside it.
        ``score_and_laplacian(v)``: gradient [batch, *visible_shape] and trace of the Hessian [batch] of log p(v).
        ``flip_log_ratios(v)``: [batch, D], free_energy(v) - free_energy(v with unit i flipped), of binary v; where a
            model has it, methods that flip units need no D free energies. A model that changes the energy of one that
            has this, or the next, has its own.
        ``flip_energies(v, h)``: [batch, D], energy(v with unit i flipped, h) - energy(v, h), likewise.
        ``activations``: numbers that a pass keeps of an example, for estimates of memory; else as many as v has.
        ``start_from(data)``: called after ``reset_parameters()`` with the training data, to start from them.

    Each seed starts from its own parameters: submodules and models with ``reset_parameters()`` are reset under the
    seed's random numbers; parameters that nothing resets start where the module has them.
    """

    @property
    def visible_shape(self) -> tuple[int, ...]: ...

    @property
    def latent(self) -> Units | None: ...

    @property
    def energy(self) -> Callable[..., Tensor]: ...


@runtime_checkable
class Posterior(Protocol):
    """A ``torch.nn.Module`` that is a variational posterior q(h|v; phi).

    Required:
        ``sample(v, noise, temperature)``: h [batch, m], differentiable in the parameters, with the noise of
            ``latent.noise``; the temperature is of relaxed binary h.
        ``log_prob(h, v)``: [batch].

    Optional:
        ``sample_hard(v, noise)``: h [batch, m], binary where the latent is, without a gradient.
        ``mean(v)``: E[h|v], [batch, m].
        ``flip_log_probs(h, v)``: [batch, D], log_prob(h, v with unit i flipped) - log_prob(h, v) of binary v, or None.
    """

    @property
    def sample(self) -> Callable[..., Tensor]: ...

    @property
    def log_prob(self) -> Callable[..., Tensor]: ...


@runtime_checkable
class Sampler(Protocol):
    """What draws v.

    Required:
        ``draw(count, rng)``: v [count, *visible_shape], of random numbers from ``rng`` alone.

    Optional:
        ``how``: a few words for people, "independent draws, exact".
        ``codes(count, rng)`` and ``decode(z)``: of a sampler that maps codes to v, as a generator does, codes z
            [count, ...] as it draws them, and the v [n, *visible_shape] of codes [n, ...], with all other noise off;
            rows do not interact, and ``decode`` is differentiable in z. A method of such a sampler says ``maps_codes``.
    """

    def draw(self, count: int, rng: Rng) -> Tensor:
        """v [count, *visible_shape]."""
        ...


class OwnUnits(Protocol):
    """The way back from the units of a training to the data's own, as ``bism.scaling.Scaling`` has it: x = a + f y."""

    @property
    def factor(self) -> Tensor: ...

    def own(self, y: Tensor) -> Tensor: ...
