"""What a task is, and where tasks come from.

Benchmarks are families, one table each, loaded when asked for: a new one is a file with a table of
`Task` and a row here. Other tasks need no code: their folder describes them (`descriptions`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name

from sbcore.errors import SparseBalanceError, unknown_name

FAMILIES = {
    "longbench": "sbcore.evaluate.longbench:TASKS",
    "longbench_v2": "sbcore.evaluate.longbench_v2:TASKS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How the examples of one task are asked and scored.

    ``num_examples`` is the size of the official set, None where there is none. ``first_line``:
    only a prediction's first line is scored. ``chat``: the prompt goes into the chat template.
    ``stop_at_newline``: generation ends at a line's end, after at least one token.
    """

    name: str
    category: str
    language: str
    metric: str
    max_new_tokens: int
    num_examples: int | None
    first_line: bool
    chat: bool
    stop_at_newline: bool


@cache
def benchmark_tasks() -> dict[str, Task]:
    """Returns every task of every family by name."""
    tables: list[tuple[Task, ...]] = [resolve_name(table) for table in FAMILIES.values()]
    return {task.name: task for table in tables for task in table}


def find_task(
    name: str, described: Mapping[str, Task], *, place: str, groups: Iterable[str]
) -> Task:
    """Returns the task of this name, from a folder's own descriptions before the benchmarks.

    Raises:
        SparseBalanceError: No such task; ``place`` says where it was asked for and near names
            are offered, those of ``groups`` too.
    """
    tasks = benchmark_tasks() | dict(described)
    if name not in tasks:
        raise SparseBalanceError(f"{place}: {unknown_name('task', name, [*tasks, *groups])}")
    return tasks[name]
