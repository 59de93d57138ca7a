"""The cost that a balancer looks at, by the name in its configuration.

Plans are judged by the measured one whatever they were made by.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sbcore.artifacts import read_json
from sbcore.config.method import BalancerConfig, CostedBalancer
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.table import profile_files
from sbcore.plan.cost import BudgetCost, SquaredCost, TokenCost
from sbcore.types import CostModel, LatencyModel


def own_cost(
    config: BalancerConfig, measured: BudgetCost, *, formula: Callable[[], LatencyModel]
) -> CostModel:
    """Returns the balancer's cost; `formula` is asked for the analytic model where that is it."""
    name = config.cost if isinstance(config, CostedBalancer) else "measured"
    if name == "tokens":
        return TokenCost()
    if name == "squared":
        return SquaredCost()
    if name == "analytic":
        return BudgetCost(formula(), measured.top_k)
    return measured


def read_formula(profile: Path) -> AnalyticLatencyModel:
    """Returns the formula that was fitted to the points of a latency profile.

    Raises SparseBalanceError when its header holds none.
    """
    header = profile_files(profile)[1]
    head = read_json(header)
    try:
        return AnalyticLatencyModel(
            block_size=head["block_size"],
            num_layers=head["num_layers"],
            floor_ms=head["floor_ms"],
            constant_ms=head["constant_ms"],
            ms_per_token=head["ms_per_token"],
            coefficients=np.array(head["analytic"]["coefficients"]),
        )
    except (KeyError, TypeError) as error:
        raise SparseBalanceError(
            f"{header}: {error}: missing, and balancer.cost = analytic needs it. "
            "rerun the stage profile-latency."
        ) from None
