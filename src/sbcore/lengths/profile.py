"""The profile-lengths stage: what the lengths are like that balancing has to deal with."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sbcore.artifacts import write_json
from sbcore.config.stages import ProfileLengthsStage
from sbcore.errors import SparseBalanceError
from sbcore.lengths.chart import draw_chart
from sbcore.lengths.statistics import describe


def profile_lengths(config: ProfileLengthsStage, *, index: Path, out: Path) -> dict[str, Any]:
    """Writes lengths.json and lengths.png to out, returns the former's content.

    Raises:
        SparseBalanceError: The index is missing or not one.
    """
    import polars as pl

    if not index.is_file():
        raise SparseBalanceError(f"{index}: missing. run the stage prepare.")
    try:
        profile = describe(pl.scan_parquet(index), num_buckets=config.lengths.num_buckets)
    except pl.exceptions.PolarsError as error:
        problem = str(error).splitlines()[0]
        raise SparseBalanceError(f"{index}: {problem}. run the stage prepare again.") from None
    found = asdict(profile)
    draw_chart(out / "lengths.png", profile)
    write_json(out / "lengths.json", found)
    return found
