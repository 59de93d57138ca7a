import importlib.util

import pytest
import torch
from tiny_models import tiny_tokens

from sbcore.attention.call import AttentionCall
from sbcore.config.lora import LoraConfig
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.errors import SparseBalanceError
from sbcore.model.build import fill_model, shape_config, start_model
from sbcore.model.layers import adapter_weights, base_weights, decoder_layers
from sbcore.model.lora import lora_layers, seed_dropout
from sbcore.model.recompute import Recompute

CPU = torch.device("cpu")
ARCHITECTURE = shape_config(
    ModelShape(hidden_size=32, intermediate_size=48), vocab_size=101, max_tokens=64
)


def model_with(lora, dtype="float32"):
    model = start_model(ARCHITECTURE, ModelConfig(lora=lora, dtype=dtype))
    fill_model(model, None, device=CPU, seed=0)
    generator = torch.Generator().manual_seed(4)
    for name, weight in adapter_weights(model).items():
        if ".lora_B." in name:  # as after some training: fresh ones are zero
            weight.data.normal_(generator=generator)
    return model.train()


def loss_of(model):
    ids = tiny_tokens()
    call = AttentionCall(torch.tensor([0, 40], dtype=torch.int32), (40,), 16, "torch", None)
    positions = torch.arange(40)[None]
    out = model(input_ids=ids, position_ids=positions, use_cache=False, sb_call=call)
    return out.logits.float().square().mean()


def test_only_adapters_of_the_targets_are_trained():
    model = model_with(LoraConfig(rank=4, targets=["q_proj", "down_proj"]), dtype="bfloat16")
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all(".lora_" in name and ("q_proj" in name or "down_proj" in name) for name in trained)
    assert {w.dtype for w in adapter_weights(model).values()} == {torch.float32}
    assert {w.dtype for w in base_weights(model).values()} == {torch.bfloat16}


def test_weights_keep_the_names_of_their_files():
    with_adapters, without = model_with(LoraConfig()), start_model(ARCHITECTURE, ModelConfig())
    assert set(base_weights(with_adapters)) == set(dict(without.named_parameters()))
    assert set(lora_layers(with_adapters)) <= set(base_weights(without))
    assert len(lora_layers(with_adapters)) == 2 * 7


def test_layers_are_found_under_whatever_is_put_around_them():
    import peft

    plain = start_model(ARCHITECTURE, ModelConfig())
    inside = model_with(LoraConfig())
    words = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    around = peft.get_peft_model(start_model(ARCHITECTURE, ModelConfig()), words)
    for model in (plain, inside, around):
        names = [type(layer).__name__ for layer in decoder_layers(model)]
        assert names == ["Qwen2DecoderLayer"] * 2


def test_an_adapter_counts_alpha_over_its_rank():
    layers = lora_layers(model_with(LoraConfig(rank=4, alpha=12, dropout=0.25))).values()
    assert {layer.scaling["default"] for layer in layers} == {3.0}
    assert {layer.lora_A["default"].weight.shape[0] for layer in layers} == {4}
    assert {layer.lora_dropout["default"].p for layer in layers} == {0.25}


def test_every_rank_drops_on_its_own(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    drawn = []
    for seed, rank in ((1, 0), (1, 1), (2, 0), (1, 0)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        seed_dropout(seed)
        drawn.append(float(torch.rand(1, dtype=torch.float64)))
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3


def test_dropout_follows_from_the_random_state():
    model = model_with(LoraConfig(dropout=0.5))
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(loss_of(model).detach()))
    assert losses[0] == losses[1] != losses[2]


def test_recomputation_drops_what_the_first_run_dropped():
    gradients = []
    for mode in ("none", "full"):
        model = model_with(LoraConfig(dropout=0.5))
        recompute = Recompute(decoder_layers(model), mode, above_tokens=0)
        assert recompute.prepare(40) == (mode == "full")
        torch.manual_seed(1)
        loss_of(model).backward()
        gradients.append([w.grad for w in model.parameters() if w.requires_grad])
    assert all(g is not None and g.abs().max() > 0 for g in gradients[0])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def test_without_peft_one_line_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SparseBalanceError, match=r"model\.lora: peft is not installed"):
        start_model(ARCHITECTURE, ModelConfig(lora=LoraConfig()))


def test_adapters_alone_need_a_directory_beside():
    with pytest.raises(SparseBalanceError, match=r"model\.lora\.save = adapter: .*save: merged"):
        start_model(ARCHITECTURE, ModelConfig(lora=LoraConfig(save="adapter")))
