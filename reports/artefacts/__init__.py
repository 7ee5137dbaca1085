"""The figures and tables, one module each. ``build(sweep)`` gives those of a preset that it has the cells for."""

from reports.artefacts import (
    ablations,
    bounds,
    cost,
    failures,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    ranking,
    table1,
    table2,
)

IN_ORDER = (
    figure1, table1, table2, figure2, figure3, figure4, figure5, ranking, cost, bounds, ablations, failures,
)  # fmt: skip
