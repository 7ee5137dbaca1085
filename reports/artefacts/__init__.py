"""The figures and tables, one module each. ``build(sweep)`` gives those of a preset that it has the cells for.

Those of tuning have ``build(studies)``.
"""

from reports.artefacts import (
    ablations,
    beside,
    bias_cost,
    bounds,
    codes,
    cost,
    couplings,
    failures,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    held,
    images,
    latent,
    log_z,
    marginals,
    ranking,
    settings,
    stability,
    summary,
    table1,
    table2,
    toy2d,
    tuning_best,
    tuning_failures,
    tuning_front,
    tuning_importances,
    tuning_slices,
)

SUMMARY, RUN = (summary,), (settings, beside, failures)
IN_ORDER = (
    figure1, bias_cost, table1, table2, figure2, marginals, toy2d, figure3, figure4, images, codes, figure5, latent,
    held, couplings, ranking, cost, bounds, log_z, stability, ablations,
)  # fmt: skip
OF_STUDIES = (tuning_best, tuning_importances, tuning_slices, tuning_front, tuning_failures)
