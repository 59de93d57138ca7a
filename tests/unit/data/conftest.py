"""Small data sets, tokenizers and a way to run the stage on them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress

from sbcore.config.data import DataConfig
from sbcore.config.stages import PrepareStage
from sbcore.data.prepare import PrepareSummary, prepare
from sbcore.data.read import TokenStore

# What a chat model's template does: a header with the role, an end token, a line's end after it.
HEADERS = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m['content'] + '<|end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer(folder: Path, template: str | None) -> Path:
    """Saves a byte-level tokenizer without merges, so that every byte is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", chat_template=template, model_max_length=64
    )
    fast.add_special_tokens(
        {"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"]}
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    templates = {"headers": HEADERS, "marked": MARKED, "none": None}
    return {name: make_tokenizer(folder / name, text) for name, text in templates.items()}


Run = Callable[..., tuple[PrepareSummary, TokenStore]]


@pytest.fixture
def run(tmp_path: Path, tokenizers: dict[str, Path]) -> Run:
    """Runs the stage on records (written as jsonl) or on a file; config keys by name."""

    def run_(records: list[object] | Path, *, tokenizer: str = "headers", **config: object):
        path = records if isinstance(records, Path) else tmp_path / "data.jsonl"
        if isinstance(records, list):
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        stage = PrepareStage(data=DataConfig.model_validate(config))
        with Progress(disable=True) as progress:
            summary = prepare(
                stage,
                files=[path],
                tokenizer=tokenizers[tokenizer],
                out=tmp_path / "out",
                progress=progress,
            )
        return summary, TokenStore(tmp_path / "out")

    return run_


@pytest.fixture
def words(tokenizers: dict[str, Path]) -> Callable[..., tuple[str, str]]:
    """Returns a sample's whole text and the text of its targets alone."""
    from sbcore.data.tokenizers import load_tokenizer

    loaded = load_tokenizer(tokenizers["headers"])

    def words_(store: TokenStore, sample_id: int) -> tuple[str, str]:
        tokens, is_target = store.sample(sample_id)
        return loaded.decode(tokens.tolist()), loaded.decode(tokens[is_target].tolist())

    return words_
