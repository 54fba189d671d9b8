"""What a step of RL costs on a CPU, and what each saving takes off it, in turns in one process.

    python -m benchmarks.rl_step training/configs/tiny.toml --start runs/tiny/seed-0/cold-start/model

The same steps, from the same model on the same questions, are made with all savings, without each, and
without any; every round goes through the variants in the other direction. Figures are processor seconds
a step, medians over the rounds. The savings change no reply and no gradient: see their tests.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

SAVINGS = {
    "each prompt is read once": ("training.trainer.drawing._read_once", lambda *_: None),
    "what has ended is written no further": ("training.trainer.drawing._STRETCH", 10**9),
    "drawing has torch's own attention": (
        "training.trainer.drawing._fused_attention",
        lambda _: nullcontext(),
    ),
    "only replies are scored": ("training.trainer.grpo.replies_alone", nullcontext),
    "each prompt is passed once": ("training.trainer.grpo.packed", lambda *_: None),
    "only what teaches is passed": ("training.trainer.grpo.taught_only", lambda inputs: inputs),
}
"""Each saving, and what stands in its place without it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--start", type=Path, help="the model's directory (the run's own)")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    variants = {"all savings": ()} | {f"not: {name}": (name,) for name in SAVINGS} | {"none": tuple(SAVINGS)}
    found: dict[str, list[float]] = {name: [] for name in variants}
    _seconds(chosen, ())  # the first is slower: files are read, memory is taken
    for repeat in range(chosen.repeat):
        for name, without in list(variants.items())[:: -1 if repeat % 2 else 1]:
            found[name].append(_seconds(chosen, without))
            print(f"{name}: {found[name][-1]:.2f} s a step", flush=True)
    seconds = {name: median(each) for name, each in found.items()}
    ratios = {name: median(a / b for a, b in zip(each, found["all savings"], strict=True))
              for name, each in found.items()}  # fmt: skip
    print("\n".join(f"{name:40} {seconds[name]:8.2f} s {ratios[name]:6.2f}" for name in variants))
    if chosen.json is not None:
        figures = {name: {"seconds": round(seconds[name], 3), "ratio": round(ratios[name], 3)}
                   for name in variants}  # fmt: skip
        told = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
        told[chosen.config.stem] = {"steps": chosen.steps, "repeat": chosen.repeat, "variants": figures}
        chosen.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _seconds(chosen: argparse.Namespace, without: Sequence[str]) -> float:
    """Processor seconds a step, the evaluations at both ends left out."""
    from training.config import read_config
    from training.stages.reinforce import reinforce
    from training.stages.run import Run

    with tempfile.TemporaryDirectory() as folder:
        config = read_config(chosen.config, output=Path(folder), threads=1)
        held = config.held_out.model_copy(update={"count": 1})
        table = config.rl.model_copy(
            update={"steps": chosen.steps, "every": chosen.steps, "save_every": 10**6, "difficulty": None}
        )
        config = config.model_copy(update={"held_out": held, "rl": table})
        with Run(config) as run, _left_out(without):
            stage = run.stage("rl")
            stage.directory.mkdir(parents=True, exist_ok=True)
            spent: list[float] = []
            nothing = patch("training.stages.reinforce.save_model")
            with nothing, patch("training.stages.run.Stage.accuracy", _instant(spent)):
                reinforce(stage, chosen.start, stage.rows(table.steps * table.groups))
            return (spent[-1] - spent[0]) / chosen.steps


def _instant(spent: list[float]) -> Any:
    """In place of the evaluations: notes the processor time."""

    def accuracy(*_: Any) -> dict[str, float]:
        spent.append(time.process_time())
        return {"accuracy": 0.0}

    return accuracy


@contextmanager
def _left_out(names: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch(*SAVINGS[name]))
        yield


if __name__ == "__main__":
    main()
