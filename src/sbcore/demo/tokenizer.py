"""The demo's tokenizer: byte-pair encoding of the corpus, line by line, plus the demo's words."""

from collections.abc import Iterable
from typing import Any

from sbcore.demo.words import ALL_WORDS

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"

# Contents only: a token for the role would stand between a question and its answer. The end
# token tells generation where to stop.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
)


def train_tokenizer(lines: Iterable[str], *, vocab_size: int, max_tokens: int) -> Any:
    """Returns a fast tokenizer of ``vocab_size`` byte pairs and the words of `sbcore.demo.words`.

    Lines never share a token, so the tokens of a text are those of its lines put together.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), behavior="merged_with_previous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(lines, trainer)
    core.add_tokens(list(ALL_WORDS))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )
