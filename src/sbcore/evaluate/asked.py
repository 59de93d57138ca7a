"""Whether the tasks that a configuration asks for are there, before anything is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sbcore.config.schema import Config
from sbcore.config.source import place_of, read_source
from sbcore.demo.tasks import TASKS
from sbcore.errors import ConfigError, SparseBalanceError, unknown_name
from sbcore.evaluate.task_folder import check_tasks


def check_asked(config: Config, files: Sequence[Path]) -> None:
    """Raises ConfigError for tasks that evaluation would not find, after all trainings.

    Lines begin with the place in the files that the configuration was read from. Tasks that are
    still to be made are not known here, so nothing is said beside them.
    """
    place = place_of(("evaluate", "tasks"), None, [read_source(file) for file in files])
    if lines := [f"{place}: {line}" for line in _unknown(config)]:
        raise ConfigError("\n".join(lines))


def _unknown(config: Config) -> Iterator[str]:
    evaluate = config.evaluate
    if evaluate.made_sets or not evaluate.tasks:
        return
    if evaluate.longbench is None:
        wrong = [] if config.data.files else [n for n in evaluate.tasks if n not in TASKS]
        yield from (unknown_name("evaluate.tasks", name, TASKS) for name in wrong)
        return
    try:
        check_tasks([Path(evaluate.longbench)], evaluate.tasks)
    except SparseBalanceError as error:
        yield str(error)
