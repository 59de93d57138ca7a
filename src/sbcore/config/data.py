"""Input: the data set, its tokenizer, and the demo data made from a seed."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sbcore.config.section import Section

Format = Literal[
    "auto", "messages", "prompt_response", "text", "longalign", "longalpaca", "chatqa2"
]


class LengthDistribution(Section):
    """Lengths of the demo's samples: lognormal, heavy-tailed, clipped; or drawn from a csv."""

    median_tokens: PositiveInt = 320
    """Median of the lognormal, tokens."""
    sigma: PositiveFloat = 1.1
    """Standard deviation of the logarithm; 1.1 gives a 99th percentile of 13 medians."""
    min_tokens: int = Field(default=64, ge=32)
    """Shorter draws are raised to this; a task needs 32 tokens to make sense."""
    max_tokens: PositiveInt = 4096
    """Longer draws are cut to this."""
    csv: str | None = None
    """A csv whose first numeric column holds lengths to draw from instead; null = lognormal."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "LengthDistribution":
        self.refuse_above("min_tokens", "max_tokens")
        return self


class DemoConfig(Section):
    """The data set and the small model that the demo makes on the spot."""

    num_samples: PositiveInt = 1600
    """Training samples."""
    num_eval_samples: int = Field(default=40, ge=2)
    """Evaluation samples per task."""
    lengths: LengthDistribution = LengthDistribution()
    """Length distribution of the training samples."""
    eval_lengths: Annotated[list[Annotated[int, Field(ge=32)]], Field(min_length=1)] = [256, 1024]
    """Lengths of the evaluation samples, tokens; the samples are spread evenly over them."""
    corpus_bytes: int = Field(default=2_000_000, ge=65_536)
    """Standard-library sources that the real text is taken from, bytes; a file is at most a
    sixteenth of them, so fewer hold too little."""
    vocab_size: int = Field(default=1024, ge=300)
    """Entries of the byte-pair vocabulary trained on them; 256 of them are the bytes."""
    base_steps: PositiveInt = 320
    """Steps on short samples that make the base model, which every variant then continues."""
    base_tokens_per_step: PositiveInt = 4096
    """Tokens of one such step."""

    @model_validator(mode="after")
    def _every_length_is_asked(self) -> "DemoConfig":
        if self.num_eval_samples < len(self.eval_lengths):
            raise ValueError(
                f"num_eval_samples = {self.num_eval_samples}: fewer than eval_lengths has lengths, "
                f"{len(self.eval_lengths)}, so that some would be left out. raise it"
            )
        return self


class DataConfig(Section):
    """Training data."""

    files: list[str] = []
    """jsonl or parquet files; empty = the demo's own data set, made from the seed."""
    format: Format = "auto"
    """Field names: messages (chat), prompt_response, text, or those of LongAlign, LongAlpaca,
    ChatQA2; auto looks at the first record."""
    tokenizer: str | None = None
    """A Hugging Face tokenizer directory; null = the demo's tokenizer, or the model's directory."""
    max_sample_tokens: PositiveInt = 4096
    """Longest sample allowed, tokens."""
    on_long_sample: Literal["error", "drop", "truncate"] = "error"
    """What happens to a longer sample; drop and truncate are counted and reported."""
    on_bad_line: Literal["error", "skip"] = "error"
    """What happens to a record that cannot be used; skip is counted by reason and reported."""


class LengthProfileConfig(Section):
    """The picture of the length distribution."""

    num_buckets: PositiveInt = 12
    """Length buckets between the shortest and the longest sample, equal in the logarithm."""


class SamplingConfig(Section):
    """How global batches are drawn; equal for all variants, so that only the layout differs."""

    global_batch: int = Field(default=16, ge=2)
    """Sequences of one optimizer step."""
    num_epochs: PositiveInt = 1
    """Passes over the data set; every sample exactly once in each."""
    max_steps: int = Field(default=0, ge=0)
    """Stop after this many steps; 0 = run all epochs."""
    look_ahead: PositiveInt = 1
    """Global batches regrouped together by length: a change of sampling, since samples then meet
    others of their length; 1 = as drawn."""
    token_band: float = Field(default=0.25, gt=0, lt=1)
    """Most that a regrouped global batch's tokens may be from the mean, as a share; read when
    look_ahead is above 1."""
