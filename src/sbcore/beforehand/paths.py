"""Paths that are not there, or not named where own data need them."""

from collections.abc import Iterator
from pathlib import Path

from sbcore.beforehand.mistake import Mistake, wrong_value
from sbcore.config.schema import Config
from sbcore.config.source import Keys


def unnamed_paths(config: Config) -> Iterator[Mistake]:
    """Yields each path that the demo makes for itself and own data must come with."""
    if not config.data.files:
        return
    if config.data.tokenizer is None and config.model.path is None:
        wrong = (
            "data.files need a tokenizer. name a Hugging Face directory, or a model.path that "
            "holds one."
        )
        yield wrong_value(("data", "tokenizer"), None, wrong)
    lora, evaluate = config.model.lora, config.evaluate
    if lora is not None and lora.save == "adapter" and config.model.path is None:
        wrong = "adapters need a model to stand beside. name model.path, or lora.save: merged."
        yield wrong_value(("model", "path"), None, wrong)
    if evaluate.tasks and evaluate.longbench is None and not evaluate.made_sets:
        wrong = (
            "the demo's tasks fit the demo's tokenizer only. name a LongBench folder, or one with "
            "a tasks.json, and evaluate.tasks in it; evaluate.niah: {} makes tasks; "
            "evaluate.tasks: [] goes without an evaluation."
        )
        yield wrong_value(("evaluate", "longbench"), None, wrong)


def missing_paths(config: Config) -> Iterator[Mistake]:
    """Yields each path that is not there."""
    evaluate = config.evaluate
    files: dict[Keys, str | None] = {
        ("latency", "table"): config.latency.table,
        ("demo", "lengths", "csv"): config.demo.lengths.csv,
    }
    files |= {("data", "files", index): file for index, file in enumerate(config.data.files)}
    folders: dict[Keys, str | None] = {
        ("data", "tokenizer"): config.data.tokenizer,
        ("model", "path"): config.model.path,
        ("evaluate", "longbench"): evaluate.longbench,
        ("evaluate", "longbench_v2"): evaluate.longbench_v2,
    }
    folders |= {("evaluate", "ruler_files", str(n)): it for n, it in evaluate.ruler_files.items()}
    for paths, kind, is_there in ((files, "file", Path.is_file), (folders, "folder", Path.is_dir)):
        for keys, path in paths.items():
            if path is not None and not (path and is_there(Path(path))):
                wrong = f"no such {kind}. paths start at the checkout, correct it."
                yield wrong_value(keys, path, wrong)
