"""Loads the tokenizer of a Hugging Face directory and says exactly which one it is."""

from pathlib import Path
from typing import Any

from sbcore.artifacts import digest_text
from sbcore.errors import SparseBalanceError

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load_tokenizer(folder: Path) -> Any:
    """Returns the folder's fast tokenizer, loaded offline.

    Raises:
        SparseBalanceError: The folder holds none, or one without offsets (not a fast one).
    """
    if not folder.is_dir():
        raise _refuse(folder, "no such folder")
    if not any((folder / name).is_file() for name in _FILES):
        raise _refuse(folder, f"not a tokenizer: none of {', '.join(_FILES)} in it")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # every tokenizer class fails in its own way
        problem = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise _refuse(folder, f"not a tokenizer: {problem}") from error
    if not tokenizer.is_fast:
        raise _refuse(folder, "has no tokenizer.json, so the loss mask cannot be placed")
    return tokenizer


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns the sha256 of what decides the ids: vocabulary, merges, added tokens, template."""
    return digest_text(tokenizer.backend_tokenizer.to_str() + (tokenizer.chat_template or ""))


def _refuse(folder: Path, problem: str) -> SparseBalanceError:
    return SparseBalanceError(
        f"data.tokenizer = {folder}: {problem}. give the directory of a Hugging Face tokenizer."
    )
