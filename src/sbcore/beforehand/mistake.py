"""A mistake of a configuration, before its place in a file is known."""

from dataclasses import dataclass

from sbcore.config.source import Keys


@dataclass(frozen=True, slots=True)
class Mistake:
    """The key and value that are to be corrected, and the sentence that says how."""

    keys: Keys
    value: object
    line: str


def wrong_value(keys: Keys, value: object, wrong: str) -> Mistake:
    """Returns the mistake whose line is `key = value: wrong`."""
    return Mistake(keys, value, f"{'.'.join(map(str, keys))} = {value}: {wrong}")
