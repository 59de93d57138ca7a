"""How many positions a model's configuration says it has."""

import json
from shutil import copytree

import pytest

from sbcore.evaluate.positions import read_num_positions


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
