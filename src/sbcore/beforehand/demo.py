"""What the demo's lengths decide: they follow from the seed, so they are drawn before it is made.

A prepared sample of the demo has exactly as many tokens as were drawn for it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbcore.beforehand.mistake import Mistake, wrong_value
from sbcore.config.compute import LatencyGridConfig
from sbcore.config.data import DataConfig
from sbcore.config.schema import Config
from sbcore.demo.lengths import draw_samples
from sbcore.errors import SparseBalanceError

Lengths = NDArray[np.int64]


def demo_mistakes(config: Config) -> Iterator[Mistake]:
    """Yields what is too short for the demo's longest sample, and a csv of lengths with none."""
    try:
        lengths = _known_lengths(config)
    except SparseBalanceError as error:
        yield Mistake(("demo", "lengths", "csv"), config.demo.lengths.csv, str(error))
        return
    if lengths is not None:
        yield from _limit(config.data, lengths)
        if config.latency.table is None:
            yield from _grid(config.latency, config.data, lengths)


def most_samples(config: Config) -> int:
    """Returns a number that the demo's samples do not pass, once long ones are dropped."""
    if config.data.on_long_sample == "drop":
        with suppress(SparseBalanceError):  # a mistake of its own
            lengths = _known_lengths(config)
            if lengths is not None and (kept := _within_limit(config.data, lengths)).any():
                return len(kept)
    return config.demo.num_samples


def _known_lengths(config: Config) -> Lengths | None:
    """Returns the tokens of each sample; None of own data and in the words of another tokenizer.

    Raises SparseBalanceError for a csv of lengths with none; one that is missing is said as a path.
    """
    csv = config.demo.lengths.csv
    if config.data.files or (csv is not None and not Path(csv).is_file()):
        return None
    lengths, _ = draw_samples(config.demo, seed=config.seed)  # whatever counts the tokens then
    return lengths if config.data.tokenizer is None else None


def _limit(data: DataConfig, lengths: Lengths) -> Iterator[Mistake]:
    """Yields a limit that a sample passes, or all do."""
    keys, limit = ("data", "max_sample_tokens"), data.max_sample_tokens
    if data.on_long_sample == "error" and lengths.max() > limit:
        # Cutting is no way out: most tasks ask at the end, and what has no answer is refused.
        wrong = (
            f"{_part(lengths > limit, lengths)} longer, up to {lengths.max()} tokens "
            "(demo.lengths). raise it, or set data.on_long_sample to drop."
        )
        yield wrong_value(keys, limit, wrong)
    elif data.on_long_sample == "drop" and lengths.min() > limit:
        wrong = (
            f"all of the demo's {len(lengths)} samples are dropped, they have {lengths.min()} "
            "tokens and more (demo.lengths). raise it."
        )
        yield wrong_value(keys, limit, wrong)


def _grid(grid: LatencyGridConfig, data: DataConfig, lengths: Lengths) -> Iterator[Mistake]:
    """Yields a grid that ends before the longest sample that the plans are certain to see."""
    reach = int(grid.lengths[-1] * grid.max_extrapolation)
    kept = _within_limit(data, lengths)
    if data.on_long_sample == "error":
        kept = lengths
    elif data.on_long_sample == "truncate" and data.on_bad_line == "error":
        kept = np.minimum(lengths, data.max_sample_tokens)
    if (kept > reach).any():
        wrong = (
            f"{_part(kept > reach, lengths)} longer than {reach} tokens, up to {kept.max()} "
            f"(demo.lengths). add {kept.max()} to them, or raise latency.max_extrapolation."
        )
        yield wrong_value(("latency", "lengths"), grid.lengths, wrong)


def _within_limit(data: DataConfig, lengths: Lengths) -> Lengths:
    """Returns those that nothing happens to: a cut one may lose its answers, and be skipped."""
    return lengths[lengths <= data.max_sample_tokens]


def _part(chosen: NDArray[np.bool_], lengths: Lengths) -> str:
    """Returns the beginning of a sentence on some of the samples."""
    count = int(chosen.sum())
    return f"{count} of the demo's {len(lengths)} samples {'is' if count == 1 else 'are'}"
