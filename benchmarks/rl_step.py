"""Measure what a step of RL costs on a CPU, and what each optimisation saves, in turns in one process.

    python -m benchmarks.rl_step training/configs/tiny.toml --start runs/tiny/seed-0/cold-start/model

The same steps, from the same model on the same questions, run with all optimisations, without each one, and
without any; every other round runs in reverse. Results are processor seconds per step, as medians over the
rounds: of the whole step, and of its two parts, generating the rollouts and passing them through the model.
The optimisations change no reply and no gradient: see their tests. `--only` measures one optimisation, and
adds its results to those of the others.
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
"""Each optimisation, with the object that disables it and its replacement."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--start", type=Path, help="the start model's directory (default: the run's own)")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--groups", type=int, help="questions per step (default: the configuration's)")
    parser.add_argument("--only", choices=list(SAVINGS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    variants = {"all savings": ()} | {f"not: {name}": (name,) for name in SAVINGS} | {"none": tuple(SAVINGS)}
    if args.only:
        variants = {name: variants[name] for name in ("all savings", f"not: {args.only}")}
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    _cost(args, ())  # the first run is slower: it reads files and allocates memory
    for repeat in range(args.repeat):
        for name, without in list(variants.items())[:: -1 if repeat % 2 else 1]:
            costs[name].append(_cost(args, without))
            print(f"{name}: {costs[name][-1]}", flush=True)
    summaries = {name: _summary(runs, costs["all savings"]) for name, runs in costs.items()}
    print("\n".join(f"{name:40} {summary}" for name, summary in summaries.items()))
    if args.json is not None:
        results = json.loads(args.json.read_text()) if args.json.exists() else {}
        name = f"{args.config.stem}, {args.only}" if args.only else args.config.stem
        results[name] = {"steps": args.steps, "repeat": args.repeat, "variants": summaries}
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds per step."""

    drawing: float
    passing: float

    @property
    def whole(self) -> float:
        """The sum of both parts."""
        return self.drawing + self.passing


def _summary(costs: Sequence[Cost], fastest: Sequence[Cost]) -> dict[str, float]:
    """Return medians over the rounds, and of the rounds' ratios to the cost with all optimisations."""

    def ratio(part: Callable[[Cost], float]) -> float:
        return round(median(part(a) / part(b) for a, b in zip(costs, fastest, strict=True)), 3)

    return {
        "seconds": round(median(cost.whole for cost in costs), 3),
        "drawing": round(median(cost.drawing for cost in costs), 3),
        "passing": round(median(cost.passing for cost in costs), 3),
        "ratio": ratio(lambda cost: cost.whole),
        "drawing ratio": ratio(lambda cost: cost.drawing),
        "passing ratio": ratio(lambda cost: cost.passing),
    }


def _cost(args: argparse.Namespace, without: Sequence[str]) -> Cost:
    """Measure what a step costs, without the evaluations at both ends."""
    from training.config import read_config
    from training.stages.grpo_stage import run_grpo
    from training.stages.stage import Run
    from training.trainer.grpo import Trainer

    with tempfile.TemporaryDirectory() as folder:
        config = read_config(args.config, output=Path(folder), threads=1)
        held_out = config.held_out.model_copy(update={"count": 1})
        update = {
            "max_steps": args.steps,
            "eval_steps": args.steps,
            "save_steps": 10**6,
            "difficulty": None,
        }
        table = config.rl.model_copy(update=update | ({"groups": args.groups} if args.groups else {}))
        config = config.model_copy(update={"held_out": held_out, "rl": table})
        with Run(config) as run, _disabled(without):
            stage = run.stage("rl", table)
            stage.directory.mkdir(parents=True, exist_ok=True)
            evaluation_times: list[float] = []
            drawing: list[float] = []
            with (
                patch("training.stages.grpo_stage.save_model"),
                patch("training.stages.stage.Stage.evaluate", _record_time(evaluation_times)),
                patch("training.trainer.grpo.Trainer.sample", _timed(Trainer.sample, drawing)),
            ):
                run_grpo(stage, args.start, stage.problems(table.max_steps * table.groups))
            whole = evaluation_times[-1] - evaluation_times[0]
            return Cost(sum(drawing) / args.steps, (whole - sum(drawing)) / args.steps)


def _record_time(times: list[float]) -> Any:
    """Return a replacement for the evaluations that records the processor time."""

    def accuracy(*_: Any) -> dict[str, float]:
        times.append(time.process_time())
        return {"accuracy": 0.0}

    return accuracy


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """Return the function, recording the processor time of every call."""

    def timed(*arguments: Any) -> Any:
        start = time.process_time()
        try:
            return function(*arguments)
        finally:
            seconds.append(time.process_time() - start)

    return timed


@contextmanager
def _disabled(names: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch(*SAVINGS[name]))
        yield


if __name__ == "__main__":
    main()
