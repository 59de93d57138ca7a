"""``tasks.json``: a folder's own tasks, described beside their rows (``TASK.jsonl``).

An object by task name, for example ``{"recall": {"metric": "exact", "max_new_tokens": 1,
"template": "{context}{input}", "chance": 12.5}}``. The template is filled with a row's fields.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter

from sbcore.artifacts import write_json
from sbcore.evaluate.checked_json import read_checked
from sbcore.evaluate.metrics import find_metric
from sbcore.evaluate.tasks import Task

FILE = "tasks.json"


class TaskDescription(BaseModel):
    """One entry of ``tasks.json``; ``chance`` is the score of guessing, percent, if known."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    metric: str
    max_new_tokens: PositiveInt
    template: str
    chance: float | None = Field(default=None, ge=0, le=100)
    category: str = "own"
    language: str = "en"
    first_line: bool = False
    chat: bool = False
    stop_at_newline: bool = False

    def as_task(self, name: str) -> Task:
        """Returns the task that is described."""
        values = self.model_dump(exclude={"template", "chance"})
        return Task(name=name, num_examples=None, **values)


_DESCRIPTIONS = TypeAdapter(dict[str, TaskDescription])


def read_descriptions(folder: Path) -> dict[str, TaskDescription]:
    """Returns the tasks that ``folder/tasks.json`` describes, none if there is no such file.

    Raises:
        SparseBalanceError: The file is not json, an entry is wrong, or a metric does not exist.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    found = read_checked(path, _DESCRIPTIONS)
    for name, description in found.items():
        find_metric(description.metric, place=f"{path}: {name}")
    return found


def write_descriptions(folder: Path, entries: Mapping[str, TaskDescription]) -> None:
    """Writes ``tasks.json`` if there are entries; predictions beside it can be scored again."""
    if entries:
        write_json(folder / FILE, {name: entry.model_dump() for name, entry in entries.items()})
