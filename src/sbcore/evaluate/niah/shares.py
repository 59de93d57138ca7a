"""Which examples of a grid are asked when not all are: as many of every depth."""

from collections import Counter
from collections.abc import Sequence

from sbcore.errors import SparseBalanceError
from sbcore.evaluate.rows import ExampleRow


def even_rows(
    rows: Sequence[ExampleRow], *, max_examples: int, name: str
) -> tuple[ExampleRow, ...]:
    """Returns the rows, or the first of each depth in their order, equally many of all.

    Raises:
        SparseBalanceError: There are more depths than examples to ask.
    """
    if len(rows) <= max_examples:
        return tuple(rows)
    depths = [getattr(row, "depth_percent", None) for row in rows]
    num_depths = len(set(depths))
    if max_examples < num_depths:
        raise SparseBalanceError(
            f"evaluate.max_examples = {max_examples}: {name} has {num_depths} depths, some of "
            f"which would not be asked. raise it to {num_depths} or more, or make a grid of fewer "
            "depths (evaluate.niah.num_depths)."
        )
    asked: Counter[object] = Counter()
    kept = []
    for row, depth in zip(rows, depths, strict=True):
        if asked[depth] < max_examples // num_depths:
            asked[depth] += 1
            kept.append(row)
    return tuple(kept)
