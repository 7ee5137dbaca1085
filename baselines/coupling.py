"""Couplings: two random vectors of given laws that are drawn together so as to be equal, or near each other, as often
as they can be; and two Gibbs chains that are moved by them until they meet.

All functions are pure, and tensor operations alone: they map over seeds and compile.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bism.rng import Rng, generator
from bism.variables import has_binary_v, visible_noise

COUPLINGS = ("maximal", "common")
Coupled = tuple[Tensor, Tensor, Tensor]  # x ~ p, y ~ q, and [batch] where y is not of its law: tries were too few


def maximal_bernoulli(
    logits_p: Tensor, logits_q: Tensor, noise: Tensor, residual_noise: Tensor, uniform: Tensor
) -> Coupled:
    """The maximal coupling of two vectors of independent binary units: P(x = y) = 1 - TV(p, q).

    x ~ p is y, too, with probability min(1, q(x) / p(x)). Else y is of the residual law, (q - p)+ / TV, by rejection
    from q, and x, which is of (p - q)+ / TV already, is drawn anew likewise with the same random numbers, so that the
    two are near each other (Qiu, Zhang and Wang 2020). Where no try is accepted, x is kept, which is exact, and y is
    the try that came nearest, which is not: with probability TV (1 - TV)^tries.

    Args:
        logits_p, logits_q: [batch, D].
        noise: of x, logistic [batch, D].
        residual_noise: of the tries, logistic [tries, batch, D].
        uniform: of the decisions, [1 + tries, batch].
    """
    slope, constant = logits_q - logits_p, (softplus(logits_q) - softplus(logits_p)).sum(-1)

    def log_ratio(v: Tensor) -> Tensor:
        """log q(v) / p(v), [..., batch]."""
        return (v * slope).sum(-1) - constant

    x = (logits_p + noise > 0).to(noise)
    together = uniform[0] < log_ratio(x).exp()
    log_u = uniform[1:].log()
    tries_p, tries_q = ((logits + residual_noise > 0).to(noise) for logits in (logits_p, logits_q))
    apart_x, found_x = _first(tries_p, log_u - log_ratio(tries_p))
    apart_y, found_y = _first(tries_q, log_u + log_ratio(tries_q))
    y = torch.where(together[:, None], x, apart_y)
    x = torch.where((together | ~found_x)[:, None], x, apart_x)
    return x, y, ~together & ~found_y


def _first(tries: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row's tries [tries, batch, D] the first whose score [tries, batch] is above 0, or else that of the
    highest score, [batch, D]; and whether there is one, [batch]."""
    accepted = score > 0
    order = torch.arange(len(score), 0, -1, device=score.device, dtype=score.dtype)[:, None]
    best = torch.where(accepted, order, score).argmax(0)
    chosen = torch.arange(len(score), device=score.device)[:, None] == best
    return (tries * chosen[..., None]).sum(0), accepted.any(0)


def maximal_gaussian(mean_p: Tensor, mean_q: Tensor, scale: Tensor, noise: Tensor, uniform: Tensor) -> Coupled:
    """The reflection-maximal coupling of N(mean_p, diag(scale^2)) and N(mean_q, diag(scale^2)): P(x = y) = 1 - TV.

    With z = (mean_p - mean_q) / scale, x = mean_p + scale * noise is y, too, with probability
    min(1, N(noise + z; 0, I) / N(noise; 0, I)). Else y = mean_q + scale * (noise - 2 e (e . noise)), e = z / ||z||:
    what lies along the difference of the means is reflected, which maps the one residual law to the other (Bou-Rabee,
    Eberle and Zimmer 2020; Jacob, O'Leary and Atchadé 2020).

    Args:
        mean_p, mean_q: [batch, D].
        scale: [D].
        noise: standard normal [batch, D].
        uniform: [batch].
    """
    z = (mean_p - mean_q) / scale
    square, along = z.square().sum(-1), (z * noise).sum(-1)
    x = mean_p + scale * noise
    together = uniform < (-along - 0.5 * square).exp()
    tiny = torch.finfo(z.dtype).tiny  # of equal means, where chains are together
    reflected = noise - (2 * along / square.clamp(min=tiny))[:, None] * z
    y = torch.where(together[:, None], x, mean_q + scale * reflected)
    return x, y, torch.zeros_like(together)


# --- chains -----------------------------------------------------------------------------------------------------------


