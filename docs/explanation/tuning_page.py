"""Writes the generated blocks of tuning.md; run it after a change of the policies."""

import re
from collections.abc import Callable
from pathlib import Path

import tuning_example
import tuning_simulation
import tuning_variants

PAGE = Path(__file__).with_name("tuning.md")
BLOCKS: dict[str, Callable[[], str]] = {
    "example: curves": tuning_example.curves,
    "example: raises": tuning_example.raises,
    "example: results": tuning_example.results,
    "example: bars": tuning_example.bars,
    "simulation": tuning_simulation.table,
    "variants": tuning_variants.speedups,
    "targets": tuning_variants.targets,
}
_END = "<!-- end -->"


def filled(page: str) -> str:
    """Returns the page with all its blocks made anew; raises KeyError for an unknown block."""

    def block(match: re.Match[str]) -> str:
        return f"{match[0].splitlines()[0]}\n{BLOCKS[match[1]]()}\n{_END}"

    return re.sub(rf"<!-- generated: (.+?) -->\n.*?{_END}", block, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
