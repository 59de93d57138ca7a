"""The seam of balancers, and the table of them.

A balancer is a pure function: equal arguments give equal plans on every rank and after every
restart. A new one is a file, a row here and a section in config/method.py.
"""

from importlib import import_module
from typing import Protocol, cast

from sbcore.config.method import BalancerConfig
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.types import BatchPlan, CostModel, IntArray, Topology

BALANCERS = {
    "random": "sbcore.plan.balancers.random:plan",
    "length": "sbcore.plan.balancers.length:plan",
    "tokens": "sbcore.plan.balancers.tokens:plan",
    "karmarkar_karp": "sbcore.plan.balancers.karmarkar_karp:plan",
    "multifit": "sbcore.plan.balancers.multifit:plan",
    "sab": "sbcore.plan.balancers.sab:plan",
}


class Balancer(Protocol):
    """Lays out one global batch."""

    def __call__(
        self,
        lengths: IntArray,
        topology: Topology,
        *,
        cost: CostModel,
        seed: int,
        config: BalancerConfig,
    ) -> BatchPlan:
        """Returns a plan that holds every sequence once, keeps the caps and has equal counts."""
        ...


def load_balancer(kind: str) -> Balancer:
    """Returns the balancer of that name; raises SparseBalanceError for an unknown one."""
    if kind not in BALANCERS:
        raise SparseBalanceError(unknown_name("balancer.kind", kind, BALANCERS))
    module, name = BALANCERS[kind].split(":")
    return cast(Balancer, getattr(import_module(module), name))
