"""Tasks that evaluation would look for in vain, after all trainings."""

from collections.abc import Iterator
from pathlib import Path

from sbcore.beforehand.mistake import Mistake
from sbcore.config.schema import Config
from sbcore.demo.tasks import TASKS
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.evaluate.task_folder import check_tasks


def unknown_tasks(config: Config) -> Iterator[Mistake]:
    """Yields each task that is not there.

    Tasks that are still to be made are not known here, so nothing is said beside them.
    """
    for line in _lines(config):
        yield Mistake(("evaluate", "tasks"), config.evaluate.tasks, line)


def _lines(config: Config) -> Iterator[str]:
    evaluate = config.evaluate
    if evaluate.made_sets:
        return
    if evaluate.longbench is None:
        wrong = [] if config.data.files else [n for n in evaluate.tasks if n not in TASKS]
        yield from (unknown_name("evaluate.tasks", name, TASKS) for name in wrong)
    # A folder that is missing is a mistake of its own.
    elif evaluate.longbench and Path(evaluate.longbench).is_dir():
        for name in evaluate.tasks:
            try:
                check_tasks([Path(evaluate.longbench)], [name])
            except SparseBalanceError as error:
                yield str(error)
