"""Loads what answers the prompts: the trained model with its attention, and its tokenizer."""

from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.config.stages import EvaluateStage
from sbcore.device import choose_device
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.generate import Generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, needs_template: bool) -> "PreTrainedTokenizerBase":
    """Returns the directory's tokenizer.

    Raises:
        SparseBalanceError: It is no tokenizer directory, or a chat template is needed and missing.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file():
        raise SparseBalanceError(
            f"{folder}: not a tokenizer directory, tokenizer_config.json is missing. "
            "give a Hugging Face directory."
        )
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
    config: EvaluateStage, *, model_dir: Path, tokenizer: "PreTrainedTokenizerBase"
) -> Generator:
    """Returns the model on its device, in the type it was saved in, with the variant's attention.

    Raises:
        SparseBalanceError: It is no model directory of a known family, or there is no such device.
    """
    import torch

    from sbcore.model.build import load_model, read_model_config, set_default_attention

    dtype = read_model_config(model_dir).dtype or torch.float32
    model = load_model(model_dir, dtype=dtype)
    set_default_attention(model, config.kind, config.attention)
    model.to(choose_device(config.device, num_ranks=1, local_rank=0))
    model.eval()
    return Generator(model, tokenizer)
