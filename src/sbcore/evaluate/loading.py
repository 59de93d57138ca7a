"""Loads what answers the prompts: the trained model with its attention, and its tokenizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.config.stages import EvaluateStage
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from sbcore.evaluate.generate import Generator


def load_tokenizer(folder: Path, *, needs_template: bool) -> "PreTrainedTokenizerBase":
    """Returns the directory's tokenizer.

    Raises:
        SparseBalanceError: It is no tokenizer directory, a file in it is broken, or a chat template
            is needed and missing.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file():
        raise SparseBalanceError(
            f"{folder}: not a tokenizer directory, tokenizer_config.json is missing. "
            "give a Hugging Face directory."
        )
    with in_one_line(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if needs_template and tokenizer.chat_template is None:
        raise SparseBalanceError(
            f"{folder}: the tokenizer has no chat template. add chat_template.jinja to the "
            "directory, or set evaluate.prompt_style to plain, as base models are asked."
        )
    return tokenizer


def load_generator(
    config: EvaluateStage,
    *,
    model_dir: Path,
    tokenizer: "PreTrainedTokenizerBase",
    device: "torch.device",
) -> "Generator":
    """Returns the model on the device, with the variant's attention.

    Weights are bfloat16 on a GPU and float32 on a CPU, however they were saved.

    Raises:
        SparseBalanceError: It is no model directory of a known family, or its weights are missing
            or broken.
    """
    import torch

    from sbcore.evaluate.generate import Generator
    from sbcore.evaluate.packed_model import PackedModel
    from sbcore.evaluate.row_cache import GENERATION_NAME, register_generation
    from sbcore.model.build import load_model

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with in_one_line(model_dir, "model"):
        model = load_model(model_dir, dtype=dtype)
    model = model.to(device).eval()
    register_generation()
    model.set_attn_implementation(GENERATION_NAME)
    top_k = config.attention.top_k if config.kind == "sparse" else None
    sparsely = config.evaluate.decoding == "sparse"
    return Generator(PackedModel(model, config.attention, top_k, sparsely), tokenizer)


@contextmanager
def in_one_line(folder: Path, what: str) -> Iterator[None]:
    """Makes one line for users of what the libraries say of a directory's files; ours are one."""
    try:
        yield
    except SparseBalanceError:
        raise
    except Exception as error:  # of many types: the parsers', the weights file's own, OSError
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise SparseBalanceError(
            f"{folder}: the {what} cannot be loaded: {reason}. give a Hugging Face directory with "
            "all its files whole."
        ) from error
