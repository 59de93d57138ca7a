"""What is refused before anything starts: paths that are not there, what stages refuse later."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sbcore.config.schema import Config
from sbcore.config.source import Keys, SourceFile, place_of, read_source
from sbcore.errors import ConfigError
from sbcore.workflow.foreseen import Mistake, foreseen


def check_beforehand(config: Config, files: Sequence[Path], *more: tuple[Keys, str]) -> None:
    """Raises ConfigError with a line for every path that is not there, or not named but needed.

    What a stage would refuse later (`foreseen`) is said with them, and ``more``: a key and a line
    each, from packages above this one. Lines begin with their place in the files that the
    configuration was read from, and stand in that order.
    """
    sources = [read_source(file) for file in files]
    found = [
        (_place(keys, value, sources), f"{'.'.join(map(str, keys))} = {value}: {wrong}")
        for keys, value, wrong in (*_paths(config), *_unnamed(config), *foreseen(config))
    ]
    found += [(place_of(keys, None, sources), line) for keys, line in more]
    if found:
        found.sort(key=lambda mistake: _order(mistake[0], sources))
        raise ConfigError("\n".join(dict.fromkeys(f"{place}: {line}" for place, line in found)))


def _place(keys: Keys, value: object, sources: Sequence[SourceFile]) -> str:
    """Returns the place of a value; the file where it is a default that nobody wrote."""
    written = any(
        keys[:depth] in file.lines for file in sources for depth in (len(keys) - 1, len(keys))
    )
    default: object = Config()
    for key in keys:
        default = getattr(default, str(key), None)
    if value == default and not written and sources:
        return str(sources[0].path)
    return place_of(keys, value, sources)


def _order(place: str, sources: Sequence[SourceFile]) -> tuple[int, int]:
    """Returns what places sort by: files, lines; what stands in no line comes last."""
    file, _, line = place.rpartition(":")
    names = [str(source.path) for source in sources]
    return (names.index(file), int(line)) if file in names else (len(names), 0)


def _unnamed(config: Config) -> Iterator[Mistake]:
    """Yields each path that the demo makes for itself and own data must come with."""
    if not config.data.files:
        return
    if config.data.tokenizer is None and config.model.path is None:
        wrong = (
            "data.files need a tokenizer. name a Hugging Face directory, or a model.path that "
            "holds one."
        )
        yield ("data", "tokenizer"), None, wrong
    lora, evaluate = config.model.lora, config.evaluate
    if lora is not None and lora.save == "adapter" and config.model.path is None:
        wrong = "adapters need a model to stand beside. name model.path, or lora.save: merged."
        yield ("model", "path"), None, wrong
    if evaluate.tasks and evaluate.longbench is None and not evaluate.made_sets:
        wrong = (
            "the demo's tasks fit the demo's tokenizer only. name a LongBench folder, or one with "
            "a tasks.json, and evaluate.tasks in it; evaluate.niah: {} makes tasks; "
            "evaluate.tasks: [] goes without an evaluation."
        )
        yield ("evaluate", "longbench"), None, wrong


def _paths(config: Config) -> Iterator[Mistake]:
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
            if path is not None and not is_there(Path(path)):
                yield keys, path, f"no such {kind}. paths start at the checkout, correct it."
