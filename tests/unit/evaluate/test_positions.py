"""How many positions a model's configuration says it has, and what is said of passing them."""

import json
from shutil import copytree

import pytest

from sbcore.evaluate.descriptions import TaskDescription
from sbcore.evaluate.positions import positions_passed, read_num_positions
from sbcore.evaluate.prompts import Prompt


@pytest.fixture
def configured(model_dir, tmp_path):
    """Returns the positions of the small model with other keys in its configuration."""

    def run(**changes):
        copytree(model_dir, tmp_path / "model", dirs_exist_ok=True)
        path = tmp_path / "model/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return read_num_positions(tmp_path / "model")

    return run


def test_plain_positions(configured):
    assert configured(max_position_embeddings=4096) == 4096


@pytest.mark.parametrize(
    ("num_positions", "scaling", "expected"),
    [
        (32768, {"rope_type": "yarn", "factor": 4.0}, 131072),  # Qwen2.5's card
        (
            131072,
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            131072,
        ),
        (
            131072,  # Llama 3.1
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            131072,
        ),
        (4096, {"rope_type": "linear", "factor": 2.0}, 8192),
    ],
)
def test_scaled_positions(configured, num_positions, scaling, expected):
    found = configured(
        max_position_embeddings=num_positions, rope_parameters=scaling | {"rope_theta": 1e4}
    )
    assert found == expected


def test_adapters_have_the_positions_of_their_model(configured, tmp_path):
    configured(max_position_embeddings=99)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "model")})
    )
    assert read_num_positions(tmp_path) == 99


@pytest.mark.parametrize(
    ("num_positions", "advice"),
    [
        (21, None),
        (20, "set evaluate.max_prompt_tokens to 14 or less (a chat template adds to it), or leave"),
        (7, "set evaluate.max_prompt_tokens to 1 or less (a chat template adds to it), or leave"),
        (6, "leave"),  # no prompt is short enough
    ],
)
def test_what_is_advised_can_be_followed(num_positions, advice):
    described = TaskDescription(metric="qa_f1", max_new_tokens=6, template="{input}")
    task = described.as_task("t")
    prompts = [Prompt([0] * length, truncated=False) for length in (15, 3)]
    line = positions_passed(task, prompts, num_positions=num_positions)
    if advice is None:
        assert line is None
    else:
        assert line == (
            "warning: t: a prompt of 15 tokens and its answer of up to 6 pass the model's "
            f"{num_positions} positions: such answers are bad. {advice} the task out."
        )
