import pytest
import torch

from sbcore.config.lora import LoraConfig
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.model import initialise
from sbcore.model.build import build_model, fill_model, shape_config, start_model
from sbcore.model.layers import adapter_weights, base_weights

CPU = torch.device("cpu")
SHAPE = ModelShape(hidden_size=32, intermediate_size=64, initializer_range=0.3)
ARCHITECTURE = shape_config(SHAPE, vocab_size=200, max_tokens=64)


def model_of(seed):
    return build_model(ARCHITECTURE, seed=seed, dtype=torch.float32)


def test_weights_follow_from_the_seed_and_each_name():
    first, again, other = model_of(1), model_of(1), model_of(2)
    for name, weight in base_weights(first).items():
        assert torch.equal(weight, base_weights(again)[name])
        if weight.ndim > 1:
            assert not torch.equal(weight, base_weights(other)[name])
    layers = first.model.layers
    assert not torch.equal(layers[0].mlp.up_proj.weight, layers[1].mlp.up_proj.weight)


def test_matrices_are_normal_norms_one_biases_zero():
    model = model_of(0)
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert (model.model.norm.weight == 1).all()
    assert (model.model.layers[0].self_attn.q_proj.bias == 0).all()
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_global_randomness_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model_of(0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_a_part_of_the_rows_is_the_part_of_the_whole(monkeypatch, chunk):
    monkeypatch.setattr(initialise, "_CHUNK_VALUES", chunk * 32)
    whole = torch.empty(200, 32)
    initialise._fill(whole, "x", lambda v, g: v.normal_(generator=g), seed=3)
    assert whole.unique().numel() > 6000
    for first, last in [(0, 67), (67, 134), (134, 200), (199, 200)]:
        part = torch.empty(last - first, 32)
        monkeypatch.setattr(initialise, "held_here", lambda _, part=part: part)
        monkeypatch.setattr(
            initialise, "own_part", lambda _, a=first, b=last: (slice(a, b), slice(0, 32))
        )
        initialise._fill(whole, "x", lambda v, g: v.normal_(generator=g), seed=3)
        assert torch.equal(part, whole[first:last])


def test_fresh_adapters_change_nothing_yet_can_learn():
    config = ModelConfig(shape=SHAPE, lora=LoraConfig(rank=4))
    model = start_model(ARCHITECTURE, config)
    fill_model(model, None, device=CPU, seed=1)
    for name, weight in adapter_weights(model).items():
        if ".lora_B." in name:
            assert (weight == 0).all()
        else:
            assert weight.abs().max().item() == pytest.approx(weight.shape[1] ** -0.5, rel=0.1)
    plain = model_of(1)
    for name, weight in base_weights(model).items():
        assert torch.equal(weight, base_weights(plain)[name])
