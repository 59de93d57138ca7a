"""Makes every set of evaluation tasks that the configuration asks for: a task folder each."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sbcore.config.reporting import MADE_SETS, NiahConfig, RulerConfig
from sbcore.config.stages import MakeTasksStage
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.niah.folder import unheard

if TYPE_CHECKING:
    from rich.progress import Progress


class Maker(Protocol):
    """Writes a task folder and returns the names of its tasks; tells of each example."""

    def __call__(self, out: Path, *, on_row: Callable[[], object]) -> list[str]:
        """Returns the names of the tasks."""
        ...


@dataclass(frozen=True, slots=True)
class _Set:
    """``num_examples`` is None for files of others, which are counted as they are read."""

    make: Maker
    num_examples: int | None


def make_tasks(
    config: MakeTasksStage, *, tokenizer_dir: Path, out: Path, progress: "Progress | None" = None
) -> dict[str, list[str]]:
    """Writes ``out/SET`` for each set and returns its tasks by set; other sets there are removed.

    ``progress`` gets a bar for each set.

    Raises:
        SparseBalanceError: No set is asked for, or one cannot be made.
    """
    sets = _sets(config, tokenizer_dir)
    if not sets:
        raise SparseBalanceError(
            "evaluate: niah, ruler, ruler_files and longbench_v2 are not set: nothing to make. "
            "write evaluate.niah: {} for a grid of defaults."
        )
    for name in MADE_SETS:
        if name not in sets:
            shutil.rmtree(out / name, ignore_errors=True)
    made = {}
    for name, each in sets.items():
        on_row = unheard
        if progress is not None:
            bar = progress.add_task(f"make-tasks {name}", total=each.num_examples)
            on_row = partial(progress.advance, bar)
        made[name] = each.make(out / name, on_row=on_row)
    return made


def _sets(config: MakeTasksStage, tokenizer_dir: Path) -> dict[str, _Set]:
    from sbcore.evaluate.longbench_v2 import make_longbench_v2
    from sbcore.evaluate.ruler.official import import_ruler

    sets: dict[str, _Set] = {}
    if config.niah is not None:
        sets["niah"] = _niah(config.niah, tokenizer_dir, config.seed)
    if config.ruler is not None:
        sets["ruler"] = _ruler(config.ruler, tokenizer_dir, config.seed)
    if config.ruler_files:
        folders = {length: Path(folder) for length, folder in config.ruler_files.items()}
        sets["ruler_files"] = _Set(partial(import_ruler, folders=folders), None)
    if config.longbench_v2 is not None:
        make = partial(make_longbench_v2, source=Path(config.longbench_v2))
        sets["longbench_v2"] = _Set(make, None)
    return sets


def _niah(config: NiahConfig, tokenizer_dir: Path, seed: int) -> _Set:
    from sbcore.evaluate.niah.make import make_niah
    from sbcore.evaluate.niah.needle import Needle, depth_grid

    make = partial(
        make_niah,
        tokenizer_dir=tokenizer_dir,
        lengths=config.lengths,
        depths_percent=depth_grid(config.num_depths, spacing=config.spacing),
        haystack=config.haystack,
        needle=Needle(config.sentence, config.question, config.answer),
        num_examples=config.num_examples,
        max_new_tokens=config.max_new_tokens,
        seed=seed,
    )
    return _Set(make, len(config.lengths) * config.num_depths * config.num_examples)


def _ruler(config: RulerConfig, tokenizer_dir: Path, seed: int) -> _Set:
    from sbcore.evaluate.ruler.make import MADE, make_ruler

    tasks = tuple(dict.fromkeys(config.tasks or MADE))
    make = partial(
        make_ruler,
        tokenizer_dir=tokenizer_dir,
        tasks=tasks,
        lengths=config.lengths,
        num_examples=config.num_examples,
        haystack=config.haystack,
        seed=seed,
    )
    return _Set(make, len(tasks) * len(config.lengths) * config.num_examples)
