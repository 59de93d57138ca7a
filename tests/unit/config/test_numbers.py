"""Numbers that no run can have: refused in one line with the key, its value and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sbcore.config.load import load_config
from sbcore.config.method import AnchorTuner, AutoTuner, SabBalancer
from sbcore.config.schema import Config
from sbcore.config.section import Section
from sbcore.config.simulation import CoverageLaw, SimulationConfig
from sbcore.config.training import ModelShape
from sbcore.errors import ConfigError

SIMULATED: tuple[type[Section], ...] = (SimulationConfig, CoverageLaw)
ANCHOR = "variants: {baseline: {tuner: {kind: anchor, %s}}}"
AUTO = "variants: {baseline: {tuner: {kind: auto, %s}}}"
SAB = "variants: {baseline: {balancer: {kind: sab, %s}}}"

WRONG = {
    # shapes that no model has
    "model: {shape: {num_attention_heads: 2, num_key_value_heads: 3}}": (
        "model.shape.num_key_value_heads = 3: does not divide num_attention_heads = 2. change one "
    ),
    "model: {shape: {num_attention_heads: 3}}": (
        "model.shape.hidden_size = 64: no multiple of num_attention_heads = 3. change one of the "
    ),
    "model: {shape: {hidden_size: 66, num_attention_heads: 2}}": (
        "model.shape.hidden_size = 66: heads of an odd width, which the rotary embedding cannot "
    ),
    "model: {shape: {head_dim: 15}}": "model.shape.head_dim = 15: heads of an odd width, which ",
    "model: {shape: {hidden_size: 0}}": "model.shape.hidden_size = 0: should be greater than 0.",
    "model: {shape: {vocab_size: 0}}": "model.shape.vocab_size = 0: should be greater than 0.",
    "model: {shape: {rope_theta: 0}}": "model.shape.rope_theta = 0: should be greater than 0.",
    "model: {shape: {initializer_range: .inf}}": "initializer_range = inf: should be a finite ",
    "model: {lora: {dropout: 1.0}}": "model.lora.dropout = 1.0: should be less than 1. the ",
    "model: {lora: {dropout: -0.1}}": "model.lora.dropout = -0.1: should be greater than or equal ",
    "model: {lora: {rank: 0}}": "model.lora.rank = 0: should be greater than 0. the default is 32.",
    "model: {lora: {alpha: -1}}": "model.lora.alpha = -1: should be greater than 0.",
    "model: {lora: {targets: []}}": "model.lora.targets = []: ",
    # the optimizer
    "train: {betas: [0.9, 1.5]}": "train.betas.1 = 1.5: should be less than 1. ",
    "train: {betas: [-0.1, 0.9]}": "train.betas.0 = -0.1: should be greater than or equal to 0. ",
    "train: {betas: [0.9]}": "train.betas",
    "train: {learning_rate: 0}": "train.learning_rate = 0: should be greater than 0. ",
    "train: {learning_rate: .nan}": "train.learning_rate = nan: should be a finite number. ",
    "train: {weight_decay: -0.1}": "train.weight_decay = -0.1: should be greater than or equal ",
    "train: {max_grad_norm: .inf}": "train.max_grad_norm = inf: should be a finite number. ",
    "train: {warmup_share: 1.0}": "train.warmup_share = 1.0: should be less than 1. ",
    "train: {decay_share: 1.1}": "train.decay_share = 1.1: should be less than or equal to 1. ",
    "train: {recompute_above_tokens: -1}": "train.recompute_above_tokens = -1: should be greater ",
    "train: {trace_steps: [-1]}": "train.trace_steps.0 = -1: should be greater than or equal to 0.",
    "train: {threads_per_rank: 0}": "train.threads_per_rank = 0: should be greater than 0. ",
    # the demo
    "demo: {lengths: {min_tokens: 512, max_tokens: 256}}": (
        "demo.lengths.min_tokens = 512: above max_tokens = 256. lower it, or raise max_tokens."
    ),
    "demo: {lengths: {max_tokens: 33, min_tokens: 34}}": "demo.lengths.min_tokens = 34: above ",
    "demo: {lengths: {sigma: .nan}}": "demo.lengths.sigma = nan: should be a finite number. ",
    "demo: {eval_lengths: []}": "demo.eval_lengths = []: ",
    "demo: {eval_lengths: [64, 16]}": "demo.eval_lengths.1 = 16: should be greater than or equal ",
    "demo: {num_eval_samples: 2, eval_lengths: [64, 128, 256]}": (
        "demo.num_eval_samples = 2: fewer than eval_lengths has lengths, 3, so that some would be "
    ),
    "demo: {corpus_bytes: 1}": "demo.corpus_bytes = 1: should be greater than or equal to 65536. ",
    # global batches, ranks, budgets
    "sampling: {global_batch: 1}": "sampling.global_batch = 1: should be greater than or equal to ",
    "sampling: {token_band: 1.0}": "sampling.token_band = 1.0: should be less than 1. ",
    "sampling: {max_steps: -1}": "sampling.max_steps = -1: should be greater than or equal to 0. ",
    "topology: {speed_factors: [1.0, .nan]}": "topology.speed_factors.1 = nan: should be a finite ",
    "topology: {max_memory_gib: .inf}": "topology.max_memory_gib = inf: should be a finite number",
    "topology: {max_tokens: .inf}": "topology.max_tokens = inf: should be a finite number. ",
    ANCHOR % "p: 0": "variants.baseline.tuner.p = 0: should be greater than 0. ",
    ANCHOR % "p: .nan": "variants.baseline.tuner.p = nan: should be a finite number. ",
    ANCHOR % "floor: 4, cap: 2": "variants.baseline.tuner.cap = 2: below floor = 4. raise cap.",
    ANCHOR % "ema_decay: 1.0": "variants.baseline.tuner.ema_decay = 1.0: should be less than 1. ",
    AUTO % "p_choices: [0.1, 1.0]": "variants.baseline.tuner.p_choices.1 = 1.0: should be less ",
    AUTO % "p_choices: []": "variants.baseline.tuner.p_choices = []: ",
    AUTO % "anchors: []": "variants.baseline.tuner.anchors = []: ",
    AUTO % "max_coverage_loss: -1": "tuner.max_coverage_loss = -1: should be greater than or ",
    SAB % "budget_decay: 1": "variants.baseline.balancer.budget_decay = 1: should be less than 1. ",
    SAB % "restarts: -1": "variants.baseline.balancer.restarts = -1: should be greater than or ",
    # the latency grid
    "latency: {lengths: [128, 64]}": ("latency.lengths = [128, 64]: not rising. write [64, 128]."),
    "latency: {lengths: [64, 64, 128]}": "latency.lengths = [64, 64, 128]: not rising. write [64, ",
    "latency: {lengths: []}": "latency.lengths = []: ",
    "latency: {top_k: [4, 2, 4]}": "latency.top_k = [4, 2, 4]: not rising. write [2, 4].",
    "latency: {top_k: []}": "latency.top_k = []: ",
    "latency: {min_repeats: 30}": "latency.min_repeats = 30: above max_repeats = 20. lower it, ",
    "latency: {max_extrapolation: 0.5}": "latency.max_extrapolation = 0.5: should be greater than ",
    "latency: {max_extrapolation: .inf}": "latency.max_extrapolation = inf: should be a finite ",
    "latency: {point_seconds: 0}": "latency.point_seconds = 0: should be greater than 0. ",
    "latency: {warmup_seconds: -1}": "latency.warmup_seconds = -1: should be greater than or ",
    # evaluation
    "evaluate: {niah: {lengths: [64, 64]}}": "evaluate.niah.lengths = [64, 64]: some are there ",
    "evaluate: {ruler: {lengths: []}}": "evaluate.ruler.lengths = []: ",
    "evaluate: {niah: {num_depths: 1}}": "evaluate.niah.num_depths = 1: should be greater than or ",
    "evaluate: {batch_size: 0}": "evaluate.batch_size = 0: should be greater than 0. ",
    "evaluate: {curve_top_k: [0]}": "evaluate.curve_top_k.0 = 0: should be greater than 0. ",
    "evaluate: {ruler_files: {0: x}}": "evaluate.ruler_files",
}


def refusal(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


@pytest.mark.parametrize("text", WRONG)
def test_a_number_that_cannot_be_is_one_line(tmp_path: Path, text: str) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(f"{tmp_path}/run.yaml:1: ")
    assert WRONG[text] in said
    assert len(said.splitlines()) == 1
    assert said.endswith(".")


def test_a_mistake_of_two_keys_names_the_line_of_the_one(tmp_path: Path) -> None:
    text = "demo:\n  lengths:\n    max_tokens: 256\n    min_tokens: 512"
    assert refusal(tmp_path, text).startswith(f"{tmp_path}/run.yaml:4: demo.lengths.min_tokens = ")


def sections() -> list[type[Section]]:
    found: list[type[Section]] = []

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found.append(annotation)
            for field in annotation.model_fields.values():
                walk(field.annotation)
        for member in getattr(annotation, "__args__", ()):
            walk(member)

    walk(Config)
    return list(dict.fromkeys(found))


def places_of(schema: dict[str, Any], kind: str) -> bool:
    """Returns whether a schema takes this kind itself, or in a union."""
    return schema.get("type") == kind or any(
        places_of(one, kind) for one in schema.get("anyOf", ())
    )


def number_keys() -> list[tuple[type[Section], str]]:
    return [
        (section, key)
        for section in (*sections(), *SIMULATED)
        for key, schema in section.model_json_schema()["properties"].items()
        if places_of(schema, "integer") or places_of(schema, "number")
    ]


def test_all_numbers_are_found() -> None:
    found = [f"{section.__name__}.{key}" for section, key in number_keys()]
    assert len(found) > 70
    assert {"Config.seed", "AnchorTuner.p", "TopologyConfig.max_memory_gib"} <= set(found)


@pytest.mark.parametrize("switch", [True, False])
def test_a_switch_is_no_number_anywhere(switch: bool) -> None:
    for section, key in number_keys():
        with pytest.raises(ValidationError) as caught:
            section.model_validate({key: switch})
        said = [error for error in caught.value.errors() if error["loc"][0] == key]
        assert [error["type"] in ("int_type", "float_type") for error in said] == [True], key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_no_number_anywhere(value: float) -> None:
    for section, key in number_keys():
        with pytest.raises(ValidationError) as caught:
            section.model_validate({key: value})
        assert key in [error["loc"][0] for error in caught.value.errors()]


def test_switches_are_told_with_all_other_mistakes(tmp_path: Path) -> None:
    text = "seed: yes\nlatency: {lengths: [64, on, 0]}\ntrain: {betas: [true, 2]}\nx: 1\n" + (
        AUTO % "p_choices: [0.1, on], floor: no"
    )
    lines = refusal(tmp_path, text).splitlines()
    assert sorted(line.removeprefix(f"{tmp_path}/run.yaml:").split(". ")[0] for line in lines) == [
        "1: seed = True: should be a valid integer",
        "2: latency.lengths.1 = True: should be a valid integer",
        "2: latency.lengths.2 = 0: should be greater than 0",
        "3: train.betas.0 = True: should be a valid number",
        "3: train.betas.1 = 2: should be less than 1",
        "4: x: unknown key",
        "5: variants.baseline.tuner.floor = False: should be a valid integer",
        "5: variants.baseline.tuner.p_choices.1 = True: should be a valid number",
    ]


def test_switches_stay_what_they_are_where_they_belong() -> None:
    text = "{train: {compile_layers: on, keep_gathered: no}, tracking: {enabled: off}}"
    config = Config.model_validate(yaml.safe_load(text))
    assert config.train.compile_layers
    assert not config.train.keep_gathered
    assert config.tracking.enabled == "off"
    assert SabBalancer(online=True).online
    assert AutoTuner().cap == AnchorTuner().cap == 0


def test_a_length_of_a_task_is_a_number_not_a_switch(tmp_path: Path) -> None:
    said = refusal(tmp_path, "evaluate: {ruler_files: {on: folder}}")
    assert "run.yaml:1: evaluate.ruler_files" in said
    assert "should be a valid integer" in said


@pytest.mark.parametrize(
    "shape",
    [
        {"num_attention_heads": 4, "num_key_value_heads": 2},
        {"num_attention_heads": 3, "head_dim": 16},
        {"hidden_size": 2},
    ],
)
def test_shapes_that_fit_are_models(shape: dict[str, int]) -> None:
    from transformers import Qwen2ForCausalLM

    from sbcore.model.build import shape_config

    kept = ModelShape(num_hidden_layers=1, **shape)
    Qwen2ForCausalLM(shape_config(kept, vocab_size=8, max_tokens=8))
