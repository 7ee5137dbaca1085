"""Whether two sets of samples are of one law, and whether samples are of a law whose score is known; in float64.

None of them needs a normalising constant. What they see is what their kernel or classifier sees: the discrepancy by
scores is nearly blind to the weights of modes that lie far apart.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BANDWIDTHS = (0.1, 0.3, 1.0)  # in units of the data's median distance
_PAIRS = 1 << 18  # whose terms are held at once, 2 MB for each number


def median_distance(x: Tensor) -> float:
    """Between two of x [n, D], the median over all pairs, or where most are alike over those that are not; NaN where
    all are."""
    distances = torch.nn.functional.pdist(x.double())
    found = float(distances.median())
    return found if found > 0 else float(distances[distances > 0].median())


def squared_mmd(x: Tensor, y: Tensor, bandwidths: Sequence[float]) -> float:
    """The squared maximum mean discrepancy of x [n, D] and y [m, D] (Gretton et al. 2012, eq. 3), unbiased:

        1/(n(n-1)) sum_{i != j} k(x_i, x_j) + 1/(m(m-1)) sum_{i != j} k(y_i, y_j) - 2/(nm) sum_ij k(x_i, y_j),

    k the mean over the bandwidths b of exp(-|x - y|^2 / (2 b^2)). Below 0 as often as above for samples of one law.
    """
    x, y = x.double(), y.double()

    def total(one: Tensor, other: Tensor) -> float:
        def kernel(rows: Tensor) -> Tensor:
            squares = torch.cdist(rows, other).square()
            return torch.stack([(-0.5 * squares / b**2).exp() for b in bandwidths]).mean(0)

        return _in_blocks(kernel, len(other), one)

    def among(one: Tensor) -> float:
        return (total(one, one) - len(one)) / (len(one) * (len(one) - 1))  # k(x, x) = 1

    return among(x) + among(y) - 2 * total(x, y) / (len(x) * len(y))


def squared_ksd(x: Tensor, score: Tensor, bandwidth: float) -> float:
    """The squared kernel Stein discrepancy of samples x [n, D] to a density p with score s = grad log p, given at the
    samples [n, D] (Liu, Lee and Jordan 2016, eq. 14 with Theorem 3.6), unbiased: the mean over pairs i != j of

        s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k,   k = exp(-|x - y|^2 / (2 b^2)),

    with grad_x k = -(x - y) k / b^2 and the trace (D / b^2 - |x - y|^2 / b^4) k. Its mean is 0 for samples of p, and
    E_{x, y ~ q} [(s_p - s_q)(x) . (s_p - s_q)(y) k(x, y)] for samples of a law q.
    """
    x, score = x.double(), score.double()
    b = bandwidth**2

    def terms(x_i: Tensor, s_i: Tensor) -> Tensor:
        apart, slopes = x_i[:, None] - x, s_i[:, None] - score
        squares = apart.square().sum(-1)
        stein = s_i @ score.T + (slopes * apart).sum(-1) / b + x.shape[1] / b - squares / b**2
        return stein * (-0.5 * squares / b).exp()

    itself = float(score.square().sum()) + len(x) * x.shape[1] / b  # the terms of i = j
    return (_in_blocks(terms, len(x), x, score) - itself) / (len(x) * (len(x) - 1))


def _in_blocks(terms: Callable[..., Tensor], columns: int, *rows: Tensor) -> float:
    """The sum of ``terms``, [n, columns] of all rows [n, ...], by as few rows at a time as ``_PAIRS`` says."""
    height = max(1, _PAIRS // columns)
    blocks = zip(*(torch.split(one, height) for one in rows), strict=True)
    return math.fsum(float(terms(*some).sum()) for some in blocks)


def c2st(x: Tensor, y: Tensor, seed: int = 0) -> tuple[float, float]:
    """A classifier's two-sample test of x and y, both [n, D] (Lopez-Paz and Oquab 2017): the accuracy on the half that
    was held out, and its standard error. 1/2 for samples of one law, 1 where they are told apart without error.

    The classifier asks the sqrt(n) nearest neighbours, in the units of y's standard deviations.
    """
    from sklearn.neighbors import KNeighborsClassifier

    scale = y.double().std(0)
    scale = scale.where(scale > 0, 1)
    points = torch.cat([x.double() / scale, y.double() / scale]).numpy()
    labels = torch.cat([torch.zeros(len(x)), torch.ones(len(y))]).long()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    neighbours = 2 * (math.isqrt(len(train)) // 2) + 1  # odd: no ties
    found = KNeighborsClassifier(neighbours).fit(points[train], labels[train]).predict(points[test])
    accuracy = float((torch.from_numpy(found) == labels[test]).double().mean())
    return accuracy, math.sqrt(accuracy * (1 - accuracy) / len(test))
