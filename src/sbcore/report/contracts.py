"""What the report reads of the stages' small files; a key that is not read is not named here.

Every number must be finite: a NaN that reaches a report was an error somewhere before.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sbcore.artifacts import read_json
from sbcore.errors import SparseBalanceError


class Contract(BaseModel):
    """A file's keys; others are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Spread(Contract):
    """Median, 20th and 80th percentile."""

    median: float
    p20: float
    p80: float


class PlanOverall(Contract):
    """All steps of a plan together: predicted, at the fixed budget k0."""

    optimality_gap: float
    extrapolated: int


class PlanSummary(Contract):
    """``plan/summary.json``."""

    overall: PlanOverall


class TrainSummary(Contract):
    """``train/summary.json``: measured, apart from predicted_imbalance."""

    num_steps: int
    num_tokens: int
    loss_final: float
    step_time_ms: Spread
    tokens_per_s: float
    imbalance: float
    predicted_imbalance: float
    coverage_delta: float | None
    overhead_pct: float
    waiting_pct: float
    device: str
    backend: str
    num_ranks: int
    barrier: str
    mfu_useful: float | None = None
    mfu_dense_equivalent: float | None = None
    hfu: float | None = None
    """Shares of the device's peak, 0..1; None where no peak is known."""


class EvaluationResult(Contract):
    """``eval/result.json``; scores in percent, chance is what guessing would score."""

    scores: dict[str, float]
    score_mean: float | None
    example_scores: dict[str, list[float]]
    categories: dict[str, str]
    chance: dict[str, float]
    num_examples: dict[str, int]
    num_available: dict[str, int]
    partial: bool


class Manifest(Contract):
    """``manifest.json`` beside a stage's files."""

    stage: str
    config_digest: str
    inputs: dict[str, str]
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    device: str
    backend: str
    seconds: float
    mlflow_run_id: str | None


class StepRow(Contract):
    """A line of ``train/metrics.jsonl``; lists have an entry per rank."""

    step: int
    loss: float | None
    """None where it was not finite and the step was skipped."""
    num_tokens: int
    step_ms: float
    predicted_ms: float
    imbalance: float
    predicted_imbalance: float
    compute_ms: list[float]
    waiting_ms: list[float]
    data_ms: list[float]
    plan_ms: list[float]
    tune_ms: list[float]
    gap_ms: list[float]
    optimizer_ms: list[float]
    checkpoint_ms: list[float]
    coverage_delta: float | None
    expected_coverage_delta: float | None = None
    measured: bool


ContractT = TypeVar("ContractT", bound=Contract)


def read_contract(path: Path, contract: type[ContractT]) -> ContractT:
    """Returns the file's values; raises SparseBalanceError naming file and key."""
    return check(read_json(path), contract, place=str(path))


def check(value: object, contract: type[ContractT], *, place: str) -> ContractT:
    """Returns the value as the contract; raises SparseBalanceError for the first wrong key."""
    try:
        return contract.model_validate(value)
    except ValidationError as error:
        details = error.errors()[0]
        key = ".".join(str(part) for part in details["loc"]) or "the whole"
        shown = "missing" if details["type"] == "missing" else repr(details["input"])[:80]
        problem = details["msg"].removeprefix("Input ")
        raise SparseBalanceError(
            f"{place}: {key} = {shown}: {problem}. rerun the stage that wrote the file."
        ) from None
