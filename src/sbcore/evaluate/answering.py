"""Asks one model the prompts of one task after another and keeps what it answers.

A killed run goes on where it was, with any number of ranks, if model, tokenizer, examples and
settings are the same; the model is loaded when the first missing answer asks for it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sbcore.artifacts import digest_file, digest_text
from sbcore.config.stages import EvaluateStage
from sbcore.evaluate.batches import make_batches
from sbcore.evaluate.loading import load_generator
from sbcore.evaluate.predictions import PredictionFile
from sbcore.evaluate.prompts import Prompt, encode_prompt, fill_template
from sbcore.evaluate.result import TaskResult, score_predicted
from sbcore.evaluate.shards import Shard
from sbcore.evaluate.task_folder import LoadedTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sbcore.evaluate.generate import Generator

_NOT_ANSWERS = {"tasks", "longbench", "longbench_v2", "ruler_files", "niah", "ruler", "curve_top_k"}


@dataclass
class Asked:
    """A task with the predictions that there were at the start; what is made is only on disk."""

    loaded: LoadedTask
    file: PredictionFile
    kept: dict[int, str]
    num_truncated: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether nothing was missing."""
        return len(self.kept) == len(self.loaded.rows)


@dataclass(frozen=True)
class Answering:
    """One model under one configuration, answering into the folder ``out``, perhaps one of many."""

    config: EvaluateStage
    model_dir: Path
    tokenizer_dir: Path
    tokenizer: "PreTrainedTokenizerBase"
    out: Path
    shard: Shard

    def begin(self, loaded: list[LoadedTask]) -> list[Asked]:
        """Returns the tasks with what is kept of earlier runs; rank 0 throws the rest away."""
        files = [PredictionFile(self.out, each.task.name, self._digest(each)) for each in loaded]
        if self.shard.rank == 0:
            for file, each in zip(files, loaded, strict=True):
                if len(kept := file.kept()) < len(each.rows):
                    file.begin(kept)
        self.shard.wait()
        asked = [Asked(each, file, file.kept()) for each, file in zip(loaded, files, strict=True)]
        self.shard.wait()
        return asked

    def prompts(self, loaded: LoadedTask) -> list[Prompt]:
        """Returns what the model is asked, example by example."""
        return [
            encode_prompt(
                self.tokenizer,
                fill_template(loaded.template, row, place=f"{loaded.path}: row {number}"),
                chat=self.config.evaluate.prompt_style == "chat" and loaded.task.chat,
                max_prompt_tokens=self.config.evaluate.max_prompt_tokens,
            )
            for number, row in enumerate(loaded.rows, start=1)
        ]

    def answer(
        self, asked: Asked, prompts: list[Prompt], on_progress: Callable[[int], None]
    ) -> None:
        """Generates this rank's share of what is missing of a task's predictions.

        ``prompts`` are all of the task's; ``on_progress`` is told how many more predictions all
        ranks together have made, about.
        """
        asked.num_truncated = sum(prompt.truncated for prompt in prompts)
        on_progress(len(asked.kept))
        left = len(prompts) - len(asked.kept)
        for batch in self.shard.own(self._missing(prompts, asked.kept)):
            texts = self._generator.answer([prompts[i] for i in batch], asked.loaded.task)
            asked.file.append(dict(zip(batch, texts, strict=True)), rank=self.shard.rank)
            done = min(left, len(batch) * self.shard.num_ranks)
            on_progress(done)
            left -= done

    def finish(self, asked: Asked) -> TaskResult:
        """Returns the scored task, whose predictions all ranks together have made."""
        predictions = asked.file.kept()
        if not asked.is_finished:
            asked.file.finish(predictions, asked.loaded.rows)
        return TaskResult(
            loaded=asked.loaded,
            scored=score_predicted(asked.loaded, predictions, asked.file),
            num_truncated=asked.num_truncated,
        )

    @cached_property
    def _generator(self) -> "Generator":
        return load_generator(
            self.config,
            model_dir=self.model_dir,
            tokenizer=self.tokenizer,
            device=self.shard.device(self.config.device),
        )

    @cached_property
    def _made_with(self) -> dict[str, object]:
        settings = self.config.model_dump(
            mode="json", exclude={"variant": True, "evaluate": _NOT_ANSWERS}
        )
        same = self.tokenizer_dir.resolve() == self.model_dir.resolve()
        model = digest_file(self.model_dir)
        return {
            "settings": settings,
            "device": self.shard.device(self.config.device).type,
            "model": model,
            "tokenizer": model if same else digest_file(self.tokenizer_dir),
        }

    def _digest(self, loaded: LoadedTask) -> str:
        rows = "\n".join(row.model_dump_json() for row in loaded.rows)
        asked = {"task": asdict(loaded.task), "template": loaded.template}
        return digest_text(json.dumps(self._made_with | asked, sort_keys=True) + rows)

    def _missing(self, prompts: list[Prompt], kept: dict[int, str]) -> list[list[int]]:
        settings = self.config.evaluate
        batches = make_batches(
            prompts, batch_size=settings.batch_size, batch_tokens=settings.batch_tokens
        )
        return [batch for batch in batches if any(index not in kept for index in batch)]
