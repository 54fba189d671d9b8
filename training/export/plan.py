"""The plan of an export: one stage of a run, its start model, and the problems that the stage would use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import STAGES, RlTable, SftTable, TrainConfig
from training.data.budgets import BudgetSampler
from training.data.mixing import general_count, problem_order
from training.data.problems import DataError
from training.data.prompts import Example, Prompt, Prompter
from training.stages.stage_data import StageData, model_before, start_model
from training.stages.worked_examples import worked_examples
from training.types import Problem

__all__ = [
    "RL_STAGES",
    "SFT_STAGES",
    "ExportError",
    "ExportPlan",
    "ExportedFiles",
    "PromptedProblem",
    "full_model",
    "held_out_problems",
    "load_prompter",
    "rollout_problems",
    "sft_examples",
]

RL_STAGES = tuple(name for name, entry in STAGES.items() if entry.table is RlTable)
SFT_STAGES = tuple(name for name, entry in STAGES.items() if entry.table is SftTable)


class ExportError(Exception):
    """The engine can't do what the run asks for; the message names the option."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """One stage to export; `file` is the run's TOML, `processes` the number of training GPUs."""

    config: TrainConfig
    stage: str
    file: Path
    processes: int
    model: str

    @classmethod
    def for_stage(
        cls, config: TrainConfig, stage: str, file: Path, processes: int, model: str | None = None
    ) -> ExportPlan:
        """Plan the export; without `model` it starts from the same model as the stage itself."""
        previous = start_model(config) if stage in ("zero", "cold-start") else model_before(config, stage)
        start = model or str(previous or config.model.path)
        return cls(config, stage, file.resolve(), processes, start)

    @property
    def data(self) -> StageData[Any]:
        """The stage's settings and problems."""
        return StageData(self.config, self.stage, self.config.table(self.stage))

    @property
    def table(self) -> Any:
        """The stage's settings."""
        return self.data.table

    @property
    def folder(self) -> Path:
        """The folder that the run's relative paths start from."""
        return Path.cwd()

    @property
    def output(self) -> Path:
        """The folder for the engine's checkpoints."""
        return (self.config.output / self.stage).resolve()


@dataclass(frozen=True, slots=True)
class ExportedFiles:
    """The files of an export by name, with sentences on how the engine differs from this trainer."""

    files: Mapping[str, str | bytes]
    differences: Sequence[str]
    launch: str
    """How to start the engine, for the notes."""


@dataclass(frozen=True, slots=True)
class PromptedProblem:
    """A problem with its rendered prompt."""

    problem: Problem
    prompt: Prompt


def full_model(plan: ExportPlan) -> str:
    """Return the start model for an engine that loads Hugging Face directories. Raises ExportError."""
    if plan.model.endswith(".gguf"):
        raise ExportError("the engine can't train a GGUF file: name the original model with --model")
    directory = Path(plan.model).expanduser()
    if plan.config.model.adapter is not None or (directory / "adapter_config.json").exists():
        raise ExportError(
            "the engine can't start from an adapter: merge it, and name the merged model with --model"
        )
    return str(directory.resolve()) if directory.exists() else plan.model


def load_prompter(plan: ExportPlan) -> Prompter:
    """Return a prompter that renders as the gateway does, with the model's tokenizer. Raises DataError."""
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(plan.model)
    except (OSError, ValueError) as error:  # raised for a missing model and for an unreadable one
        raise DataError(f"the tokenizer of {plan.model!r} can't be loaded: {error}") from error
    try:
        stop_ids = GenerationConfig.from_pretrained(plan.model).eos_token_id
    except OSError:  # the model has no generation_config.json
        stop_ids = None
    stop_ids = () if stop_ids is None else (stop_ids,) if isinstance(stop_ids, int) else tuple(stop_ids)
    return Prompter(tokenizer, plan.config.family, plan.config.budgets, stop_ids)


def rollout_problems(plan: ExportPlan, prompter: Prompter, rounds: int = 1) -> list[PromptedProblem]:
    """Return what an RL stage asks, in its order, each problem at the budget that the stage would give it.

    The result has `rounds` times as many problems as the steps have groups, for an engine that replaces some
    groups.
    """
    table, data = plan.table, plan.data
    problems = data.problems(table.problems)
    if plan.stage == "mixed":
        problems += data.general_problems(general_count(len(problems), table.general))
    batches = -(-table.max_steps // table.num_iterations)
    sequence = problem_order(problems, batches * table.groups * rounds, table.general, data.seed)
    budgets = BudgetSampler(table.budgets, data.seed, plan.config.budgets)
    prompted = []
    for index, problem in enumerate(sequence):
        step = index // table.groups * table.num_iterations
        prompted.append(PromptedProblem(problem, prompter.prompt(problem, budgets.level(problem, step))))
    return prompted


def held_out_problems(plan: ExportPlan, prompter: Prompter) -> list[PromptedProblem]:
    """Return the held-out problems, each at its budget."""
    budget = plan.config.held_out.budget
    return [PromptedProblem(problem, prompter.prompt(problem, budget)) for problem in plan.data.held_out()]


def sft_examples(plan: ExportPlan, prompter: Prompter) -> list[Example]:
    """Return what an SFT stage learns from. Raises ExportError if a model must generate that first."""
    table, data = plan.table, plan.data
    if plan.stage == "rejection" or table.teacher != "worked":
        raise ExportError(
            "only worked chains (teacher = 'worked') can be exported: the stage itself generates and "
            "verifies other teachers' replies; run it here, or under accelerate"
        )
    problems = data.problems(table.problems)
    examples = worked_examples(
        data, prompter, problems, data.general_problems(general_count(len(problems), table.general))
    )
    if not examples:
        raise DataError(
            f"{plan.stage}: none of {len(problems)} problems has a worked chain or a written answer"
        )
    return examples
