"""Costs that a balancer can be told to look at, and plans judged by the measured one."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from sbcore.config.method import (
    Cost,
    KarmarkarKarpBalancer,
    LengthBalancer,
    MultifitBalancer,
    RandomBalancer,
    SabBalancer,
    TokensBalancer,
)
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost, SquaredCost, TokenCost
from sbcore.plan.objective import micro_batch_ms, step_ms
from sbcore.plan.own_cost import own_cost, read_formula
from sbcore.types import Barrier, LatencyModel, Topology

MEASURED = BudgetCost(
    AnalyticLatencyModel(256, 2, 1.0, 0.5, 1e-3, np.array([0.1, 1e-4, 1e-8, 1e-8])), top_k=32
)
FORMULA = AnalyticLatencyModel(256, 2, 9.0, 0.5, 1e-3, np.array([0.1, 1e-4, 1e-8, 1e-8]))
LENGTHS = np.array([100, 20_000])


def formula() -> LatencyModel:
    return FORMULA


def no_formula() -> LatencyModel:
    raise AssertionError("asked for without need")


@pytest.mark.parametrize("balancer", [RandomBalancer(), LengthBalancer()])
def test_those_without_a_choice_get_the_measured_cost(
    balancer: RandomBalancer | LengthBalancer,
) -> None:
    assert own_cost(balancer, MEASURED, formula=no_formula) is MEASURED


@pytest.mark.parametrize("kind", [KarmarkarKarpBalancer, MultifitBalancer, SabBalancer])
def test_names_of_costs(
    kind: type[KarmarkarKarpBalancer] | type[MultifitBalancer] | type[SabBalancer],
) -> None:
    assert own_cost(kind(), MEASURED, formula=no_formula) is MEASURED
    assert own_cost(kind(cost="tokens"), MEASURED, formula=no_formula) == TokenCost()
    squared = own_cost(kind(cost="squared"), MEASURED, formula=no_formula)
    assert squared.sequence_ms(LENGTHS).tolist() == [1e4, 4e8]
    assert own_cost(kind(cost="analytic"), MEASURED, formula=formula) == BudgetCost(FORMULA, 32)


def test_tokens_weighs_tokens_unless_told_otherwise() -> None:
    assert own_cost(TokensBalancer(), MEASURED, formula=no_formula) == TokenCost()
    assert own_cost(TokensBalancer(cost="squared"), MEASURED, formula=no_formula) == SquaredCost()


def test_squares_lose_where_cost_is_nearly_linear() -> None:
    rng, topology = np.random.default_rng(0), Topology(4, Barrier.STEP, 65_536, 0)
    totals: dict[Cost, float] = {"tokens": 0.0, "squared": 0.0, "measured": 0.0}
    plan = load_balancer("tokens")
    for _ in range(30):
        lengths = np.clip(rng.lognormal(9.0, 0.8, 32), 64, 65_536).astype(np.int64)
        for name in totals:
            config = TokensBalancer(cost=name)
            cost = own_cost(config, MEASURED, formula=no_formula)
            batch = plan(lengths, topology, cost=cost, seed=0, config=config)
            totals[name] += step_ms(micro_batch_ms(batch, lengths, MEASURED), Barrier.STEP)
    assert totals["measured"] < totals["tokens"] < totals["squared"]


def test_new_plans_in_training_need_the_table() -> None:
    with pytest.raises(ValidationError, match="online = true: needs the latency table, but cost"):
        SabBalancer(online=True, cost="tokens")


def test_the_formula_of_a_profile_is_read_or_named_as_missing(tmp_path: Path) -> None:
    head = {
        "block_size": 256,
        "num_layers": 2,
        "floor_ms": 9.0,
        "constant_ms": 0.5,
        "ms_per_token": 1e-3,
        "analytic": {"coefficients": [0.1, 1e-4, 1e-8, 1e-8]},
    }
    (tmp_path / "latency.json").write_text(json.dumps(head))
    read = read_formula(tmp_path)
    times = read.predict(LENGTHS, np.array([32]))
    assert times == pytest.approx(FORMULA.predict(LENGTHS, np.array([32])))
    (tmp_path / "latency.json").write_text(json.dumps({"block_size": 256}))
    with pytest.raises(SparseBalanceError, match="'num_layers': missing, and balancer"):
        read_formula(tmp_path)
