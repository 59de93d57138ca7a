"""How many steps a run has at most is what is really drawn, where the configuration tells it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.beforehand import foreseen
from sbcore.beforehand.check import check_beforehand
from sbcore.config.data import DemoConfig, SamplingConfig
from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.errors import ConfigError
from sbcore.plan.sampling import drawn_steps


@given(
    num_samples=st.integers(1, 40),
    num_epochs=st.integers(1, 4),
    global_batch=st.integers(2, 12),
    max_steps=st.integers(0, 12),
    look_ahead=st.integers(1, 3),
)
def test_no_run_has_more_steps_than_are_foreseen_and_the_demo_has_as_many(
    num_samples: int, num_epochs: int, global_batch: int, max_steps: int, look_ahead: int
) -> None:
    sampling = SamplingConfig(
        num_epochs=num_epochs,
        global_batch=global_batch,
        max_steps=max_steps,
        look_ahead=look_ahead,
    )
    config = Config(demo=DemoConfig(num_samples=num_samples), sampling=sampling)
    drawn = list(drawn_steps(np.full(num_samples, 64), sampling, seed=0))
    assert foreseen._most_steps(config) == len(drawn)


def test_of_own_data_only_the_limit_bounds_the_steps(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("{}\n")
    text = (
        f"data: {{files: [{tmp_path / 'own.jsonl'}], tokenizer: {tmp_path}}}\n"
        "evaluate: {tasks: []}\ndemo: {num_samples: 33}\ntrain: {trace_steps: [70]}\n"
    )
    file = tmp_path / "run.yaml"
    for fine in ("", "sampling: {max_steps: 71}\n"):
        file.write_text(text + fine)
        check_beforehand(load_config(file), [file])
    file.write_text(f"{text}sampling: {{max_steps: 70}}\n")
    with pytest.raises(ConfigError, match="the run has 70 steps at most, counted from 0"):
        check_beforehand(load_config(file), [file])
