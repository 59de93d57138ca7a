"""Stage files: an edit changes exactly the files of the stages that read the key."""

from pathlib import Path

import pytest

from sbcore.config.schema import Config
from sbcore.workflow.freeze import freeze_stages

EDITS = {
    "evaluate": ({"evaluate": {"max_examples": 3}}, {"run", "evaluate.baseline"}),
    "learning rate": ({"train": {"learning_rate": 1e-4}}, {"run", "train.baseline"}),
    "type of the saved weights": ({"model": {"save_dtype": "float32"}}, {"run", "train.baseline"}),
    "device": (
        {"topology": {"device": "cpu"}},
        {"run", "base", "profile_latency", "train.baseline", "evaluate.baseline"},
    ),
    "variant": (
        {"variants": {"baseline": {"max_sequences": 2}}},
        {"run", "plan.baseline", "train.baseline"},  # a layout made online reads it too
    ),
    "new variant": (
        {"variants": {"baseline": {"max_sequences": 1}, "b": {}}},
        {"run", "report", "plan.b", "train.b", "evaluate.b"},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_rewrites_what_reads_it(tmp_path: Path, name: str) -> None:
    edit, expected = EDITS[name]
    freeze_stages(Config(), tmp_path)
    assert freeze_stages(Config(), tmp_path) == []
    changed = freeze_stages(Config.model_validate(edit), tmp_path)
    assert {path.name.removesuffix(".json") for path in changed} == expected


def test_adapters_saved_alone_are_measured_as_merged_ones(tmp_path: Path) -> None:
    freeze_stages(Config.model_validate({"model": {"lora": {}}}), tmp_path)
    changed = freeze_stages(
        Config.model_validate({"model": {"lora": {"save": "adapter"}}}), tmp_path
    )
    assert {path.name for path in changed} == {"run.json", "train.baseline.json"}
