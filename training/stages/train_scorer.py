"""`thinkgate train scorer`: ways of making a scorer, in order, until one passes its gate.

Generative recomputation first, then a classifier on the policy's own weights, one on a stronger backbone,
that with more and harder negatives, and that with labels for every step. Each is calibrated on validation
questions and judged on the run's held-out ones; those that fail are reported too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from scorers.calibration import read_calibration
from scorers.gate import GATE_FILE, Gate, model_digest, write_gate
from training.config import ScorerTable, TrainConfig, Try
from training.data.budgets import BudgetSampler
from training.data.contamination import clean
from training.data.problems import DataError
from training.data.readers import fingerprint
from training.data.sources import collect
from training.scorer.classifier import classification_template, classify, train_classifier, write_calibration
from training.scorer.gate import GateThresholds, check_gate
from training.scorer.labels import labelled_texts, with_hard_negatives
from training.scorer.report import results_table
from training.scorer.samples import (
    LabelledProblem,
    draw_labelled,
    gate_problem,
    read_labelled,
    write_labelled,
)
from training.stages.run import Run, Stage
from training.stages.train_judge import Manner, judged, train_judge
from training.trainer.generation import draw
from training.types import Problem

__all__ = ["train_scorer"]

Scores = Sequence[Sequence[float | None]]
Scoring = Callable[[Sequence[LabelledProblem]], Scores]


@dataclass(frozen=True)
class _Samples:
    """The policy's samples: to learn from, to calibrate by, to be judged by."""

    train: list[LabelledProblem]
    validation: list[LabelledProblem]
    test: list[LabelledProblem]


def train_scorer(config: TrainConfig) -> int:
    """Makes the tries; the exit status is 0 where one passed, else 1.

    Everything lies under the run's `scorer/`: samples, models with their gates, `results.json` and
    `results.md`. A try that is done is not made again.
    """
    if config.scorer is None:
        raise DataError("there is no table [scorer]")
    with Run(config) as run:
        return _tries(run.stage("scorer"), config.scorer)


def _tries(stage: Stage, table: ScorerTable) -> int:
    samples, policy = _samples(stage)
    passed: Path | None = None
    results = []
    for name in table.tries:
        made = stage.directory / name / "result.json"
        if made.exists():
            result = json.loads(made.read_text(encoding="utf-8"))
        else:
            result = _attempt(stage, name, samples, policy)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        results.append(result)
        _report(stage, samples, results)
        print(f"scorer: {name}: {'passed' if result['passed'] else 'failed'} its gate", flush=True)
        if result["passed"]:
            passed = passed or Path(result["model"])
            if not table.every_try:
                break
    print(f"The scorer is in {passed}." if passed else "No scorer passed its gate.", flush=True)
    return 0 if passed else 1


def _samples(stage: Stage) -> tuple[_Samples, Path]:
    """Draws what isn't there yet; and the directory of the policy."""
    table, held = stage.table, stage.config.held_out
    policy = _policy(stage)
    test = stage.held_out()
    rows = _fresh(stage, table.problems + table.validation, stage.seed)
    validation, train = rows[: table.validation], rows[table.validation :]
    levels = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    found: dict[str, list[LabelledProblem]] = {}
    for number, (name, part) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        path = stage.directory / f"{name}.jsonl"
        if not path.exists():
            model, _, prompter = stage.load(policy)
            drawing = partial(
                draw, model, prompter,
                samples=table.samples, temperature=table.temperature,
                max_tokens=held.max_tokens, seed=stage.seed + number,
            )  # fmt: skip
            budgets = [levels.level(row, 0) if name == "train" else held.budget for row in part]
            write_labelled(path, draw_labelled(drawing, prompter, part, budgets, stage.run.pool))
        found[name] = read_labelled(path)
        right = [reply.correct for each in found[name] for reply in each.samples]
        print(f"scorer: {name}: {len(right)} samples, {sum(right) / len(right):.1%} right", flush=True)
    return _Samples(**found), policy


def _policy(stage: Stage) -> Path:
    named = stage.table.policy
    last = stage.run.model_before("scorer")
    if named is None and last is None:
        raise DataError("no stage of this run is done: scorer.policy names a model's directory")
    if named is None:
        return last or Path()
    own = stage.run.directory / named / "model"
    return own if own.exists() else Path(named)


def _fresh(stage: Stage, count: int, seed: int, without: Sequence[Problem] = ()) -> list[Problem]:
    """Questions that overlap with none of these, nor with any that is kept apart."""
    kept = [*stage.data.kept_apart(), *without]
    return clean(collect(stage.config.data, count, seed, without=[row.question for row in kept]), kept)


