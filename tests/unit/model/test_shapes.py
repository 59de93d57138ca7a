import pytest

from sbcore.config.load import parse_config
from sbcore.config.training import ModelConfig, ModelShape
from sbcore.errors import ConfigError, SparseBalanceError
from sbcore.model.build import shape_config, start_model


def shape_of(value):
    return ModelConfig.model_validate({"shape": value}).shape


@pytest.mark.parametrize(
    ("name", "num_weights"),
    [("Qwen2.5-0.5B", 494_032_768), ("Qwen2.5-3B", 3_085_938_688)],  # as their makers count
)
def test_a_built_in_shape_has_the_weights_of_its_model(name, num_weights):
    config = ModelConfig(shape=shape_of(name))
    architecture = shape_config(config.shape, vocab_size=1000, max_tokens=64)
    model = start_model(architecture, config)
    assert sum(weight.numel() for weight in model.parameters()) == num_weights
    assert all(weight.is_meta for weight in model.parameters())


def test_a_name_and_its_keys_are_one_shape():
    shape = shape_of("Qwen2.5-0.5B")
    assert shape_of(shape.model_dump()) == shape
    assert shape.rope_theta == 1e6


def test_an_unknown_name_offers_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"model.shape = 'Qwen2-7B': no built-in shape\. use one of Qwen2\.5-0\.5"
    ):
        parse_config({"model": {"shape": "Qwen2-7B"}}, [])


def test_the_vocabulary_is_the_tokenizers_unless_the_shape_names_a_larger_one():
    assert shape_config(ModelShape(), vocab_size=77, max_tokens=9).vocab_size == 77
    named = ModelShape(vocab_size=100)
    assert shape_config(named, vocab_size=77, max_tokens=9).vocab_size == 100
    with pytest.raises(SparseBalanceError, match="the tokenizer has 101 entries"):
        shape_config(named, vocab_size=101, max_tokens=9)


def test_a_head_may_be_wider_than_its_share():
    shape = ModelShape(hidden_size=32, num_attention_heads=4, head_dim=16)
    model = start_model(shape_config(shape, vocab_size=11, max_tokens=8), ModelConfig())
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (64, 32)
