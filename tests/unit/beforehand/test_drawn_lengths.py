"""What is said of the demo's lengths counts the samples that it is about, and names their ends."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sbcore.beforehand.check import check_beforehand
from sbcore.beforehand.demo import demo_mistakes, most_samples
from sbcore.config.load import load_config
from sbcore.config.schema import Config
from sbcore.demo.lengths import draw_samples
from sbcore.errors import ConfigError


@pytest.fixture
def mixed(tmp_path: Path) -> dict[str, Any]:
    """A demo whose samples have one of four lengths."""
    (tmp_path / "lengths.csv").write_text("64\n1000\n2000\n3500\n")
    lengths = {"csv": str(tmp_path / "lengths.csv"), "max_tokens": 3500}
    return {"num_samples": 80, "lengths": lengths}


def drawn(config: Config) -> NDArray[np.int64]:
    return draw_samples(config.demo, seed=config.seed)[0]


@pytest.mark.parametrize("on_long_sample", ["drop", "truncate"])
@pytest.mark.parametrize("limit", [2000, 2500])
def test_a_grid_need_only_reach_what_is_left_of_the_samples(
    mixed: dict[str, Any], on_long_sample: str, limit: int
) -> None:
    data = {"max_sample_tokens": limit, "on_long_sample": on_long_sample}
    longest = limit if on_long_sample == "truncate" else 2000
    values = {"demo": mixed, "data": data, "latency": {"lengths": [64, 256, 512, 999]}}
    config = Config.model_validate(values)
    left = drawn(config)
    if on_long_sample == "drop":
        left = left[left <= limit]
    count = int((left > 999).sum())
    (mistake,) = demo_mistakes(config)
    assert mistake.line == (
        f"latency.lengths = [64, 256, 512, 999]: {count} of the demo's 80 samples are longer than "
        f"999 tokens, up to {longest} (demo.lengths). add {longest} to them, or raise "
        "latency.max_extrapolation."
    )
    enough = {"latency": {"lengths": [64, 256, 512, 999, longest]}}
    assert list(demo_mistakes(Config.model_validate(values | enough))) == []


def test_where_all_are_dropped_the_shortest_tells_the_least_limit() -> None:
    demo = {"num_samples": 160, "lengths": {"min_tokens": 100}}
    values = {"demo": demo, "data": {"on_long_sample": "drop", "max_sample_tokens": 99}}
    config = Config.model_validate(values)
    shortest = int(drawn(config).min())
    (mistake,) = demo_mistakes(config)
    assert f"all of the demo's 160 samples are dropped, they have {shortest} tokens" in mistake.line
    values["data"]["max_sample_tokens"] = shortest
    assert list(demo_mistakes(Config.model_validate(values))) == []


@pytest.mark.parametrize("limit", [63, 64, 1500])
@pytest.mark.parametrize("on_long_sample", ["error", "truncate", "drop"])
def test_only_dropped_samples_do_not_count(
    mixed: dict[str, Any], on_long_sample: str, limit: int
) -> None:
    data = {"max_sample_tokens": limit, "on_long_sample": on_long_sample}
    config = Config.model_validate({"demo": mixed, "data": data})
    within = int((drawn(config) <= limit).sum())
    # None left is a mistake of its own, which a number of steps would only stand beside.
    assert most_samples(config) == (within if within and on_long_sample == "drop" else 80)


def test_own_data_in_the_words_of_a_model_are_not_the_demo_s(tmp_path: Path) -> None:
    own = {"files": [str(tmp_path / "own.jsonl")], "max_sample_tokens": 32}
    config = Config.model_validate({"data": own, "model": {"path": str(tmp_path)}})
    assert list(demo_mistakes(config)) == []


def test_a_folder_of_lengths_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"demo: {{lengths: {{csv: {tmp_path}}}}}\n")
    with pytest.raises(ConfigError) as caught:
        check_beforehand(load_config(file), [file])
    said = f"{file}:1: demo.lengths.csv = {tmp_path}: no such file. paths start at the checkout, "
    assert str(caught.value) == f"{said}correct it."