def _attempt(stage: Stage, name: Try, samples: _Samples, policy: Path) -> dict[str, Any]:
    """Trains, calibrates and judges one; its gate lies beside its weights."""
    began = time.monotonic()
    if name == "generative":
        directory, told, scoring = _generative(stage, samples, policy)
    else:
        directory, told, scoring = _classifier(stage, name, samples, policy)
    trained = time.monotonic() - began
    pairs = [
        (score, reply.correct)
        for each, scores in zip(samples.validation, scoring(samples.validation), strict=True)
        for reply, score in zip(each.samples, scores, strict=True)
        if score is not None
    ]
    write_calibration(directory, [score for score, _ in pairs], [correct for _, correct in pairs])
    calibration = read_calibration(directory / "calibration.json")
    problems = [
        gate_problem(
            each, [None if score is None else calibration(score) for score in scores], stage.run.pool
        )
        for each, scores in zip(samples.test, scoring(samples.test), strict=True)
    ]
    table = stage.table
    rule = GateThresholds(
        auc=table.auc,
        error=table.error,
        sizes=tuple(2**power for power in range(table.samples.bit_length())),
        confidence=1 - 0.05 / len(table.tries),  # Bonferroni: the tries share their held-out questions
        seed=stage.config.seed,
    )
    if not any(each.correct for each in problems):
        raise DataError("the scorer can't be judged: no held-out question has a reply that can vote")
    checks, figures = check_gate(problems, rule)
    rows = [each.problem for each in samples.test]
    data = {
        "problems": len(rows),
        "sha256": fingerprint(rows),
        "samples": table.samples,
        "policy": str(policy),
    }
    gate = Gate(checks, datetime.now(UTC).isoformat(timespec="seconds"), model_digest(directory), data)
    write_gate(directory / GATE_FILE, gate)
    return {
        "name": name,
        "passed": gate.passed,
        "model": str(directory),
        "seconds": round(trained, 1),
        **figures,
        "checks": [asdict(check) for check in checks],
        "training": told,
    }


def _generative(stage: Stage, samples: _Samples, policy: Path) -> tuple[Path, dict[str, Any], Scoring]:
    table = stage.table
    rows = _fresh(stage, table.checks.rows, stage.seed + 1, [each.problem for each in samples.validation])
    start = policy if table.start is None else Path(table.start)
    directory, told = train_judge(stage, start, rows, samples.train, samples.validation)
    settings = {
        "kind": "judge",
        "method": "check",
        "model": directory.name,
        "question": table.question,
        "effort": stage.config.held_out.budget,
        "rounds": table.rounds,
        "max_tokens": _served_tokens(stage.config.held_out.max_tokens),
        "gate": str(directory / GATE_FILE),
        "calibration": str(directory / "calibration.json"),
    }
    _tell_serving(directory, settings, '# url = "http://judge:8000/v1"   where it has a server of its own')
    held = stage.config.held_out
    manner = Manner(table.question, held.budget, table.rounds, held.max_tokens)

    def scoring(asked: Sequence[LabelledProblem]) -> Scores:
        answers = [[reply.answer for reply in each.samples] for each in asked]
        return judged(stage, directory, manner, [each.problem for each in asked], answers)

    return directory, told, scoring


def _classifier(
    stage: Stage, name: Try, samples: _Samples, policy: Path
) -> tuple[Path, dict[str, Any], Scoring]:
    """Each of these tries takes over what the one before it added."""
    table = stage.table
    backbone = policy if name == "classifier" else _backbone(stage)
    _, tokenizer, prompter = stage.load(backbone)
    template = classification_template(prompter)
    hard = name in ("negatives", "steps")
    train = labelled_texts(
        template,
        with_hard_negatives(samples.train, stage.seed, stage.run.pool) if hard else samples.train,
        steps=name == "steps",
    )
    directory = stage.directory / name / "model"
    told = train_classifier(
        backbone,
        tokenizer,
        train,
        labelled_texts(template, samples.validation),
        table=table.classifier,
        directory=directory,
        seed=stage.seed,
    )
    _tell_serving(directory, {"kind": "trained", "directory": str(directory), "template": template})

    def scoring(asked: Sequence[LabelledProblem]) -> Scores:
        found = iter(classify(directory, template, [case for each in asked for case in each.cases()]))
        return [[next(found) for _ in each.samples] for each in asked]

    return directory, {"backbone": str(backbone), **told}, scoring


def _served_tokens(most: int) -> int:
    """With how many tokens the gateway lets the judge think with as many as it had at the gate.

    It keeps up to half of a reply for the answer, but no more than its `answer_reserve`, 1,024 by default.
    """
    return most + min(most, 1024)


def _tell_serving(directory: Path, settings: Mapping[str, str | int | None], *more: str) -> None:
    """Writes the table that the gateway's settings need to serve this scorer, beside its weights."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not None]
    text = "\n".join(["[scorers.trained]", *lines, *more])
    (directory / "serving.toml").write_text(f"{text}\n", encoding="utf-8")


def _backbone(stage: Stage) -> Path:
    if stage.table.backbone is not None:
        return Path(stage.table.backbone)
    made = stage.directory / "generative" / "result.json"
    if not made.exists():
        raise DataError("the stronger backbone is the generative judge, and that try has not been made")
    return Path(json.loads(made.read_text(encoding="utf-8"))["model"])


def _report(stage: Stage, samples: _Samples, results: Sequence[Mapping[str, Any]]) -> None:
    told = {
        "run": stage.config.name,
        "samples": {
            name: {
                "questions": len(part),
                "replies": sum(len(each.samples) for each in part),
                "right": round(
                    sum(r.correct for e in part for r in e.samples) / sum(len(e.samples) for e in part), 4
                ),
            }
            for name, part in vars(samples).items()
        },
        "tries": list(results),
        "settings": json.loads(stage.table.model_dump_json()),
    }
    (stage.directory / "results.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (stage.directory / "results.md").write_text(results_table(results), encoding="utf-8")
