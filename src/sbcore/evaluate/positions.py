"""How far a model's positions reach, and the word about prompts that go beyond them."""

from collections.abc import Sequence
from pathlib import Path

from sbcore.evaluate.loading import in_one_line
from sbcore.evaluate.prompts import Prompt
from sbcore.evaluate.tasks import Task


def read_num_positions(folder: Path) -> int:
    """Returns how many tokens the directory's model was made for, scaling of positions included.

    Raises:
        SparseBalanceError: It is no model directory of a known family.
    """
    from sbcore.model.build import read_model_config
    from sbcore.model.files import base_folder

    with in_one_line(folder, "model"):
        config = read_model_config(base_folder(folder) or folder)
    scaling = config.rope_parameters
    before = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
    scaled = int(before * (scaling.get("factor") or 1))
    return max(config.max_position_embeddings, scaled)


def positions_passed(task: Task, prompts: Sequence[Prompt], *, num_positions: int) -> str | None:
    """Returns a line about the longest prompt if it and its answer pass the model's positions."""
    longest = max(len(prompt.ids) for prompt in prompts)
    if longest + task.max_new_tokens <= num_positions:
        return None
    room = num_positions - task.max_new_tokens
    shorter = (
        f"set evaluate.max_prompt_tokens to {room} or less (a chat template adds to it), or "
        if room > 0
        else ""
    )
    return (
        f"warning: {task.name}: a prompt of {longest} tokens and its answer of up to "
        f"{task.max_new_tokens} pass the model's {num_positions} positions: such answers are bad. "
        f"{shorter}leave the task out."
    )
