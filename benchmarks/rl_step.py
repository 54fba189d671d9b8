"""What a step of RL costs on a CPU, and what each saving takes off it, in turns in one process.

    python -m benchmarks.rl_step training/configs/tiny.toml --start runs/tiny/seed-0/cold-start/model

The same steps, from the same model on the same questions, are made with all savings, without each, and
without any; every round goes through the variants in the other direction. Figures are processor seconds
a step, medians over the rounds, of the whole and of its two parts: drawing the replies, and passing them
through the model. The savings change no reply and no gradient: see their tests. `--only` is for one saving,
whose figures join those of the others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

SAVINGS = {
    "each prompt is read once": ("training.trainer.generation._prefill_shared_prompts", lambda *_: None),
    "what has ended is written no further": ("training.trainer.generation._CHUNK_TOKENS", 10**9),
    "drawing has torch's own attention": (
        "training.trainer.generation.fused_attention",
        lambda _: nullcontext(),
    ),
    "only replies are scored": ("training.trainer.run_trainer.score_completions_only", nullcontext),
    "each prompt is passed once": ("training.trainer.grpo.pack_shared_prompts", lambda *_: None),
    "only what teaches is passed": ("training.trainer.grpo.drop_zero_advantages", lambda inputs: inputs),
}
"""Each saving, and what stands in its place without it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--start", type=Path, help="the model's directory (the run's own)")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--groups", type=int, help="questions a step (the configuration's)")
    parser.add_argument("--only", choices=list(SAVINGS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    variants = {"all savings": ()} | {f"not: {name}": (name,) for name in SAVINGS} | {"none": tuple(SAVINGS)}
    if chosen.only:
        variants = {name: variants[name] for name in ("all savings", f"not: {chosen.only}")}
    found: dict[str, list[Cost]] = {name: [] for name in variants}
    _cost(chosen, ())  # the first is slower: files are read, memory is taken
    for repeat in range(chosen.repeat):
        for name, without in list(variants.items())[:: -1 if repeat % 2 else 1]:
            found[name].append(_cost(chosen, without))
            print(f"{name}: {found[name][-1]}", flush=True)
    figures = {name: _figures(costs, found["all savings"]) for name, costs in found.items()}
    print("\n".join(f"{name:40} {told}" for name, told in figures.items()))
    if chosen.json is not None:
        told = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
        name = f"{chosen.config.stem}, {chosen.only}" if chosen.only else chosen.config.stem
        told[name] = {"steps": chosen.steps, "repeat": chosen.repeat, "variants": figures}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds a step."""

    drawing: float
    passing: float

    @property
    def whole(self) -> float:
        """Of both parts."""
        return self.drawing + self.passing


def _figures(costs: Sequence[Cost], least: Sequence[Cost]) -> dict[str, float]:
    """Medians over the rounds, and of the rounds' ratios to the cost with all savings."""

    def ratio(part: Callable[[Cost], float]) -> float:
        return round(median(part(a) / part(b) for a, b in zip(costs, least, strict=True)), 3)

    return {
        "seconds": round(median(cost.whole for cost in costs), 3),
        "drawing": round(median(cost.drawing for cost in costs), 3),
        "passing": round(median(cost.passing for cost in costs), 3),
        "ratio": ratio(lambda cost: cost.whole),
        "drawing ratio": ratio(lambda cost: cost.drawing),
        "passing ratio": ratio(lambda cost: cost.passing),
    }


def _cost(chosen: argparse.Namespace, without: Sequence[str]) -> Cost:
    """What a step costs, the evaluations at both ends left out."""
    from training.config import read_config
    from training.stages.grpo_stage import run_grpo
    from training.stages.stage import Run
    from training.trainer.grpo import Trainer

    with tempfile.TemporaryDirectory() as folder:
        config = read_config(chosen.config, output=Path(folder), threads=1)
        held = config.held_out.model_copy(update={"count": 1})
        changed = {
            "max_steps": chosen.steps,
            "eval_steps": chosen.steps,
            "save_steps": 10**6,
            "difficulty": None,
        }
        table = config.rl.model_copy(update=changed | ({"groups": chosen.groups} if chosen.groups else {}))
        config = config.model_copy(update={"held_out": held, "rl": table})
        with Run(config) as run, _left_out(without):
            stage = run.stage("rl", table)
            stage.directory.mkdir(parents=True, exist_ok=True)
            spent: list[float] = []
            drawing: list[float] = []
            with (
                patch("training.stages.grpo_stage.save_model"),
                patch("training.stages.stage.Stage.evaluate", _instant(spent)),
                patch("training.trainer.grpo.Trainer.sample", _timed(Trainer.sample, drawing)),
            ):
                run_grpo(stage, chosen.start, stage.problems(table.max_steps * table.groups))
            whole = spent[-1] - spent[0]
            return Cost(sum(drawing) / chosen.steps, (whole - sum(drawing)) / chosen.steps)


def _instant(spent: list[float]) -> Any:
    """In place of the evaluations: notes the processor time."""

    def accuracy(*_: Any) -> dict[str, float]:
        spent.append(time.process_time())
        return {"accuracy": 0.0}

    return accuracy


def _timed(does: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same, noting the processor time of every call."""

    def timed(*given: Any) -> Any:
        began = time.process_time()
        try:
            return does(*given)
        finally:
            seconds.append(time.process_time() - began)

    return timed


@contextmanager
def _left_out(names: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch(*SAVINGS[name]))
        yield


if __name__ == "__main__":
    main()
