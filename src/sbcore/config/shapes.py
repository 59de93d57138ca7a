"""Shapes of public models by name, for benchmarks with random weights.

Figures are those of the models' own config.json files.
"""

from typing import Any, Literal

ShapeName = Literal["Qwen2.5-0.5B", "Qwen2.5-3B"]

_QWEN2_5 = {
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "initializer_range": 0.02,
    "rope_theta": 1e6,
}

SHAPES: dict[ShapeName, dict[str, int | float]] = {
    "Qwen2.5-0.5B": _QWEN2_5
    | {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "head_dim": 64,
    },
    "Qwen2.5-3B": _QWEN2_5
    | {
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "head_dim": 128,
    },
}


def spell_out(shape: Any) -> Any:
    """Returns the keys of a shape given by name, anything else as it is."""
    if not isinstance(shape, str):
        return shape
    for name, keys in SHAPES.items():
        if name == shape:
            return keys
    raise ValueError(f"no built-in shape. use one of {', '.join(SHAPES)}, or give its keys")
