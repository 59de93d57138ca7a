"""Turns data files into a prepared data set: read, render, tokenize, check, write, in a stream.

At any time only one batch of records is in memory (half a megabyte of text, or one record).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbcore.artifacts import digest_file, write_json
from sbcore.config.data import DataConfig
from sbcore.config.stages import PrepareStage
from sbcore.data.encode import Encoded, encode
from sbcore.data.layout import INDEX, SUMMARY
from sbcore.data.records import Record
from sbcore.data.render import Rendered, make_renderer
from sbcore.data.samples import SampleReader
from sbcore.data.skips import Skips
from sbcore.data.tokenizers import load_tokenizer, tokenizer_digest
from sbcore.data.write import open_store
from sbcore.errors import SparseBalanceError

if TYPE_CHECKING:
    from rich.progress import Progress

_BATCH_CHARACTERS = 1 << 19
_BATCH_RECORDS = 512


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """What a data set came out as; ``num_skipped`` counts by reason.

    ``num_dropped`` and ``num_truncated`` are samples over ``max_sample_tokens``;
    ``data_digest`` is the sha256 of index.parquet, which plans and trainings check.
    """

    num_samples: int
    num_tokens: int
    num_target_tokens: int
    num_skipped: dict[str, int]
    num_dropped: int
    num_truncated: int
    max_sample_tokens: int
    format: str
    files: list[str]
    tokenizer_digest: str
    vocab_size: int
    eos_token_id: int | None
    data_digest: str


def prepare(
    config: PrepareStage,
    *,
    files: Sequence[Path],
    tokenizer: Path,
    out: Path,
    progress: "Progress",
) -> PrepareSummary:
    """Writes tokens.bin, targets.bin, index.parquet and summary.json to out (see `layout`).

    Raises:
        SparseBalanceError: A file, a record or the tokenizer cannot be used; nothing is written.
    """
    if not files:
        raise SparseBalanceError("data.files = []: no data set. name jsonl or parquet files.")
    loaded, data = load_tokenizer(tokenizer), config.data
    skips, limit = Skips(data.on_bad_line), _Limit(data)
    reader = SampleReader(data.format, render=make_renderer(loaded), skips=skips, progress=progress)
    with open_store(out) as store:
        for batch in _batches(reader.read(files)):
            for record, sample in _encoded(batch, loaded):
                fitted = limit.fit(sample, record.place)
                if fitted is not None and _has_targets(fitted, record.place, skips):
                    store.append(fitted, source_file=str(record.path), source_line=record.line)
        if store.num_samples == 0:
            raise _nothing_left(files, skips, limit)
    summary = PrepareSummary(
        num_samples=store.num_samples,
        num_tokens=store.num_tokens,
        num_target_tokens=store.num_target_tokens,
        num_skipped=skips.counts,
        num_dropped=limit.num_dropped,
        num_truncated=limit.num_truncated,
        max_sample_tokens=data.max_sample_tokens,
        format=reader.format.name if reader.format else data.format,
        files=[str(file) for file in files],
        tokenizer_digest=tokenizer_digest(loaded),
        vocab_size=max(loaded.get_vocab().values()) + 1,
        eos_token_id=loaded.eos_token_id,
        data_digest=digest_file(out / INDEX),
    )
    write_json(out / SUMMARY, asdict(summary))
    return summary


class _Limit:
    """Applies ``max_sample_tokens`` and counts how often it had to."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self.num_dropped = self.num_truncated = 0

    def fit(self, sample: Encoded, place: str) -> Encoded | None:
        """Returns the sample, its first tokens, or None for a dropped one."""
        limit, size = self._config.max_sample_tokens, len(sample.tokens)
        if size <= limit:
            return sample
        if self._config.on_long_sample == "error":
            raise SparseBalanceError(
                f"{place}: num_tokens = {size}: over data.max_sample_tokens = {limit}. "
                "raise the limit, or set data.on_long_sample to drop or truncate."
            )
        if self._config.on_long_sample == "drop":
            self.num_dropped += 1
            return None
        self.num_truncated += 1
        return Encoded(sample.tokens[:limit], sample.is_target[:limit])


def _has_targets(sample: Encoded, place: str, skips: Skips) -> bool:
    if sample.is_target.any():
        return True
    skips.add_fault(
        "no_target_tokens",
        place=place,
        fault=f"num_target_tokens = 0: nothing to predict in {len(sample.tokens)} tokens",
        remedy="give it an answer that is within data.max_sample_tokens",
    )
    return False


def _nothing_left(files: Sequence[Path], skips: Skips, limit: _Limit) -> SparseBalanceError:
    left_out = skips.counts | ({"too_long": limit.num_dropped} if limit.num_dropped else {})
    counts = ", ".join(f"{reason} {number}" for reason, number in left_out.items())
    why = f"all records are left out ({counts})" if counts else "empty data set"
    return SparseBalanceError(
        f"data.files = {', '.join(map(str, files))}: {why}. give records in a known format."
    )


Batch = list[tuple[Record, Rendered]]


def _batches(samples: Iterator[tuple[Record, Rendered]]) -> Iterator[Batch]:
    """Yields runs of samples that are tokenized together."""
    batch: Batch = []
    characters = 0
    for record, rendered in samples:
        other_kind = batch and batch[0][1].with_special_tokens != rendered.with_special_tokens
        if other_kind or characters > _BATCH_CHARACTERS or len(batch) == _BATCH_RECORDS:
            yield batch
            batch, characters = [], 0
        batch.append((record, rendered))
        characters += len(rendered.text)
    if batch:
        yield batch


def _encoded(batch: Batch, tokenizer: Any) -> Iterator[tuple[Record, Encoded]]:
    samples = encode([rendered for _, rendered in batch], tokenizer)
    for (record, _), sample in zip(batch, samples, strict=True):
        yield record, sample
