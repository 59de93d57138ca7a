"""Out of memory, answered with the micro-batch, its tokens and the setting to change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sbcore.config.stages import TrainStage
from sbcore.errors import SparseBalanceError
from sbcore.plan.read import PlanFile


class MicroBatchTooLarge(SparseBalanceError):
    """Raised by the rank that ran out of memory; it alone knows, so it must print the line."""


class ModelTooLarge(SparseBalanceError):
    """Raised by a rank that cannot hold its part of the model; it alone knows."""


@dataclass(frozen=True)
class MicroBatchFacts:
    """A micro-batch and where it stands; ``lengths`` of its sequences, tokens."""

    step: int
    rank: int
    micro_batch: int | None  # None = put together for the rehearsal, within the plan's cap
    lengths: Sequence[int]

    @property
    def num_tokens(self) -> int:
        """Packed tokens."""
        return sum(self.lengths)


def largest_micro_batch(plan: PlanFile, needs: Callable[[int], float]) -> tuple[int, int, int]:
    """Returns (step, rank, micro_batch) of the one that needs most, the first of equals.

    ``needs`` gives the memory of so many packed tokens in any unit; ``float`` takes the tokens.
    """
    worst, most = (0, 0, 0), -1.0
    for step in range(plan.num_steps):
        here = plan.step(step)
        for rank, packs in enumerate(here.batch.micro_batches):
            for m, pack in enumerate(packs):
                need = needs(int(here.lengths[list(pack)].sum()))
                if need > most:
                    worst, most = (step, rank, m), need
    return worst


@contextmanager
def explaining_out_of_memory(
    facts: MicroBatchFacts, *, estimate_gib: float | None, stage: TrainStage
) -> Iterator[None]:
    """Turns running out of memory in the block into a line for the user.

    Raises:
        MicroBatchTooLarge: What did not fit, what was expected, what to change.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise explain_out_of_memory(error, facts, estimate_gib=estimate_gib, stage=stage) from None


@contextmanager
def explaining_model_memory(stage: TrainStage, *, rank: int) -> Iterator[None]:
    """Turns running out of memory for weights and moments in the block into a line for the user.

    Raises:
        ModelTooLarge: What was asked for, what there is, what to change.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = ["use more ranks"]
        if stage.model.lora is None:
            ways.append("train adapters (model.lora)")
        raise ModelTooLarge(
            f"topology.num_ranks = {stage.topology.num_ranks}: rank {rank} cannot hold its part of "
            f"the model: {_first_sentences(error)}. {_needs(stage)}. {' or '.join(ways)}."
        ) from None


def _needs(stage: TrainStage) -> str:
    """Returns what a weight takes; gradients and moments are float32 as the weights trained."""
    if stage.model.lora is None:
        return "a weight, its gradient and its moments take 16 bytes, spread over the ranks"
    each = 2 if stage.model.dtype == "bfloat16" else 4
    return f"a frozen weight takes {each} bytes, spread over the ranks"


def explain_out_of_memory(
    error: torch.OutOfMemoryError,
    facts: MicroBatchFacts,
    *,
    estimate_gib: float | None,
    stage: TrainStage,
) -> MicroBatchTooLarge:
    """Returns the error to raise instead: what did not fit, what was expected, what to change."""
    one = len(facts.lengths) == 1
    size = f"{facts.num_tokens} tokens in {len(facts.lengths)} sequence{'' if one else 's'}"
    guess = "no estimate" if estimate_gib is None else f"estimate {estimate_gib:.1f} GiB"
    place = "rehearsal" if facts.micro_batch is None else f"micro_batch {facts.micro_batch}"
    return MicroBatchTooLarge(
        f"step {facts.step}, rank {facts.rank}, {place}: {size}: "
        f"out of memory ({guess}; {_first_sentences(error)}). {_remedy(facts, stage)}"
    )


def _first_sentences(error: torch.OutOfMemoryError) -> str:
    """Returns what was asked for and what there is, without the advice that follows."""
    sentences = str(error).strip().splitlines()[0].split(". ")
    return ". ".join(sentences[:3]).rstrip(".")


def _remedy(facts: MicroBatchFacts, stage: TrainStage) -> str:
    train, ways = stage.train, []
    if train.activation_checkpointing != "full":
        ways.append("set train.activation_checkpointing to full")
    elif train.recompute_above_tokens >= facts.num_tokens:
        ways.append(f"lower train.recompute_above_tokens = {train.recompute_above_tokens}")
    if len(facts.lengths) > 1:
        ways.append(f"lower topology.max_tokens = {stage.topology.max_tokens}")
    else:
        ways.append(f"leave out samples of {facts.num_tokens} tokens")
    if stage.model.lora is None:
        ways.append("train adapters (model.lora)")
    return " or ".join([*ways, "use more ranks"]) + "."
