"""Asks one model the prompts of one task after another and keeps what it answers.

A killed run goes on where it was, if model, tokenizer, examples and settings are the same; the
model is loaded when the first missing answer asks for it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.artifacts import digest_file, digest_text
from sbcore.config.stages import EvaluateStage
from sbcore.evaluate.generate import Generator, equal_length_batches
from sbcore.evaluate.loading import load_generator
from sbcore.evaluate.predictions import PredictionFile
from sbcore.evaluate.prompts import Prompt, encode_prompt, fill_template
from sbcore.evaluate.result import TaskResult, score_predicted
from sbcore.evaluate.task_folder import LoadedTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answering:
    """One model under one configuration, answering into the folder ``out``."""

    config: EvaluateStage
    model_dir: Path
    tokenizer_dir: Path
    tokenizer: "PreTrainedTokenizerBase"
    out: Path

    def finish(self, loaded: LoadedTask, on_progress: Callable[[int], None]) -> TaskResult:
        """Returns the scored task after generating what is missing of its prediction file.

        ``on_progress`` is told how many predictions are there, again and again.
        """
        prompts = self._prompts(loaded)
        file = PredictionFile(self.out, loaded.task.name, self._digest(loaded))
        predictions = file.kept()
        on_progress(len(predictions))
        if len(predictions) < len(prompts):
            file.begin(predictions)
            for batch in self._missing(prompts, predictions):
                texts = self._generator.answer([prompts[i] for i in batch], loaded.task)
                answered = dict(zip(batch, texts, strict=True))
                file.append(answered)
                predictions |= answered
                on_progress(len(predictions))
            file.finish(predictions, loaded.rows)
        return TaskResult(
            loaded=loaded,
            scored=score_predicted(loaded, predictions, file),
            num_truncated=sum(prompt.truncated for prompt in prompts),
        )

    @cached_property
    def _generator(self) -> Generator:
        return load_generator(self.config, model_dir=self.model_dir, tokenizer=self.tokenizer)

    @cached_property
    def _made_with(self) -> dict[str, object]:
        settings = self.config.model_dump(
            mode="json", exclude={"variant": True, "evaluate": {"tasks", "longbench"}}
        )
        same = self.tokenizer_dir.resolve() == self.model_dir.resolve()
        model = digest_file(self.model_dir)
        tokenizer = model if same else digest_file(self.tokenizer_dir)
        return {
            "settings": settings,
            "model": model,
            "tokenizer": tokenizer,
        }

    def _digest(self, loaded: LoadedTask) -> str:
        rows = "\n".join(row.model_dump_json() for row in loaded.rows)
        asked = {"task": asdict(loaded.task), "template": loaded.template}
        return digest_text(json.dumps(self._made_with | asked, sort_keys=True) + rows)

    def _prompts(self, loaded: LoadedTask) -> list[Prompt]:
        return [
            encode_prompt(
                self.tokenizer,
                fill_template(loaded.template, row, place=f"{loaded.path}: row {number}"),
                chat=self.config.evaluate.prompt_style == "chat" and loaded.task.chat,
                max_prompt_tokens=self.config.evaluate.max_prompt_tokens,
            )
            for number, row in enumerate(loaded.rows, start=1)
        ]

    def _missing(self, prompts: list[Prompt], predictions: dict[int, str]) -> list[list[int]]:
        batches = equal_length_batches(prompts, batch_size=self.config.evaluate.batch_size)
        return [batch for batch in batches if any(index not in predictions for index in batch)]
