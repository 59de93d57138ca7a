"""The rendered samples of all data files, in order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.config.data import Format
from sbcore.data.formats import RecordFormat, detect_format, find_format
from sbcore.data.records import BadRecord, Record, read_records
from sbcore.data.render import Rendered, Renderer
from sbcore.data.skips import Skips

if TYPE_CHECKING:
    from rich.progress import Progress


class SampleReader:
    """Reads files one record at a time; ``format`` is known after the first record."""

    def __init__(
        self, wanted: Format, *, render: Renderer, skips: Skips, progress: "Progress"
    ) -> None:
        self.format: RecordFormat | None = None if wanted == "auto" else find_format(wanted)
        self._render, self._skips, self._progress = render, skips, progress

    def read(self, files: Sequence[Path]) -> Iterator[tuple[Record, Rendered]]:
        """Yields each usable record with its text and loss spans."""
        for file in files:
            for record in self._records(file):
                try:
                    rendered = self._render(self._format_of(record).read(record), record.place)
                except BadRecord as error:
                    self._skips.add(error)
                else:
                    yield record, rendered

    def _records(self, file: Path) -> Iterator[Record]:
        size = file.stat().st_size if file.is_file() else 0
        task = self._progress.add_task(f"prepare {file.name}", total=size)
        seen: set[int] = set()
        for record in read_records(
            file, on_bad=self._skips.add, advance=lambda n: self._progress.advance(task, n)
        ):
            if self._is_new(record, seen):
                yield record
        self._progress.update(task, completed=size)

    def _is_new(self, record: Record, seen: set[int]) -> bool:
        """Notes the record's id, if it has one; the hashes of a million ids take 60 MB."""
        name = record.fields.get("id", record.fields.get("_id"))
        if name is None:
            return True
        key = hash(str(name))
        if key in seen:
            self._skips.add_fault(
                "duplicate_id",
                place=record.place,
                fault=f"id = {name}: occurs twice in this file",
                remedy="remove one of the records",
            )
            return False
        seen.add(key)
        return True

    def _format_of(self, record: Record) -> RecordFormat:
        if self.format is None:
            self.format = detect_format(record)
            self._progress.console.print(
                f"prepare: format {self.format.name}, by the fields of the first record "
                "(data.format sets another)"
            )
        return self.format
