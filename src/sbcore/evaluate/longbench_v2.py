"""LongBench v2 (arXiv 2412.15204): 503 questions with four choices on texts of 8K to 2M words.

Read from the benchmark's own repository: ``data.json`` (or ``data.jsonl``), ``prompts/0shot.txt``.
Differs from its script in one thing: answers are the most likely ones, not drawn at temperature
0.1. Their prompts lose their middle beyond ``evaluate.max_prompt_tokens``; say it with the score.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sbcore.artifacts import digest_file, write_json
from sbcore.errors import SparseBalanceError
from sbcore.evaluate.checked_json import read_checked
from sbcore.evaluate.descriptions import TaskDescription
from sbcore.evaluate.multiple_choice import chosen
from sbcore.evaluate.niah.folder import begin_folder, finish_folder, unheard, write_rows
from sbcore.evaluate.pairs import read_pairs
from sbcore.evaluate.rows import ExampleRow, read_rows
from sbcore.evaluate.scoring import percent
from sbcore.evaluate.task_folder import LoadedTask
from sbcore.evaluate.tasks import Task

TASK = "longbench_v2"
MAX_NEW_TOKENS = 128
CHANCE = 25.0

TASKS = (
    Task(
        name=TASK,
        category=TASK,
        language="en",
        metric="multiple_choice",
        max_new_tokens=MAX_NEW_TOKENS,
        num_examples=503,
        first_line=False,
        chat=True,
        stop_at_newline=False,
    ),
)

_FIELDS = {
    "$DOC$": "{context}",
    "$Q$": "{input}",
    "$C_A$": "{choice_A}",
    "$C_B$": "{choice_B}",
    "$C_C$": "{choice_C}",
    "$C_D$": "{choice_D}",
}
_GROUPS: tuple[tuple[str, str], ...] = (
    ("difficulty", "easy"),
    ("difficulty", "hard"),
    ("length_class", "short"),
    ("length_class", "medium"),
    ("length_class", "long"),
)


class Question(BaseModel):
    """One record of the benchmark's data; other fields are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str = Field(alias="_id")
    domain: str
    difficulty: Literal["easy", "hard"]
    length: Literal["short", "medium", "long"]
    question: str
    choice_A: str
    choice_B: str
    choice_C: str
    choice_D: str
    answer: Literal["A", "B", "C", "D"]
    context: str


_QUESTIONS = TypeAdapter(Annotated[list[Question], Field(min_length=1)])


class ChoiceRow(ExampleRow):
    """An example as `make_longbench_v2` writes it."""

    difficulty: str
    length_class: str
    domain: str


def make_longbench_v2(
    out: Path, *, source: Path, on_row: Callable[[], object] = unheard
) -> list[str]:
    """Writes a task folder to ``out`` from the benchmark's own, returns the name of its task.

    ``on_row`` is called after each example.

    Raises:
        SparseBalanceError: The template or the data are missing, or a record is wrong.
    """
    template = _read_template(source / "prompts" / "0shot.txt")
    data = _data_file(source)
    questions = _read_questions(data)
    made_with = {"maker": TASK, "data": str(data), "data_digest": digest_file(data)}
    begin_folder(out, made_with=made_with)
    write_rows(out / f"{TASK}.jsonl", map(_row, questions), on_row=on_row)
    description = TaskDescription(
        metric="multiple_choice",
        max_new_tokens=MAX_NEW_TOKENS,
        template=template,
        chance=CHANCE,
        category=TASK,
        chat=True,
    )
    finish_folder(out, {TASK: description})
    return [TASK]


def score_longbench_v2(
    tasks: Sequence[LoadedTask], *, prediction_dir: Path, out: Path
) -> dict[str, Any]:
    """Writes ``out/longbench_v2.json`` and returns it: scores in percent, overall and by group.

    ``tasks`` is this one alone. Predictions that name no letter are wrong; ``num_unanswered``
    counts them. Groups are those of the benchmark's table (difficulty, length) and its domains;
    without examples one has no score.

    Raises:
        SparseBalanceError: A file is missing or wrong, or predictions belong to other examples.
    """
    (loaded,) = tasks
    pairs = read_pairs(loaded, ChoiceRow, prediction_dir=prediction_dir)
    letters = [(row, chosen(predicted.pred)) for row, predicted in pairs if predicted is not None]
    scores = [float(letter in row.answers) for row, letter in letters]

    def score_of(key: str, value: str) -> float | None:
        group = [
            s for s, (row, _) in zip(scores, letters, strict=True) if getattr(row, key) == value
        ]
        return percent(group) if group else None

    summary = {
        "overall": percent(scores),
        **{value: score_of(key, value) for key, value in _GROUPS},
        "domains": {x: score_of("domain", x) for x in sorted({row.domain for row, _ in letters})},
        "num_examples": len(scores),
        "num_unanswered": sum(letter is None for _, letter in letters),
        "chance": CHANCE,
    }
    write_json(out / f"{TASK}.json", summary)
    return summary


def _read_template(path: Path) -> str:
    if not path.is_file():
        raise SparseBalanceError(f"{path}: missing. give the folder of LongBench v2's repository.")
    text = path.read_text(encoding="utf-8").replace("{", "{{").replace("}", "}}")
    for mark, field in _FIELDS.items():
        if mark not in text:
            raise SparseBalanceError(f"{path}: {mark}: missing. give the benchmark's own template.")
        text = text.replace(mark, field)
    return text


def _data_file(source: Path) -> Path:
    found = [path for name in ("data.json", "data.jsonl") if (path := source / name).is_file()]
    if not found:
        raise SparseBalanceError(f"{source}: data.json: missing. put the benchmark's data there.")
    if len(found) > 1:
        raise SparseBalanceError(
            f"{source}: {found[0].name} and {found[1].name} both exist. remove one of them."
        )
    return found[0]


def _read_questions(path: Path) -> list[Question]:
    if path.suffix == ".jsonl":
        return read_rows(path, Question)
    return read_checked(path, _QUESTIONS)


def _row(question: Question) -> dict[str, Any]:
    choices = {f"choice_{x}": getattr(question, f"choice_{x}").strip() for x in "ABCD"}
    context = question.context.strip()
    return {
        "_id": question.id,
        "input": question.question.strip(),
        "context": context,
        **choices,
        "answers": [question.answer],
        "all_classes": None,
        "length": len(context.split()),
        "difficulty": question.difficulty,
        "length_class": question.length,
        "domain": question.domain,
    }
