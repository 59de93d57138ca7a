"""A tokenizer and a model small enough to be made for each test run."""

import json

import pytest

from sbcore.config.compute import AttentionConfig
from sbcore.config.reporting import EvaluateConfig
from sbcore.config.stages import EvaluateStage
from sbcore.evaluate.run import evaluate
from sbcore.evaluate.shards import ALONE

CHAT_TEMPLATE = "<s>[{{ messages[0].content }}]"


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    """Bytes as tokens, <s> in front of every text, </s> at its end, and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tokenizer_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_dir, local_files_only=True)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """Random weights, two layers, grouped heads."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=258,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
            use_cache=False,
        )
    )
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def task_dir(tmp_path):
    """Two described tasks of five and three examples."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    description = {"metric": "match_part", "max_new_tokens": 6, "template": "{context}{input}"}
    (folder / "tasks.json").write_text(
        json.dumps({"first": {**description, "chance": 12.5}, "second": description})
    )
    for name, count in (("first", 5), ("second", 3)):
        rows = [
            {
                "input": f"{name[:index]}?",
                "context": "some words",
                "answers": ["a"],
                "all_classes": None,
                "length": 2,
            }
            for index in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def make_config():
    usual = {"tasks": ["first", "second"], "prompt_style": "chat"}

    def make(*, kind="dense", **values):
        return EvaluateStage(
            variant="v",
            evaluate=EvaluateConfig(**(usual | values)),
            attention=AttentionConfig(block_size=4, top_k=2, backend="reference"),
            kind=kind,
            device="cpu",
        )

    return make


@pytest.fixture
def ask(model_dir, tokenizer_dir):
    """Evaluates the small model alone and in silence."""
    from rich.progress import Progress

    def run(config, task_dirs, out, **changes):
        progress = Progress(disable=True)
        progress.console.quiet = True
        usual = {"model_dir": model_dir, "tokenizer_dir": tokenizer_dir, "shard": ALONE}
        words = usual | {"progress": progress} | changes
        folders = task_dirs if isinstance(task_dirs, list) else [task_dirs]
        return evaluate(config, **words, task_dirs=folders, out=out)

    return run
