"""Wrong values: all at once, each with its file, line, key, value and remedy."""

from pathlib import Path

import pytest

from sbcore.config.load import load_config, load_stage, parse_config
from sbcore.config.stages import PlanStage
from sbcore.errors import ConfigError, SparseBalanceError

CASES = {
    "seed: -1\n": ":1: seed = -1: should be greater than or equal to 0. the default is 0.",
    "seeed: 1\n": ":1: seeed: unknown key. did you mean 'seed'? known: ",
    "data:\n  format: csv\n": ":2: data.format = 'csv': should be 'auto', 'messages', ",
    "run: ../x\n": ":1: run = '../x': letters, digits, - and _ only, the first a letter or ",
    "variants: {baseline: {}, a/b: {}}\n": ":1: variants.a/b = 'a/b': letters, digits, - and _ ",
    "train:\n": ":1: train = None: keys are needed here, not a value, a list or nothing. ",
    "train: {}\nseed: 1\ntrain: {}\n": ":3: train: also in line 1. keep one.",
    "data:\n  format: text\n  format: auto\n": ":3: data.format: also in line 2. keep one.",
    "variants:\n  baseline:\n    tuner: {p: 0.1}\n": (
        ":3: variants.baseline.tuner.kind: missing. use one of 'fixed', 'anchor', 'waterfill', "
    ),
    "seed: 1\ntopology: {barrier: pipeline}\n": ":2: topology.barrier = pipeline: training has no ",
    "variants: {b: {}}\n": "run.yaml: baseline = baseline: not among the variants (b). ",
    "variants:\n  baseline:\n    tuner: {kind: anchr}\n": (
        ":3: variants.baseline.tuner.kind = anchr: unknown. use one of "
    ),
    "variants:\n  baseline:\n    tuner: {kind: anchor, p: 1.5}\n": (
        ":3: variants.baseline.tuner.p = 1.5: should be less than 1. the default is 0.1."
    ),
    "variants:\n  baseline:\n    tuner: {kind: anchor, q: 1}\n": (
        ":3: variants.baseline.tuner.q: unknown key. "
    ),
    "variants:\n  baseline: {attention: dense, tuner: {kind: anchor}}\n": (
        ":2: variants.baseline.tuner.kind = anchor: dense attention has no budget to tune. "
    ),
    "baseline: other\n": ":1: baseline = other: not among the variants (baseline). name ",
    "latency:\n  lengths: [64, 0]\n": ":2: latency.lengths.1 = 0: should be greater than 0. ",
    "- 1\n": ":1: a list or a word, not keys. write 'key: value' lines.",
    "a: [1\n": ": not yaml: ",
}


@pytest.mark.parametrize("text", CASES)
def test_mistake_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert CASES[text] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: -1\nattention:\n  top_k: 0\ntopology: {num_ranks: none}\nx: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    places = sorted(line.split(": ")[0] for line in str(caught.value).splitlines())
    assert places == [f"{path}:{line}" for line in (1, 3, 4, 5)]


def test_a_file_that_is_no_text_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"run: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"run.yaml: not a text in utf-8."):
        load_config(tmp_path / "run.yaml")


def test_missing_file_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file. copy config/demo.yaml and edit it."):
        load_config(tmp_path / "none.yaml")


def test_a_stage_file_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"variant": "sab"}')
    with pytest.raises(SparseBalanceError, match="does not fit this version"):
        load_stage(tmp_path / "plan.json", PlanStage)


def test_a_whole_configuration_is_no_stage_s_part(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 1\n")
    with pytest.raises(SparseBalanceError, match=r"run.yaml: a whole configuration, .* sb freeze"):
        load_stage(tmp_path / "run.yaml", PlanStage)


def test_a_value_that_replaced_the_file_s_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\ntopology: {num_ranks: 0}\n")
    with pytest.raises(ConfigError) as caught:
        parse_config({"seed": -1, "topology": {"num_ranks": 0}}, [path])
    assert str(caught.value).splitlines() == [
        "from the command line: seed = -1: should be greater than or equal to 0. the default is 0.",
        f"{path}:2: topology.num_ranks = 0: should be greater than 0. the default is 2.",
    ]


@pytest.mark.parametrize("word", ["on", "off", "auto", '"off"'])
def test_a_switch_may_be_written_as_yaml_reads_it(tmp_path, word):
    path = tmp_path / "config.yaml"
    path.write_text(f"tracking: {{enabled: {word}}}\n")
    assert load_config(path).tracking.enabled == word.strip('"')
