"""Writes each stage's part of the configuration to a file of its own.

Snakemake takes these files as plain inputs. A file is written only when its content changes, so
an edited key reruns exactly the stages that read it (docs/decisions/stage-configs.md).
"""

from pathlib import Path

from sbcore.artifacts import write_text
from sbcore.config.schema import Config
from sbcore.config.stages import all_stages


def freeze_stages(config: Config, folder: Path) -> list[Path]:
    """Writes folder/STAGE.json for every stage; returns the files whose content changed."""
    written = []
    for name, stage in all_stages(config):
        path, text = folder / f"{name}.json", stage.model_dump_json(indent=2) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            written.append(path)
    return written
