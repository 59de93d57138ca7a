"""Makes every set of evaluation tasks that the configuration asks for: a task folder each."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sbcore.config.reporting import MADE_SETS, NiahConfig, RulerConfig
from sbcore.config.stages import MakeTasksStage
from sbcore.errors import SparseBalanceError

Maker = Callable[[Path], list[str]]
"""Writes a task folder and returns the names of its tasks."""


def make_tasks(config: MakeTasksStage, *, tokenizer_dir: Path, out: Path) -> dict[str, list[str]]:
    """Writes ``out/SET`` for each set and returns its tasks by set; other sets there are removed.

    Raises:
        SparseBalanceError: No set is asked for, or one cannot be made.
    """
    makers = _makers(config, tokenizer_dir)
    if not makers:
        raise SparseBalanceError(
            "evaluate: niah, ruler, ruler_files and longbench_v2 are not set: nothing to make. "
            "write evaluate.niah: {} for a grid of defaults."
        )
    for name in MADE_SETS:
        if name not in makers:
            shutil.rmtree(out / name, ignore_errors=True)
    return {name: make(out / name) for name, make in makers.items()}


def _makers(config: MakeTasksStage, tokenizer_dir: Path) -> dict[str, Maker]:
    from sbcore.evaluate.longbench_v2 import make_longbench_v2
    from sbcore.evaluate.ruler.official import import_ruler

    makers: dict[str, Maker] = {}
    if config.niah is not None:
        makers["niah"] = partial(_niah, config.niah, tokenizer_dir, config.seed)
    if config.ruler is not None:
        makers["ruler"] = partial(_ruler, config.ruler, tokenizer_dir, config.seed)
    if config.ruler_files:
        folders = {length: Path(folder) for length, folder in config.ruler_files.items()}
        makers["ruler_files"] = partial(import_ruler, folders=folders)
    if config.longbench_v2 is not None:
        makers["longbench_v2"] = partial(make_longbench_v2, source=Path(config.longbench_v2))
    return makers


def _niah(config: NiahConfig, tokenizer_dir: Path, seed: int, out: Path) -> list[str]:
    from sbcore.evaluate.niah.make import make_niah
    from sbcore.evaluate.niah.needle import Needle, depth_grid

    return make_niah(
        out,
        tokenizer_dir=tokenizer_dir,
        lengths=config.lengths,
        depths_percent=depth_grid(config.num_depths, spacing=config.spacing),
        haystack=config.haystack,
        needle=Needle(config.sentence, config.question, config.answer),
        num_examples=config.num_examples,
        max_new_tokens=config.max_new_tokens,
        seed=seed,
    )


def _ruler(config: RulerConfig, tokenizer_dir: Path, seed: int, out: Path) -> list[str]:
    from sbcore.evaluate.ruler.make import MADE, make_ruler

    return make_ruler(
        out,
        tokenizer_dir=tokenizer_dir,
        tasks=config.tasks or MADE,
        lengths=config.lengths,
        num_examples=config.num_examples,
        haystack=config.haystack,
        seed=seed,
    )
