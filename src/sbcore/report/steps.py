"""What training left per step: numbers, spans of micro-batches, budgets.

S steps, R ranks.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbcore.errors import SparseBalanceError
from sbcore.report.contracts import StepRow, check
from sbcore.types import FloatArray, IntArray

if TYPE_CHECKING:
    import polars as pl

SPAN_COLUMNS = (
    "step",
    "rank",
    "micro_batch",
    "num_tokens",
    "start_ms",
    "compute_ms",
    "waiting_ms",
    "predicted_ms",
)
BUDGET_COLUMN = "predicted_k0_ms"
"""The prediction at the fixed budget, in files that have it."""
LEDGER_COLUMNS = ("step", "layer", "num_tokens", "top_k_target", "top_k", "coverage_k0", "coverage")
CURVE_COLUMNS = ("layer", "max_tokens", "top_k", "coverage", "count")
_MAY_BE_NAN = frozenset({"coverage_k0", "coverage"})
"""Coverage is measured on some steps only."""


@dataclass(frozen=True)
class Steps:
    """``metrics.jsonl`` by column, [S] unless said; what was not measured is NaN.

    R is the largest number of ranks that any step had; a training may go on with another one.
    """

    step: IntArray
    loss: FloatArray
    num_tokens: IntArray
    step_ms: FloatArray
    predicted_ms: FloatArray
    imbalance: FloatArray
    predicted_imbalance: FloatArray
    compute_ms: FloatArray  # [S, R]
    waiting_ms: FloatArray  # [S, R]
    data_ms: FloatArray  # [S, R]
    plan_ms: FloatArray  # [S, R]
    tune_ms: FloatArray  # [S, R]
    gap_ms: FloatArray  # [S, R]
    optimizer_ms: FloatArray  # [S, R]
    checkpoint_ms: FloatArray  # [S, R]
    coverage_delta: FloatArray
    expected_coverage_delta: FloatArray
    measured: NDArray[np.bool_]


def read_steps(path: Path) -> Steps:
    """Returns the file's steps; raises SparseBalanceError naming file, line and key."""
    rows = [_row(line, path, i) for i, line in enumerate(_lines(path), start=1)]
    if not rows:
        raise SparseBalanceError(f"{path}: no steps. {_train_again(path)}")
    return Steps(**{name: _column(rows, name) for name in Steps.__dataclass_fields__})


def _column(rows: list[StepRow], name: str) -> NDArray[Any]:
    values = [getattr(row, name) for row in rows]
    if name in _MAY_BE_NULL:
        return np.array([np.nan if value is None else value for value in values])
    if isinstance(values[0], list):
        num_ranks = max(map(len, values))
        return np.array([ranks + [np.nan] * (num_ranks - len(ranks)) for ranks in values])
    return np.array(values)


_MAY_BE_NULL = frozenset({"loss", "coverage_delta", "expected_coverage_delta"})


def read_spans(path: Path) -> "pl.DataFrame":
    """Returns the micro-batches, with their time at the fixed budget if the file has it."""
    import polars as pl

    known = pl.scan_parquet(path).collect_schema().names() if path.is_file() else []
    extra = (BUDGET_COLUMN,) if BUDGET_COLUMN in known else ()
    return read_columns(path, SPAN_COLUMNS + extra)


def read_columns(path: Path, columns: tuple[str, ...]) -> "pl.DataFrame":
    """Returns the columns; raises SparseBalanceError for a missing or non-finite one."""
    import polars as pl

    try:
        table = pl.scan_parquet(path).select(columns).collect()
    except pl.exceptions.ColumnNotFoundError as error:
        missing = str(error).splitlines()[0]
        raise SparseBalanceError(
            f"{path}: {missing}: no such column. rerun the stage that wrote the file."
        ) from None
    except (OSError, pl.exceptions.ComputeError) as error:
        reason = str(error).splitlines()[0]
        raise SparseBalanceError(
            f"{path}: not readable: {reason}. rerun the stage that wrote the file."
        ) from None
    for name in columns:
        _require_finite(table[name], path, name)
    return table


def is_fixed(ledger: "pl.DataFrame") -> bool:
    """Returns whether targets follow from a sequence's length alone and grow with it: no tuning."""
    pairs = ledger.select("num_tokens", "top_k_target").unique().sort("num_tokens", "top_k_target")
    return bool(pairs["num_tokens"].is_unique().all() and pairs["top_k_target"].is_sorted())


def _require_finite(column: "pl.Series", path: Path, name: str) -> None:
    if column.dtype.is_float() and name not in _MAY_BE_NAN and not column.is_finite().all():
        row = int((~column.is_finite()).arg_true()[0])
        raise SparseBalanceError(
            f"{path}: {name} = {column[row]}: not finite, in row {row}. "
            "rerun the stage that wrote the file."
        )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise SparseBalanceError(f"{path}: missing. {_train_again(path)}") from None


def _train_again(path: Path) -> str:
    """Returns what makes a training's file again that is no output of a rule."""
    return (
        "rerun training, with the run's own CONFIG: snakemake --cores all --configfile CONFIG "
        f"--forcerun {path.with_name('summary.json')}"
    )


def _row(line: str, path: Path, number: int) -> StepRow:
    try:
        return check(json.loads(line), StepRow, place=f"{path}:{number}")
    except json.JSONDecodeError as error:
        raise SparseBalanceError(
            f"{path}:{number}: not json: {error.msg}. {_train_again(path)}"
        ) from None
