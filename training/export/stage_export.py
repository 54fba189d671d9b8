"""What is exported: one stage of a run, the model it starts from, and the questions it would ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import StageName, TrainConfig
from training.data.budgets import BudgetSampler
from training.data.mixing import beside, ordered
from training.data.problems import DataError
from training.data.prompts import Example, Prompt, Prompter
from training.stages.stage_data import StageData, model_before, start_model
from training.stages.worked_replies import worked
from training.types import Problem

__all__ = [
    "RL_STAGES",
    "SFT_STAGES",
    "ExportError",
    "ExportedFiles",
    "PromptedProblem",
    "StageExport",
    "full_model",
    "held_out_problems",
    "load_prompter",
    "rollout_problems",
    "sft_examples",
]

RL_STAGES: tuple[StageName, ...] = ("zero", "rl", "mixed")
SFT_STAGES: tuple[StageName, ...] = ("base", "cold-start", "rejection")


class ExportError(Exception):
    """The engine can't do what the run asks for; the message names the option."""


@dataclass(frozen=True, slots=True)
class StageExport:
    """One stage to export. `file` is the run's TOML, `processes` how many GPUs train."""

    config: TrainConfig
    stage: StageName
    file: Path
    processes: int
    model: str

    @classmethod
    def of(
        cls, config: TrainConfig, stage: StageName, file: Path, processes: int, model: str | None = None
    ) -> StageExport:
        """The job; without `model` it starts from what the stages before have made, as the stage would."""
        made = start_model(config) if stage in ("zero", "cold-start") else model_before(config, stage)
        return cls(config, stage, file.resolve(), processes, model or str(made or config.model.path))

    @property
    def data(self) -> StageData:
        """The stage's settings and rows."""
        return StageData(self.config, self.stage)

    @property
    def table(self) -> Any:
        """The stage's settings."""
        return self.data.table

    @property
    def folder(self) -> Path:
        """Where the run's relative paths are taken from."""
        return Path.cwd()

    @property
    def output(self) -> Path:
        """Where the engine leaves its checkpoints."""
        return (self.config.output / self.stage).resolve()


@dataclass(frozen=True, slots=True)
class ExportedFiles:
    """The files of an export by name, and in sentences what the engine does otherwise than this trainer."""

    files: Mapping[str, str | bytes]
    left: Sequence[str]
    start: str
    """How it is started, for the notes."""


@dataclass(frozen=True, slots=True)
class PromptedProblem:
    """A row, and the prompt that asks it."""

    row: Problem
    prompt: Prompt


def full_model(job: StageExport) -> str:
    """The model's place for an engine that loads directories in Hugging Face's form. Raises ExportError."""
    if job.model.endswith(".gguf"):
        raise ExportError("a GGUF file can't be trained there: name the original model with --model")
    directory = Path(job.model).expanduser()
    if job.config.model.adapter is not None or (directory / "adapter_config.json").exists():
        raise ExportError("it can't start from an adapter: merge it, and name the merged model with --model")
    return str(directory.resolve()) if directory.exists() else job.model


def load_prompter(job: StageExport) -> Prompter:
    """Renders as the gateway does, with the model's own tokenizer. Raises DataError where it has none."""
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(job.model)
    except (OSError, ValueError) as error:  # what the library raises for places and for files
        raise DataError(f"the tokenizer of {job.model!r} can't be loaded: {error}") from error
    try:
        ends = GenerationConfig.from_pretrained(job.model).eos_token_id
    except OSError:  # a model without the file
        ends = None
    ends = () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
    return Prompter(tokenizer, job.config.family, job.config.budgets, ends)


def rollout_problems(job: StageExport, load_prompter: Prompter, rounds: int = 1) -> list[PromptedProblem]:
    """What a stage of reinforcement learning asks, in its order, each at the budget that it would have there.

    `rounds` times as many as the steps have groups, for an engine that takes others in place of some.
    """
    table, data = job.table, job.data
    rows = data.rows(table.rows)
    if job.stage == "mixed":
        rows += data.general(beside(len(rows), table.general))
    batches = -(-table.steps // table.updates)
    asked = ordered(rows, batches * table.groups * rounds, table.general, data.seed)
    budgets = BudgetSampler(table.budgets, data.seed, job.config.budgets)
    return [
        PromptedProblem(
            row, load_prompter.prompt(row, budgets.level(row, place // table.groups * table.updates))
        )
        for place, row in enumerate(asked)
    ]


def held_out_problems(job: StageExport, load_prompter: Prompter) -> list[PromptedProblem]:
    """The held-out questions, at their budget."""
    budget = job.config.held_out.budget
    return [PromptedProblem(row, load_prompter.prompt(row, budget)) for row in job.data.held_out()]


def sft_examples(job: StageExport, load_prompter: Prompter) -> list[Example]:
    """What a stage of imitation learns from. Raises ExportError where a model must draw that first."""
    table, data = job.table, job.data
    if job.stage == "rejection" or table.teacher != "worked":
        raise ExportError(
            "only worked chains (teacher = 'worked') can be exported: other teachers' replies are drawn and "
            "verified by the stage itself; run it here, or under accelerate"
        )
    rows = data.rows(table.rows)
    found = worked(data, load_prompter, rows, data.general(beside(len(rows), table.general)))
    if not found:
        raise DataError(f"{job.stage}: none of {len(rows)} rows has a worked chain or a written answer")
    return found