def coupled_noise(model: Any, batch: int, sweeps: int, coupling: str, tries: int, rng: Rng) -> dict[str, Tensor]:
    """The noise of ``coupled_chains``, each tensor [sweeps, ...]."""
    shape = (sweeps, batch)
    noise = {"hidden": model.latent.noise(rng, shape), "visible": visible_noise(model, shape, rng)}
    if coupling == "maximal":
        decisions = 1
        if has_binary_v(model):
            noise["residual"] = visible_noise(model, (sweeps, tries, batch), rng)
            decisions += tries
        noise["uniform"] = rng.uniform((sweeps, decisions, batch))
    return noise


def coupled_sweep(model: Any, x: Tensor, y: Tensor, noise: dict[str, Tensor]) -> Coupled:
    """One Gibbs sweep of two chains at x and y [batch, *visible_shape], each by itself that of the model.

    h is drawn from common random numbers, each of its units then being maximally coupled; v likewise, or by the maximal
    coupling of its conditionals, where there is noise for that. Chains that have met stay together.
    """
    h, g = model.sample_hidden(torch.cat([x, y]), torch.cat([noise["hidden"]] * 2)).chunk(2)
    visible = noise["visible"]
    if "uniform" not in noise:
        after_x, after_y = model.sample_visible(torch.cat([h, g]), torch.cat([visible] * 2)).chunk(2)
        short = torch.zeros_like(x.flatten(1)[:, 0], dtype=torch.bool)
    elif "residual" in noise:
        p, q = model.visible_logits(torch.cat([h, g])).flatten(1).chunk(2)
        after_x, after_y, short = maximal_bernoulli(
            p, q, visible.flatten(1), noise["residual"].flatten(2), noise["uniform"]
        )
    else:
        p, q = model.visible_mean(torch.cat([h, g])).flatten(1).chunk(2)
        scale = model.visible_scale().flatten()
        after_x, after_y, short = maximal_gaussian(p, q, scale, visible.flatten(1), noise["uniform"][0])
    met = (x == y).flatten(1).all(1)  # whatever rounding does
    after_x, after_y = after_x.reshape(x.shape), after_y.reshape(x.shape)
    return after_x, torch.where(met.reshape(-1, *[1] * (x.ndim - 1)), after_x, after_y), short & ~met


def coupled_chains(model: Any, v: Tensor, noise: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Two Gibbs chains from v [batch, *visible_shape], one a sweep ahead of the other, as many sweeps as the noise has.

    Returns:
        x_1, ..., x_T and y_0, ..., y_{T-1}, each [T, batch, *visible_shape], and [T, batch] where a draw of y is not of
        its law (``maximal_bernoulli``). By themselves both are the model's chains from v; (x_t, y_{t-1}) are coupled.
    """
    x, y = model.sample_visible(model.sample_hidden(v, noise["hidden"][0]), noise["visible"][0]), v
    ahead, behind, short = [x], [y], [torch.zeros_like(v.flatten(1)[:, 0], dtype=torch.bool)]
    for sweep in range(1, len(noise["hidden"])):
        x, y, failed = coupled_sweep(model, x, y, {name: drawn[sweep] for name, drawn in noise.items()})
        ahead.append(x)
        behind.append(y)
        short.append(failed)
    return torch.stack(ahead), torch.stack(behind), torch.stack(short)


def apart(ahead: Tensor, behind: Tensor) -> Tensor:
    """Where coupled chains [T, batch, *visible_shape] have not met, [T, batch]."""
    return (ahead != behind).flatten(2).any(-1)


@torch.no_grad()
def meeting_times(
    model: Any, v: Tensor, coupling: str, tries: int, *, sweeps: int, seed: int = 0
) -> tuple[Tensor, int]:
    """When coupled chains from v [batch, *visible_shape] meet: the first t at which x_t = y_{t-1}, [batch], infinite
    for those that have not after so many sweeps. And how many draws of y were not of their law
    (``maximal_bernoulli``)."""
    rng = Rng(generator(seed, 0, "meeting times", v.device), v.dtype)
    y, short = v, 0
    times = torch.full(v.shape[:1], torch.inf, device=v.device, dtype=v.dtype)
    for t in range(1, sweeps + 1):
        noise = {name: drawn[0] for name, drawn in coupled_noise(model, len(v), 1, coupling, tries, rng).items()}
        if t == 1:
            x = model.sample_visible(model.sample_hidden(v, noise["hidden"]), noise["visible"])
        else:
            x, y, failed = coupled_sweep(model, x, y, noise)
            short += int(failed.sum())
        times = torch.where((x == y).flatten(1).all(1) & times.isinf(), t, times)
        if times.isfinite().all():
            break
    return times, short
