"""Whether what a configuration asks for can come out well, before anything is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sbcore.config.schema import Config
from sbcore.demo.tasks import TASKS
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.evaluate.task_folder import check_tasks
from sbcore.workflow.checks import check_beforehand


def check_asked(config: Config, files: Sequence[Path]) -> None:
    """Raises ConfigError with a line for every mistake that only a stage would find.

    They are those of `check_beforehand`, and tasks that evaluation would look for in vain, after
    all trainings. Tasks that are still to be made are not known here, so nothing is said beside
    them.
    """
    check_beforehand(config, files, *((("evaluate", "tasks"), line) for line in _unknown(config)))


def _unknown(config: Config) -> Iterator[str]:
    evaluate = config.evaluate
    if evaluate.made_sets:
        return
    if evaluate.longbench is None:
        wrong = [] if config.data.files else [n for n in evaluate.tasks if n not in TASKS]
        yield from (unknown_name("evaluate.tasks", name, TASKS) for name in wrong)
    elif Path(evaluate.longbench).is_dir():  # a folder that is missing is a mistake of its own
        for name in evaluate.tasks:
            try:
                check_tasks([Path(evaluate.longbench)], [name])
            except SparseBalanceError as error:
                yield str(error)
