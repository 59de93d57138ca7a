"""One situation to compare variants in, and what can be wrong with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbcore.artifacts import read_json
from sbcore.config.data import SamplingConfig
from sbcore.config.simulation import SimulationConfig
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.table import HEADER, profile_files
from sbcore.plan.simulate import Scene
from sbcore.types import Barrier, IntArray, LatencyModel, Topology

ANALYTIC = "analytic"

_NUM_LAYERS, _FLOOR_MS, _MS_PER_TOKEN = 24, 150.0, 0.01
_COEFFICIENTS = (0.05, 1e-5, 7e-8, 1e-6)
"""Per call, token, pair and score; of about the shape of a 0.5B model on one H100, not fitted."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all variants of a comparison share; with stages each rank is a 1F1B pipeline."""

    lengths: IntArray
    latency: LatencyModel
    latency_name: str
    block_size: int
    num_ranks: int
    global_batch: int
    barrier: Barrier
    config: SimulationConfig
    num_stages: int = 1
    speed_factors: tuple[float, ...] = ()

    @property
    def num_steps(self) -> int:
        """Whole global batches that are replayed."""
        return min(self.config.num_steps, len(self.lengths) // self.global_batch)

    @property
    def num_blocks(self) -> int:
        """Blocks of the longest sequence."""
        return -(-int(self.lengths.max()) // self.block_size)

    @property
    def sampling(self) -> SamplingConfig:
        """How global batches are drawn."""
        return SamplingConfig(
            global_batch=self.global_batch,
            max_steps=self.num_steps,
            look_ahead=self.config.look_ahead,
            token_band=self.config.token_band,
        )

    def scene(self, *, top_k: int) -> Scene:
        """Returns the setting as replays take it, planned at a budget."""
        return Scene(
            lengths=self.lengths,
            latency=self.latency,
            block_size=self.block_size,
            top_k=top_k,
            sampling=self.sampling,
            topology=Topology(
                self.num_ranks,
                self.barrier,
                self.config.max_tokens,
                max_sequences=0,
                num_stages=self.num_stages,
                speed_factors=self.speed_factors,
            ),
            seed=self.config.seed,
        )

    def check(self) -> None:
        """Raises SparseBalanceError where the lengths do not suffice or the table does not."""
        ranks, batch, count = self.num_ranks, self.global_batch, len(self.lengths)
        if batch < ranks:
            raise SparseBalanceError(
                f"--global-batch = {batch}: fewer sequences than the {ranks} ranks. "
                f"give {ranks} or more, or fewer ranks."
            )
        if count < batch:
            wanted = f"{ranks} ranks" if count < ranks else f"global batch of {batch}"
            raise SparseBalanceError(
                f"--lengths: {count} sequences: fewer than the {wanted}. give more of them."
            )
        within = np.ceil(self.lengths / self.config.max_extrapolation).astype(np.int64)
        beyond = np.flatnonzero(self._extrapolated(within))
        if len(beyond):
            longest = int(self.lengths[beyond].max())
            raise SparseBalanceError(
                f"--latency = {self.latency_name}: the table does not reach {longest} tokens at "
                f"top_k {self.config.top_k} ({len(beyond)} of {count} sequences). leave them out, "
                "measure longer lengths with profile-latency, or give --max-extrapolation FACTOR."
            )

    @property
    def num_extrapolated(self) -> int:
        """Returns how many sequences the table does not reach."""
        return int(self._extrapolated(self.lengths).sum())

    def _extrapolated(self, lengths: IntArray) -> NDArray[np.bool_]:
        return self.latency.extrapolates(lengths, np.full(len(lengths), self.config.top_k))


def load_latency(source: str, *, block_size: int) -> tuple[LatencyModel, int, str]:
    """Returns a latency model, its block_size and its name.

    ``analytic`` is a formula that was fitted to nothing; anything else a folder that
    profile-latency wrote, or a table (NAME.parquet, NAME.json beside it); both bring their own
    block_size.
    """
    if source == ANALYTIC:
        model = AnalyticLatencyModel(
            block_size=block_size,
            num_layers=_NUM_LAYERS,
            floor_ms=_FLOOR_MS,
            constant_ms=0.0,
            ms_per_token=_MS_PER_TOKEN,
            coefficients=np.array(_COEFFICIENTS),
        )
        return model, block_size, "analytic, uncalibrated"
    profile = find_profile(source)
    header = profile_files(profile)[1]
    head = read_json(header)
    measured = head.get("block_size") if isinstance(head, dict) else None
    if not isinstance(measured, int):
        raise SparseBalanceError(f"{header}: block_size: missing. rerun the stage profile-latency.")
    name = f"{source}, measured on {head.get('device', 'an unnamed device')}"
    return TableLatencyModel.read(profile, block_size=measured), measured, name


def find_profile(source: str) -> Path:
    """Returns a profile that is there: its folder, or its table with a json beside it.

    Raises SparseBalanceError where there is none.
    """
    path = Path(source)
    beside = path.parent if path.name == HEADER else path
    if not profile_files(beside)[1].is_file():
        raise SparseBalanceError(
            f"--latency = {source}: no latency profile there. give a folder with {HEADER}, "
            f"NAME.parquet with NAME.json beside it, or {ANALYTIC}."
        )
    return beside
