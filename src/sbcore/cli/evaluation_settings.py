"""What the commands of evaluation read: a frozen part, or a run's whole configuration.

Evaluation is often wanted alone, for a model from elsewhere; then a yaml with the keys that differ
from the defaults is enough and nothing has to be frozen.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sbcore.errors import SparseBalanceError, unknown_name

if TYPE_CHECKING:
    from sbcore.config.schema import Config
    from sbcore.config.section import Section
    from sbcore.config.stages import EvaluateStage, MakeTasksStage

StageT = TypeVar("StageT", bound="Section")


def read_evaluate(file: Path, variant: str | None) -> "EvaluateStage":
    """Returns what evaluating reads; of a whole configuration, for the variant or the baseline."""
    from sbcore.config.stages import EvaluateStage, evaluate_stage

    def cut(config: "Config") -> EvaluateStage:
        name = config.baseline if variant is None else variant
        if name not in config.variants:
            raise SparseBalanceError(f"--{unknown_name('variant', name, config.variants)}")
        return evaluate_stage(config, name)

    return _read(file, EvaluateStage, cut)


def read_make_tasks(file: Path) -> "MakeTasksStage":
    """Returns what making tasks reads."""
    from sbcore.config.stages import MakeTasksStage, make_tasks_stage

    return _read(file, MakeTasksStage, make_tasks_stage)


def _read(file: Path, stage: type[StageT], cut: "Callable[[Config], StageT]") -> StageT:
    from sbcore.config.load import load_config, load_stage

    whole = file.suffix in (".yaml", ".yml")
    return cut(load_config(file)) if whole else load_stage(file, stage)
