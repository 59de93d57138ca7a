"""What a latency profile states of the run that it was measured for."""

from collections.abc import Mapping

from sbcore.artifacts import read_json
from sbcore.errors import SparseBalanceError
from sbcore.latency.table import profile_files
from sbcore.simulate.setting import ANALYTIC, find_profile

_KEYS = {"top_k": "--top-k", "max_tokens": "--max-tokens"}
"""What no simulation guesses beside a measured table, and the options that say it."""


def stated_by(source: str, given: Mapping[str, object]) -> dict[str, int]:
    """Returns the profile's own settings; what was given need not be stated.

    Nothing for the formula, whose setting is the one of `SimulationConfig`.

    Raises:
        SparseBalanceError: There is no profile, or it does not state what was not given.
    """
    if source == ANALYTIC:
        return {}
    header = profile_files(find_profile(source))[1]
    head = read_json(header)
    stated = {key: head.get(key) if isinstance(head, dict) else None for key in _KEYS}
    for key, value in stated.items():
        if key not in given and not isinstance(value, int):
            raise SparseBalanceError(f"{header}: {key}: not stated. give {_KEYS[key]} N.")
    return {key: value for key, value in stated.items() if isinstance(value, int)}
