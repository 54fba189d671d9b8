"""Supervised fine-tuning as the stages do it: collect examples once, then train on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from policies.thinking import Markup
from training.config import SftTable
from training.data.problems import DataError
from training.data.prompts import Example, Prompt, Prompter
from training.rl.stopping import StoppingRules
from training.stages.cache import digest, load_or_compute
from training.stages.checkpoint_identity import collection_digest, sft_digest
from training.stages.stage import Stage, describe_problems
from training.trainer.callbacks import StageCallback
from training.trainer.saved_state import from_json
from training.trainer.sft import train_sft
from training.trainer.untyped import Model
from training.types import Problem

__all__ = ["Collect", "Collection", "run_sft"]


@dataclass(frozen=True, slots=True)
class Collection:
    """What a stage imitates: examples, the problems that they came from, and results for the run card."""

    examples: Sequence[Example]
    problems: Sequence[Problem]
    results: Mapping[str, object] = field(default_factory=dict)


Collect = Callable[[Model, Prompter], Collection]
"""Collects examples with the model that will learn from them, and its prompter."""


@dataclass(frozen=True, slots=True)
class _SavedCollection:
    examples: list[Example]
    data: Mapping[str, object]
    results: Mapping[str, object]
    seconds: float


def run_sft(
    stage: Stage[SftTable], start: Path | None, problems: Sequence[Problem], collect: Collect
) -> Path:
    """Train on what `collect` makes of the problems; a resumed stage reuses what it had collected."""
    model, tokenizer, prompter = stage.load(start)
    collection = collection_digest(stage, start, problems)
    stage_digest = sft_digest(stage, start, collection)
    resume = stage.last_checkpoint(stage_digest)  # refuses before files of its run are overwritten
    saved = _collect_once(stage, collection, lambda: collect(model, prompter))
    if not saved.examples:
        raise DataError(
            f"{stage.name}: none of the replies to {saved.data['rows']} questions was right "
            "and fit to imitate"
        )
    held_out = stage.held_out()
    callback = StageCallback(
        stage.table.eval_steps,
        StoppingRules(until=stage.table.target_accuracy, seconds=stage.table.max_seconds),
        lambda: stage.evaluate(model, prompter, held_out),
        stage.directory / "metrics.jsonl",
        clock=stage.clock,
        report=stage.report,
        group=stage.group,
        digests=(stage_digest, digest(examples=list(map(asdict, saved.examples)))),
    )
    callback.progress.trained = saved.seconds  # sampling the examples is part of the stage's cost
    if resume is not None:
        callback.load(resume)
    train_sft(
        model,
        tokenizer,
        saved.examples,
        table=stage.table,
        callback=callback,
        directory=stage.directory,
        seed=stage.seed,
        resume=resume,
    )
    results = {
        **saved.results,
        "examples": len(saved.examples),
        "ended": callback.ending.reason,
        "seconds": round(callback.progress.trained, 1),
        "accuracies": callback.progress.accuracies,
    }
    return stage.finish(model, tokenizer, saved.data, results)


def _collect_once(
    stage: Stage[SftTable], collection: str, collect: Callable[[], Collection]
) -> _SavedCollection:
    """Return the stage's examples, collected once (see `training.stages.cache`)."""

    def compute() -> dict[str, object]:
        collected = collect()
        return {
            "examples": list(map(asdict, collected.examples)),
            "data": describe_problems(collected.problems),
            "told": collected.results,
        }

    path = stage.directory / "gathered.json"
    value, seconds = load_or_compute(path, collection, compute, stage.clock, stage.group)
    examples = list(map(_parse_example, value["examples"]))
    return _SavedCollection(examples, value["data"], value["told"], seconds)


def _parse_example(fields: Mapping[str, Any]) -> Example:
    prompt = {**fields["prompt"], "markup": from_json(Markup, fields["prompt"]["markup"])}
    return Example(from_json(Prompt, prompt), tuple(fields["target"]))
