"""Model directories of every family, as small as it gets, written by the library alone."""

import torch

FAMILIES = ("qwen2", "qwen3", "llama")
VOCAB = 101  # odd on purpose: ranks hold unequal parts


def write_tiny_model(folder, family, *, dtype=torch.float32, tied=False, max_file="5GB"):
    """Writes a directory of the family; returns the model that it holds."""
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    make = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}[family]
    config = make(
        vocab_size=VOCAB,
        hidden_size=36,
        intermediate_size=50,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    if family == "qwen3":
        config.head_dim = 16
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():  # norms and biases that are not all alike
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder, max_shard_size=max_file)
    return model


def tiny_tokens():
    """Returns the tokens [1, 40] that models are compared on."""
    return torch.arange(40)[None] * 7 % VOCAB


def plain_logits(folder, **words):
    """Returns the logits of the directory as the library alone loads and runs it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **words)
    with torch.no_grad():
        return model.eval()(tiny_tokens(), use_cache=False).logits
