"""Names of tasks as users write them: single ones, groups, and those of lm-evaluation-harness.

``longbench_hotpotqa`` is LongBench's hotpotqa, ``longbench`` all of its tasks that are there,
``niah`` and ``ruler`` those of a made folder, ``niah_single_1`` that task at all its lengths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.descriptions import TaskDescription
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.longbench import TASKS as LONGBENCH
from sbcore.evaluate.rows import find_rows_file
from sbcore.evaluate.ruler.tasks import TASKS as RULER
from sbcore.evaluate.ruler.tasks import split_name
from sbcore.evaluate.tasks import benchmark_tasks

_PREFIX = "longbench_"
_MADE = ("niah", "ruler")
_GROUPS = {
    "longbench": tuple(task.name for task in STANDARD),
    "longbench_e": tuple(task.name for task in LONGBENCH[len(STANDARD) :]),
}


def harness_name(name: str) -> str:
    """Returns the name under which lm-evaluation-harness knows a task, its own if it does not.

    RULER's tasks have no length in their names there: it is the name of the score.
    """
    if name in {task.name for task in LONGBENCH}:
        return f"{_PREFIX}{name}"
    sized = split_name(name)
    return sized[0] if sized else name


def group_names(described: Mapping[str, TaskDescription]) -> list[str]:
    """Returns what stands for several tasks: benchmarks, and RULER's tasks without a length."""
    made = {entry.category for entry in described.values()} & set(_MADE)
    bases = {sized[0] for task in described if (sized := split_name(task))}
    return [*_GROUPS, *sorted(made | bases)]


def expand_names(
    names: Sequence[str], described: Mapping[str, TaskDescription], folders: Sequence[Path]
) -> list[str]:
    """Returns single tasks, each once, in the order asked for.

    Raises:
        SparseBalanceError: A group has no task in the folders.
    """
    found = [task for name in names for task in _expand(name, described, folders)]
    return list(dict.fromkeys(found))


def rows_file(folder: Path, name: str) -> Path | None:
    """Returns the file with a task's examples, in the folder's ``data/`` or in itself."""
    return find_rows_file(folder / "data", name) or find_rows_file(folder, name)


def _expand(
    name: str, described: Mapping[str, TaskDescription], folders: Sequence[Path]
) -> list[str]:
    if name in described:
        return [name]
    if members := [task for task in described if _belongs(task, name, described[task])]:
        return members
    if name in _GROUPS:
        return _of_group(name, folders)
    if name in _MADE or name in RULER:
        raise _none_there(name, folders, "make them with sb make-tasks and give their folder.")
    return [name if name in benchmark_tasks() else name.removeprefix(_PREFIX)]


def _belongs(task: str, name: str, description: TaskDescription) -> bool:
    base, _, length = task.rpartition("_")
    return description.category == name or (base == name and length.isdecimal())


def _of_group(name: str, folders: Sequence[Path]) -> list[str]:
    members = [task for task in _GROUPS[name] if any(rows_file(folder, task) for folder in folders)]
    if not members:
        raise _none_there(name, folders, "give the folder of the benchmark's data.")
    return members


def _none_there(name: str, folders: Sequence[Path], what_to_do: str) -> SparseBalanceError:
    places = ", ".join(map(str, folders))
    return SparseBalanceError(
        f"evaluate.tasks: {name}: none of its tasks is in {places}. {what_to_do}"
    )
