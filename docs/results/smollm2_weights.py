"""Unpacks SmolLM2's 4-bit file into the weights of a Hugging Face directory, with `gguf` alone.

    python docs/results/smollm2_weights.py SmolLM2-135M-Instruct.Q4_1.gguf FOLDER

FOLDER holds the configuration and the tokenizer already (examples/smollm2.py made them). For a
machine whose transformers may read such files otherwise; the weights are the example's to the bit.
"""

import sys
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file

from sbcore.artifacts import read_json, replace_when_done

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHERS = {"token_embd": "embed_tokens", "output_norm": "norm"}
_ROTATED = ("q_proj", "k_proj")


def main() -> None:
    """Writes ``FOLDER/model.safetensors``, float32."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    file, folder = map(Path, sys.argv[1:])
    head_dim = read_json(folder / "config.json")["head_dim"]
    weights = {}
    for packed in gguf.GGUFReader(file).tensors:
        name = library_name(packed.name)
        value = torch.tensor(gguf.dequantize(packed.data, packed.tensor_type))
        weights[name] = in_halves(value, head_dim) if name.split(".")[-2] in _ROTATED else value
    with replace_when_done(folder / "model.safetensors") as part:
        save_file(weights, part, metadata={"format": "pt"})


def library_name(packed: str) -> str:
    """Returns the library's name of a packed tensor, ``blk.0.attn_q.weight`` for example."""
    parts = packed.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.weight"
    return f"model.{_OTHERS[parts[0]]}.weight"


def in_halves(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Returns a projection [heads * D, E] whose heads rotate halves; packed ones rotate pairs."""
    pairs = weight.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2).contiguous()


if __name__ == "__main__":
    main()
