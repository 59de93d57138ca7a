import json
import subprocess
import sys

import pytest
import torch
from tiny_models import plain_logits, tiny_tokens, write_tiny_model

from sbcore.config.compute import AttentionConfig
from sbcore.config.lora import LoraConfig
from sbcore.config.training import ModelConfig
from sbcore.errors import SparseBalanceError
from sbcore.model import export
from sbcore.model.build import (
    fill_model,
    load_model,
    read_model_config,
    set_default_attention,
    start_model,
)
from sbcore.model.layers import adapter_weights

LORA = LoraConfig(rank=3, alpha=6)
BESIDE = {
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "generation_config.json",
}
PLAIN_PROGRAM = """
import sys
sys.modules["sbcore"] = None  # as where it is not installed
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
assert model.config._attn_implementation != "sparsebalance"
ids = torch.arange(40)[None] * 7 % 101
torch.save(model(ids).logits, sys.argv[2])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_tiny_model(folder, "qwen2", tied=True)
    for name in BESIDE:
        (folder / name).write_text("{}")
    return folder


def trained(source, config):
    model = start_model(read_model_config(source), config)
    fill_model(model, source, device=torch.device("cpu"), seed=0)
    torch.manual_seed(2)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn_like(weight) * 0.05)
    return model


def save(model, out, config, source):
    set_default_attention(model, "sparse", AttentionConfig(block_size=16, top_k=2))
    export.export_model(model, out, config=config, source=source, rank=0)
    return out


def logits_of(model):
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        return model.eval()(tiny_tokens(), use_cache=False).logits


def test_a_program_without_this_package_loads_it(source, tmp_path):
    config = ModelConfig()
    model = trained(source, config)
    out = save(model, tmp_path / "model", config, source)
    words = [sys.executable, "-c", PLAIN_PROGRAM, str(out), str(tmp_path / "logits.pt")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits_of(model))


def test_merged_adapters_answer_as_they_did_in_training(source, tmp_path):
    config = ModelConfig(lora=LORA)
    model = trained(source, config)
    out = save(model, tmp_path / "model", config, source)
    expected = logits_of(model)
    torch.testing.assert_close(plain_logits(out), expected, rtol=1e-5, atol=1e-5)
    assert (expected - plain_logits(source)).abs().max() > 0.1


def test_adapters_alone_are_loaded_with_their_base(source, tmp_path):
    config = ModelConfig(lora=LORA.model_copy(update={"save": "adapter"}))
    model = trained(source, config)
    out = save(model, tmp_path / "model", config, source)
    words = json.loads((out / "adapter_config.json").read_text())
    assert words["base_model_name_or_path"] == str(source)
    assert not list(out.glob("model*.safetensors"))
    loaded = load_model(out, dtype=torch.float32)
    assert type(loaded).__name__ == "Qwen2ForCausalLM"
    assert adapter_weights(loaded) == {}
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=1e-5, atol=1e-5)


def test_adapters_are_no_model_to_start_from(source, tmp_path):
    config = ModelConfig(lora=LORA.model_copy(update={"save": "adapter"}))
    out = save(trained(source, config), tmp_path / "model", config, source)
    with pytest.raises(SparseBalanceError, match=r"config\.json is missing"):
        read_model_config(out)
    model = start_model(read_model_config(source), ModelConfig())
    with pytest.raises(SparseBalanceError, match=f"adapters, not a whole model.*{source}"):
        fill_model(model, out, device=torch.device("cpu"), seed=0)


def test_adapters_without_weights_or_base_are_refused(source, tmp_path):
    config = ModelConfig(lora=LORA.model_copy(update={"save": "adapter"}))
    out = save(trained(source, config), tmp_path / "model", config, source)
    words = json.loads((out / "adapter_config.json").read_text())
    gone = words | {"base_model_name_or_path": str(tmp_path / "gone")}
    (out / "adapter_config.json").write_text(json.dumps(gone))
    with pytest.raises(SparseBalanceError, match=r"adapter_config.json: base_model.*gone: no such"):
        load_model(out, dtype=torch.float32)
    (out / "adapter_model.safetensors").unlink()
    with pytest.raises(SparseBalanceError, match=r"adapter_model.safetensors: missing"):
        load_model(out, dtype=torch.float32)


def test_large_models_are_written_in_several_files(source, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_MAX_FILE_BYTES", 20_000)
    config = ModelConfig()
    model = trained(source, config)
    out = save(model, tmp_path / "model", config, source)
    assert len(list(out.glob("model-*.safetensors"))) > 3
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert "lm_head.weight" not in index["weight_map"]  # tied
    assert torch.equal(plain_logits(out), logits_of(model))


@pytest.mark.parametrize(
    ("dtype", "save_dtype", "expected"),
    [
        ("float32", None, torch.float32),
        ("bfloat16", None, torch.bfloat16),
        ("bfloat16", "float32", torch.float32),
        ("float32", "bfloat16", torch.bfloat16),
    ],
)
def test_the_saved_type_is_the_configured_one(source, tmp_path, dtype, save_dtype, expected):
    from safetensors.torch import load_file

    config = ModelConfig(dtype=dtype, save_dtype=save_dtype)
    out = save(trained(source, config), tmp_path / "model", config, source)
    assert {w.dtype for w in load_file(out / "model.safetensors").values()} == {expected}
    assert json.loads((out / "config.json").read_text())["dtype"] == str(expected)[6:]


def test_tokenizer_and_generation_settings_come_along(source, tmp_path):
    config = ModelConfig()
    out = save(trained(source, config), tmp_path / "model", config, source)
    assert {file.name for file in out.iterdir()} >= BESIDE


def test_a_broken_write_leaves_the_older_model(source, tmp_path, monkeypatch):
    config = ModelConfig()
    model = trained(source, config)
    out = save(model, tmp_path / "model", config, source)
    older = plain_logits(out)
    next(iter(model.parameters())).data.zero_()

    def full_disk(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(export, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(model, out, config, source)
    assert torch.equal(plain_logits(out), older)
    assert [folder.name for folder in tmp_path.iterdir()] == ["model"], "room for the next attempt"


def test_what_a_killed_export_left_is_neither_kept_nor_taken_over(source, tmp_path):
    left = tmp_path / ".model.part"
    left.mkdir()
    (left / "model-00001-of-00002.safetensors").write_bytes(b"half of it")
    config = ModelConfig()
    model = trained(source, config)
    out = save(model, tmp_path / "model", config, source)
    assert [folder.name for folder in tmp_path.iterdir()] == ["model"]
    assert not list(out.glob("model-*"))
    assert torch.equal(plain_logits(out), logits_of(model))
