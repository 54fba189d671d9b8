"""Supervised fine-tuning as the stages do it: examples in, a model out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from policies.thinking import Markup
from training.data.mixing import general_count
from training.data.problems import DataError
from training.data.prompts import Example, Prompt, Prompter
from training.data.readers import fingerprint
from training.rl.stopping import StoppingRules
from training.stages.collected import binding, identity, once
from training.stages.fingerprints import asked_levels, imitation_bound, model_bound
from training.stages.run import Stage, described
from training.trainer.callbacks import Watch
from training.trainer.sft import train_sft
from training.trainer.states import from_json
from training.types import Problem

__all__ = ["imitate"]

_OF_TRAINING = frozenset(
    ("batch", "decay", "every", "rate", "save_every", "seconds", "steps", "until", "warmup")
)
"""Settings that what is gathered doesn't depend on."""


Gather = Callable[[Any, Prompter], tuple[Sequence[Example], Sequence[Problem], dict[str, Any]]]
"""Collects with a model what to imitate: (examples, their rows, figures for the card)."""


@dataclass(frozen=True, slots=True)
class _Gathered:
    examples: list[Example]
    data: Mapping[str, Any]
    told: Mapping[str, Any]
    seconds: float


def imitate(stage: Stage, start: Path | None, rows: Sequence[Problem], gather: Gather) -> Path:
    """Trains on what `gather` collects of the rows; a resumed stage on what it had collected before."""
    model, tokenizer, prompter = stage.load(start)
    gathering = _gathering(stage, start, rows)
    bound = imitation_bound(stage, start, gathering)
    resume = stage.last_checkpoint(bound)  # before anything of what it was made of could be overwritten
    gathered = _gathered(stage, gathering, lambda: gather(model, prompter))
    if not gathered.examples:
        raise DataError(
            f"{stage.name}: none of the replies to {gathered.data['rows']} questions was right "
            "and fit to imitate"
        )
    held = stage.held_out()
    watch = Watch(
        stage.table.every,
        StoppingRules(until=stage.table.until, seconds=stage.table.seconds),
        lambda: stage.accuracy(model, prompter, held),
        stage.directory / "metrics.jsonl",
        clock=stage.clock,
        report=stage.report,
        ranks=stage.ranks,
        bound=(bound, binding(examples=list(map(asdict, gathered.examples)))),
    )
    watch.seen.trained = gathered.seconds  # drawing what is imitated is part of the stage's cost
    if resume is not None:
        watch.load(resume)
    train_sft(
        model,
        tokenizer,
        gathered.examples,
        table=stage.table,
        watch=watch,
        directory=stage.directory,
        seed=stage.seed,
        resume=resume,
    )
    ended = {
        "ended": watch.ending.reason,
        "seconds": round(watch.seen.trained, 1),
        "accuracies": watch.seen.accuracies,
    }
    told = {**gathered.told, "examples": len(gathered.examples), **ended}
    return stage.finish(model, tokenizer, gathered.data, told)


def _gathering(stage: Stage, start: Path | None, rows: Sequence[Problem]) -> str:
    """What the gathering is bound to."""
    table = stage.table
    draws_from_before = table.teacher == "policy" or table.fresh
    return binding(
        settings=table.model_dump(mode="json", exclude=_OF_TRAINING),
        seed=stage.seed,
        model=model_bound(stage, start),
        before=identity(stage.run.model_before(stage.name)) if draws_from_before else "",
        scorer=identity(table.scorer),
        levels=asked_levels(stage),
        rows=fingerprint(rows),
        general=fingerprint(stage.general(general_count(len(rows), table.general))),
    )


def _gathered(
    stage: Stage,
    bound: str,
    gather: Callable[[], tuple[Sequence[Example], Sequence[Problem], dict[str, Any]]],
) -> _Gathered:
    """What there is to imitate, gathered once; see `training.stages.collected`."""

    def make() -> dict[str, Any]:
        examples, all_rows, told = gather()
        return {"examples": list(map(asdict, examples)), "data": described(all_rows), "told": told}

    value, seconds = once(stage.directory / "gathered.json", bound, make, stage.clock, stage.ranks)
    examples = list(map(_example, value["examples"]))
    return _Gathered(examples, value["data"], value["told"], seconds)


def _example(told: Mapping[str, Any]) -> Example:
    prompt = {**told["prompt"], "markup": from_json(Markup, told["prompt"]["markup"])}
    return Example(from_json(Prompt, prompt), tuple(told["target"]))
