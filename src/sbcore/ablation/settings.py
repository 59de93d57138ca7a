"""The situations that variants are compared in, in an order that rebuilds the model least."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbcore.config.schema import Config
from sbcore.errors import SparseBalanceError
from sbcore.simulate.lengths import read_lengths
from sbcore.types import Barrier, IntArray


@dataclass(frozen=True, slots=True)
class LengthSet:
    """Lengths of one file, cut to the longest sample allowed."""

    name: str
    lengths: IntArray


@dataclass(frozen=True, slots=True)
class Setting:
    """What all variants of a comparison share, beside model, ranks and attention."""

    data: LengthSet
    barrier: Barrier
    global_batch: int

    @property
    def words(self) -> str:
        """The setting in one line."""
        return f"{self.data.name}, barrier {self.barrier}, global batch {self.global_batch}"

    def config(self, config: Config, *, num_ranks: int, num_rounds: int) -> Config:
        """Returns the configuration of this setting: a round is a step of each variant."""
        topology = config.topology.model_copy(
            update={"barrier": self.barrier, "num_ranks": num_ranks}
        )
        sampling = config.sampling.model_copy(
            update={"global_batch": self.global_batch, "max_steps": num_rounds}
        )
        return config.model_copy(update={"topology": topology, "sampling": sampling})


def read_length_set(path: Path, *, max_tokens: int) -> LengthSet:
    """Returns the file's lengths, longer ones cut to max_tokens."""
    return LengthSet(path.stem, np.minimum(read_lengths(path, column=None), max_tokens))


def settings(
    sets: Sequence[LengthSet], *, barriers: Sequence[Barrier], global_batches: Sequence[int]
) -> Iterator[Setting]:
    """Yields every setting; all of one barrier together, since another one shards anew."""
    for barrier in barriers:
        for data in sets:
            for global_batch in global_batches:
                yield Setting(data, barrier, global_batch)


def check_setting(setting: Setting, *, num_ranks: int, num_rounds: int) -> None:
    """Raises SparseBalanceError where the lengths or the global batch do not suffice."""
    batch, count = setting.global_batch, len(setting.data.lengths)
    if batch < max(num_ranks, 2):
        raise SparseBalanceError(
            f"--global-batches = {batch}: fewer sequences than the {num_ranks} ranks, or than 2. "
            "give more, or start fewer ranks."
        )
    if count < batch * num_rounds:
        raise SparseBalanceError(
            f"--lengths = {setting.data.name}: {count} sequences: {num_rounds} rounds of "
            f"{batch} need {batch * num_rounds}. give more lengths, or fewer --rounds."
        )
