"""Stage files: an edit changes exactly the files of the stages that read the key."""

from pathlib import Path

import pytest

from sbcore.config.schema import Config
from sbcore.workflow.freeze import freeze_stages

EDITS = {
    "evaluate": ({"evaluate": {"max_examples": 3}}, {"run", "evaluate.baseline"}),
    "learning rate": ({"train": {"learning_rate": 1e-4}}, {"run", "train.baseline"}),
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
