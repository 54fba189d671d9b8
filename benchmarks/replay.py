"""Votes and stopping rules over published samples, replayed with the code that serves.

    python -m benchmarks.replay convert qwen qwen_math_rm_samples.jsonl.gz qwen.jsonl
    thinkgate replay qwen.jsonl
    python -m benchmarks.replay measure FOLDER benchmarks/results/replay.json

`convert` writes the form that `thinkgate replay` reads. `measure` replays all sources in the folder,
and grades without the algebra workers. The sources are not part of this project:

- qwen_math_rm_samples.jsonl.gz: Qwen2.5-Math's evaluation samples with its reward model's
  logits, 100 problems x 8 (QwenLM/Qwen2.5-Math, MIT). Their answers and labels are taken over.
- reasoning_gym_samples.jsonl.gz: replies of five models to reasoning-gym's tasks
  (open-thought/reasoning-gym-eval, Apache-2.0). Their grader reads the tag only. So a sample
  that they call correct is correct, and this project's grader decides on the others.
- gsm8k_model_solutions.jsonl.gz: four GPT-3 solutions to each GSM8K test problem, by four
  different models (openai/grade-school-math, MIT). Their labels are taken over.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.commands.replay import compare
from gateway.recordings.grading import grade_recording
from policies.escalation import AutoPolicy, Tier
from policies.recordings import parse_recording
from policies.replay import GradedQuestion, ReplayMetrics, ReplaySetting, replay
from policies.types import SamplingRequest
from scorers.confidence import ConfidenceScorer

Row = dict[str, Any]

GPT3 = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def qwen(row: Row) -> Row:
    samples = [
        {"text": text, "answer": answer or None, "correct": right, "score": logit[0]}
        for text, answer, right, logit in zip(
            row["code"], row["pred"], row["score"], row["pred_score"], strict=True
        )
    ]
    return {"question": row["question"], "answer": row["answer"], "samples": samples}


def gsm8k(row: Row) -> Row:
    samples = [{"text": row[name]["solution"], "correct": row[name]["is_correct"]} for name in GPT3]
    return {"question": row["question"], "answer": row["ground_truth"], "samples": samples}


def gym(*models: str, effort: dict[str, str] | None = None) -> Callable[[Row], Row]:
    """Return a converter that takes these models' samples; `effort` gives the level of each model."""

    def convert(row: Row) -> Row:
        samples = [
            {
                "text": sample["text"],
                **({"effort": effort[sample["model"]]} if effort else {}),
                **({"correct": True} if sample["score"] == 1.0 else {}),
            }
            for sample in row["samples"]
            if sample["model"] in models
        ]
        return {"question": row["question"], "answer": row["answer"], "samples": samples}

    return convert


GYM = ("llama-3.3-70b", "gemma-3-27b", "mistral-small-3.1-24b", "qwq-32b")
SOURCES: dict[str, tuple[str, Callable[[Row], Row]]] = {
    "qwen": ("qwen_math_rm_samples.jsonl.gz", qwen),
    "gsm8k": ("gsm8k_model_solutions.jsonl.gz", gsm8k),
    **{f"gym-{model}": ("reasoning_gym_samples.jsonl.gz", gym(model)) for model in GYM},
    "gym-all": ("reasoning_gym_samples.jsonl.gz", gym(*GYM, "llama-4-scout")),
}


def converted(path: Path, convert: Callable[[Row], Row]) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.dumps(convert(json.loads(line)))


def rows(metrics: Iterable[ReplayMetrics], *, tokens: bool = True) -> list[Row]:
    """Return the rows to commit; without tokens where they would miss a thinking that was not recorded."""
    table = [{k: v if k == "name" else round(v, 2) for k, v in asdict(m).items()} for m in metrics]
    return table if tokens else [{k: v for k, v in row.items() if k != "tokens"} for row in table]


def read(folder: Path, name: str) -> list[GradedQuestion]:
    file, convert = SOURCES[name]
    return grade_recording(parse_recording(converted(folder / file, convert)), ConfidenceScorer())


def escalation(folder: Path) -> list[ReplayMetrics]:
    """Replay three samples of a model that hardly thinks, and up to three of a thinker in case of doubt."""
    weak, strong = "llama-3.3-70b", "qwq-32b"
    convert = gym(weak, strong, effort={weak: "low", strong: "high"})
    recording = parse_recording(converted(folder / SOURCES["gym-all"][0], convert))
    both = grade_recording(recording, ConfidenceScorer())
    tiers = (Tier("low", 3), Tier("high"))
    auto = ReplaySetting(
        f"auto: {weak}, then {strong}", SamplingRequest(level="auto", samples=6), AutoPolicy(tiers)
    )
    everything = ReplaySetting("majority over both", SamplingRequest(samples=6, stop="none"))
    alone = {
        f"{model}, majority@{k}": (model, SamplingRequest(samples=k, stop="none"))
        for model, k in ((weak, 1), (weak, 3), (strong, 1), (strong, 3))
    }
    return [
        *(
            metrics
            for name, (model, sampling) in alone.items()
            for metrics in replay(read(folder, f"gym-{model}"), [ReplaySetting(name, sampling)])
        ),
        *replay(both, [everything, auto]),
    ]


def measure(folder: Path) -> Row:
    results: Row = {}
    for name in SOURCES:
        questions = read(folder, name)
        combinations = [
            ("majority", "auto"),
            ("majority", "first-3"),
            ("weighted", "adaptive"),
            ("borda", "none"),
        ]
        if all(sample.score is None for question in questions for sample in question.samples):
            combinations = combinations[:2]
        tokens = name not in {"gym-qwq-32b", "gym-all"}
        results[name] = {
            "questions": len(questions),
            "shuffled": rows(compare(questions, combinations), tokens=tokens),
            "as recorded": rows(compare(questions, combinations, shuffles=0), tokens=tokens),
        }
    results["escalation"] = {"shuffled": rows(escalation(folder), tokens=False)}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("convert", help="write one source in the form that replay reads")
    one.add_argument("name", choices=sorted(SOURCES))
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    every = commands.add_parser("measure", help="replay every source and write the results")
    every.add_argument("folder", type=Path)
    every.add_argument("target", type=Path)
    args = parser.parse_args()
    if args.command == "convert":
        lines = converted(args.source, SOURCES[args.name][1])
        args.target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        args.target.parent.mkdir(parents=True, exist_ok=True)
        args.target.write_text(json.dumps(measure(args.folder), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
