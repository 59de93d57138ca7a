"""Adapters and directories through the trainer itself."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import VOCAB
from tiny_models import write_tiny_model

from sbcore.config.training import ModelConfig
from sbcore.model.build import build_model, shape_config

pytestmark = pytest.mark.distributed

LORA = {"rank": 2, "alpha": 4, "dropout": 0.25, "targets": ["q_proj", "up_proj"]}


SHAPE = ("model_type", "head_dim", "hidden_size", "intermediate_size", "num_attention_heads")


@pytest.fixture(scope="module")
def any_profile(tiny_run, tmp_path_factory):
    """The latency profile, stating neither model nor adapters: weights are looked at here."""
    folder = tmp_path_factory.mktemp("profile") / "any"
    shutil.copytree(tiny_run.folder / "profile", folder)
    facts = json.loads((folder / "latency.json").read_text())
    for key in (*SHAPE, "vocab_size", "lora_rank", "lora_targets"):
        del facts[key]
    (folder / "latency.json").write_text(json.dumps(facts))
    return folder


def with_profile(words, folder):
    words[words.index("--latency") + 1] = str(folder)
    return words


@pytest.fixture(scope="module")
def train(tiny_run, any_profile, forked):
    """Returns a function that trains with other settings of the model."""

    def run(out, *more, **model):
        words = with_profile(tiny_run.words("baseline", out), any_profile)
        path = out.with_suffix(".json")
        stage = json.loads((tiny_run.folder / "config/train.baseline.json").read_text())
        stage["model"] |= model
        path.write_text(json.dumps(stage))
        words[words.index("--config") + 1] = str(path)
        forked("-m", "sbcore.train", *words, *more)
        return [
            json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()
        ]

    return run


@pytest.fixture(scope="module")
def with_adapters(train, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora") / "out"
    return out, train(out, lora=LORA)


def test_adapters_move_their_targets_and_nothing_else(with_adapters):
    out, _ = with_adapters
    shape = ModelConfig.model_validate(
        {"shape": {"hidden_size": 32, "intermediate_size": 48}}
    ).shape
    architecture = shape_config(shape, vocab_size=VOCAB, max_tokens=512)
    start = dict(build_model(architecture, seed=0, dtype=torch.float32).named_parameters())
    end = load_file(out / "model/model.safetensors")
    assert set(end) == set(start)
    moved = {name for name in end if not torch.equal(end[name], start[name])}
    assert moved == {
        f"model.layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("self_attn.q_proj", "mlp.up_proj")
    }


def test_dropout_is_the_same_again(train, with_adapters, tmp_path):
    assert train(tmp_path / "out", lora=LORA) == with_adapters[1]


def test_a_directory_gives_its_weights_and_adapters_name_it(train, tmp_path):
    source = tmp_path / "source"
    write_tiny_model(source, "llama")
    losses = train(tmp_path / "out", "--model", str(source), lora=LORA | {"save": "adapter"})
    assert all(loss < 20 for loss in losses)
    words = json.loads((tmp_path / "out/model/adapter_config.json").read_text())
    assert words["base_model_name_or_path"] == str(source)
    assert len(load_file(tmp_path / "out/model/adapter_model.safetensors")) == 2 * 2 * 2


def test_weights_that_do_not_fit_are_one_line(forked, tiny_run, any_profile, tmp_path):
    source = tmp_path / "source"
    write_tiny_model(source, "llama")
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 51}))
    words = with_profile(tiny_run.words("baseline", tmp_path / "out"), any_profile)
    words += ["--model", str(source)]
    done = forked("-m", "sbcore.train", *words, check=False)
    lines = [line for line in done.stderr.splitlines() if "config.json says [51, 36]" in line]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr.split("config.json says")[0]
