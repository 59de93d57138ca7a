"""Evidence with a real pretrained model: prepares it, and reads what came back.

    export PYTHONPATH=src:kernels
    python docs/results/smollm2.py prepare FOLDER MODEL DATA [--small]
    python docs/results/smollm2.py read OUT docs/results/smollm2.csv

``prepare`` makes data and tasks on a CPU (two minutes): MODEL is examples/smollm2.py's directory,
DATA holds ``sft/qmsum_train.jsonl.gz`` (QMSum: id, transcript, queries) and LongBench in
``longbench/``. FOLDER/start gets the configuration and the tokenizer; its weights come from
`smollm2_weights.py`, or with ``--small`` from chance. `smollm2_train.py` trains and evaluates;
``read`` writes one row per variant and task, family of tasks and benchmark, with the paired
difference to the baseline (95 %, bootstrap over examples), and beside it losses and times of runs.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quality_recipe import VARIANTS
from quality_rows import ROW_COLUMNS, Scores, compared
from quality_runs import write_rows, write_runs
from rich.progress import Progress
from smollm2_data import write_records
from smollm2_recipe import BEFORE, Recipe, small

from sbcore.artifacts import read_json
from sbcore.config.stages import PrepareStage, make_tasks_stage
from sbcore.data.prepare import prepare as prepare_data
from sbcore.evaluate.longbench import STANDARD
from sbcore.evaluate.make_tasks import make_tasks

BASELINE, EVERYTHING, CHINESE = "baseline", "all", "chinese"
COLUMNS = ("variant", "family", "task", *ROW_COLUMNS)
_LONGBENCH = {task.name: task for task in STANDARD}
_TOKENIZER = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Does what the first word says."""
    match sys.argv[1:]:
        case ["prepare", folder, model, data]:
            prepare(Recipe(), Path(folder), model=Path(model), data=Path(data))
        case ["prepare", folder, model, data, "--small"]:
            prepare(small(), Path(folder), model=Path(model), data=Path(data))
            random_start(Path(folder) / "start")
        case ["read", out, table]:
            write_tables(Path(out), Path(table))
        case _:
            raise SystemExit(__doc__)


def prepare(recipe: Recipe, folder: Path, *, model: Path, data: Path) -> None:
    """Writes what all seeds have in common; the seed of the evaluated tasks is 0."""
    start, config = folder / "start", recipe.config(seed=0)
    start.mkdir(parents=True, exist_ok=True)
    for name in (*_TOKENIZER, "chat_template.jinja"):
        shutil.copyfile(model / name, start / name)
    records = folder / "train.jsonl"
    write_records(recipe, data / "sft" / "qmsum_train.jsonl.gz", tokenizer=start, out=records)
    with Progress() as progress:
        prepare_data(
            PrepareStage(data=config.data),
            files=[records],
            tokenizer=start,
            out=folder / "data",
            progress=progress,
        )
    records.unlink()  # the tokens are what is read
    make_tasks(make_tasks_stage(config), tokenizer_dir=start, out=folder / "tasks")
    copy_contents(data / "longbench", folder / "tasks" / "longbench")
    recipe.write(folder)


def copy_contents(source: Path, target: Path) -> None:
    """Copies a folder's files without their modes, which may forbid writing."""
    for file in (path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def random_start(folder: Path) -> None:
    """Writes a tiny model of the same family and vocabulary into the folder of its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = read_json(folder / "config.json") | {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": small().num_layers,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_dict(shape)).save_pretrained(folder)


def write_tables(out: Path, table: Path) -> None:
    """Writes the scores, and beside them ``-runs.csv``; each whole or not at all."""
    found = {name: read_scores(out, name) for name in (*BEFORE, *VARIANTS)}
    rows = [row for name in found for row in table_rows(name, found[name], found[BASELINE])]
    write_rows(table, COLUMNS, rows)
    write_runs(out, table)


def read_scores(out: Path, variant: str) -> Scores:
    """Returns a variant's example scores by family and task, of all finished seeds."""
    scores: Scores = {}
    for path in sorted(out.glob(f"seed*/{variant}/*/result.json")):
        seed = int(path.parts[-4].removeprefix("seed"))
        for task, values in read_json(path)["example_scores"].items():
            scores.setdefault((family_of(task), task), {})[seed] = values
    if not scores:
        raise SystemExit(f"{out}: no seed*/{variant}/*/result.json. run smollm2_train.py first")
    return scores


def family_of(task: str) -> str:
    """Returns LongBench's category of a task, one of all Chinese tasks; niah; ruler."""
    entry = _LONGBENCH.get(task)
    if entry is not None:
        return CHINESE if entry.language == "zh" else entry.category
    return "niah" if task.removeprefix("niah_").isdecimal() else "ruler"


def table_rows(variant: str, scores: Scores, baseline: Scores) -> Iterator[dict[str, Any]]:
    """Yields a row per task and family, one of LongBench without Chinese and one of made tasks."""
    families = {family: [cell for cell in scores if cell[0] == family] for family, _ in scores}
    for family, cells in families.items():
        for cell in cells:
            yield _row(variant, cell, compared(scores, baseline, [cell]))
        yield _row(variant, (family, EVERYTHING), compared(scores, baseline, cells))
    made = [cell for cell in scores if cell[0] in ("niah", "ruler")]
    english = [cell for cell in scores if cell not in made and cell[0] != CHINESE]
    for name, cells in (("longbench", english), ("made", made)):
        yield _row(variant, (name, EVERYTHING), compared(scores, baseline, cells))


def _row(variant: str, cell: tuple[str, str], values: dict[str, Any]) -> dict[str, Any]:
    return {"variant": variant, "family": cell[0], "task": cell[1]} | values


if __name__ == "__main__":
    main()
