"""What the stage of the base model reads: the demo, a shape, a seed and where, nothing assumed."""

from typing import Any

import pytest
from pydantic import ValidationError

from sbcore.config.schema import Config
from sbcore.config.stages import BaseStage, shared_stages

WHOLE: dict[str, Any] = {
    "seed": 7,
    "demo": {"base_steps": 9, "base_tokens_per_step": 640},
    "shape": {"hidden_size": 96, "num_hidden_layers": 3},
    "device": "cuda",
}


def test_the_base_model_is_made_as_the_configuration_says() -> None:
    config = Config.model_validate(
        {
            "seed": WHOLE["seed"],
            "demo": WHOLE["demo"],
            "model": {"shape": WHOLE["shape"]},
            "topology": {"device": WHOLE["device"]},
        }
    )
    assert dict(shared_stages(config))["base"] == BaseStage.model_validate(WHOLE)


@pytest.mark.parametrize("key", WHOLE)
def test_a_stage_s_file_must_hold_every_key(key: str) -> None:
    less = {name: value for name, value in WHOLE.items() if name != key}
    with pytest.raises(ValidationError, match=rf"{key}\n\s+Field required"):
        BaseStage.model_validate(less)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_every_device_of_the_topology_is_one_of_the_base_model(device: str) -> None:
    config = Config.model_validate({"topology": {"device": device}})
    base = dict(shared_stages(config))["base"]
    assert isinstance(base, BaseStage)
    assert base.device == device
