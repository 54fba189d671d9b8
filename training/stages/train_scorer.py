"""`thinkgate train scorer`: ways to make a scorer, tried in order until one passes its gate.

The tries are a generative judge, a classifier on the policy's own weights, one on a stronger backbone, that
with more and harder negatives, and that with labels for every step. Each is calibrated on validation problems
and judged on the run's held-out ones. The report lists failed tries too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

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
from training.stages.stage import Run, Stage
from training.stages.train_judge import JudgePrompting, judge_answers, train_judge
from training.trainer.generation import sample_completions
from training.types import Problem

__all__ = ["train_scorer"]

Scores = Sequence[Sequence[float | None]]
Score = Callable[[Sequence[LabelledProblem]], Scores]


@dataclass(frozen=True)
class _Samples:
    """The policy's samples: to train on, to calibrate by, and to test with."""

    train: list[LabelledProblem]
    validation: list[LabelledProblem]
    test: list[LabelledProblem]


@dataclass(frozen=True)
class _TrainedTry:
    """A try's model, its scores, and metrics of its training."""

    directory: Path
    score: Score
    metrics: Mapping[str, object]


def train_scorer(config: TrainConfig) -> int:
    """Make the tries. The exit status is 0 if one passed, else 1.

    Everything lies under the run's `scorer/`: samples, models with their gates, `results.json` and
    `results.md`. A finished try is not repeated.
    """
    if config.scorer is None:
        raise DataError("there is no table [scorer]")
    with Run(config) as run:
        return _make_tries(run.stage("scorer", config.scorer))


def _make_tries(stage: Stage[ScorerTable]) -> int:
    table = stage.table
    samples, policy = _samples(stage)
    passed: Path | None = None
    results = []
    for name in table.tries:
        path = stage.directory / name / "result.json"
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
        else:
            result = _make_try(stage, name, samples, policy)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        results.append(result)
        _write_report(stage, samples, results)
        print(f"scorer: {name}: {'passed' if result['passed'] else 'failed'} its gate", flush=True)
        if result["passed"]:
            passed = passed or Path(result["model"])
            if not table.all_tries:
                break
    print(f"The scorer is in {passed}." if passed else "No scorer passed its gate.", flush=True)
    return 0 if passed else 1


def _samples(stage: Stage[ScorerTable]) -> tuple[_Samples, Path]:
    """Return the policy's samples and its directory; draw the samples that don't exist yet."""
    table, held_out = stage.table, stage.config.held_out
    policy = _policy(stage)
    test = stage.held_out()
    problems = _new_problems(stage, table.problems + table.validation, stage.seed)
    validation, train = problems[: table.validation], problems[table.validation :]
    levels = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    samples: dict[str, list[LabelledProblem]] = {}
    for number, (name, part) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        path = stage.directory / f"{name}.jsonl"
        if not path.exists():
            model, _, prompter = stage.load(policy)
            sample = partial(
                sample_completions, model, prompter,
                samples=table.samples, temperature=table.temperature,
                max_tokens=held_out.max_tokens, seed=stage.seed + number,
            )  # fmt: skip
            budgets = [levels.level(item, 0) if name == "train" else held_out.budget for item in part]
            write_labelled(path, draw_labelled(sample, prompter, part, budgets, stage.run.pool))
        samples[name] = read_labelled(path)
        correct = [reply.correct for labelled in samples[name] for reply in labelled.samples]
        share = sum(correct) / len(correct)
        print(f"scorer: {name}: {len(correct)} samples, {share:.1%} right", flush=True)
    return _Samples(**samples), policy


def _policy(stage: Stage[ScorerTable]) -> Path:
    """Return the directory of the policy's model. Raises DataError if there is none."""
    name = stage.table.policy
    last = stage.run.model_before("scorer")
    if name is None:
        if last is None:
            raise DataError("no stage of this run is finished: set scorer.policy to a model's directory")
        return last
    stage_model = stage.run.directory / name / "model"
    return stage_model if stage_model.exists() else Path(name)


def _new_problems(
    stage: Stage[ScorerTable], count: int, seed: int, without: Sequence[Problem] = ()
) -> list[Problem]:
    """Return problems that overlap with none of these, nor with any that the run excludes."""
    excluded = [*stage.data.excluded(), *without]
    questions = [other.question for other in excluded]
    return clean(collect(stage.config.data, count, seed, without=questions), excluded)


def _make_try(stage: Stage[ScorerTable], name: Try, samples: _Samples, policy: Path) -> dict[str, object]:
    """Train, calibrate and judge one scorer, write its gate beside its weights, and return the result."""
    start = time.monotonic()
    if name == "generative":
        trained = _train_generative(stage, samples, policy)
    else:
        trained = _train_classifier(stage, name, samples, policy)
    seconds = time.monotonic() - start
    directory = trained.directory
    pairs = [
        (score, reply.correct)
        for labelled, scores in zip(samples.validation, trained.score(samples.validation), strict=True)
        for reply, score in zip(labelled.samples, scores, strict=True)
        if score is not None
    ]
    write_calibration(directory, [score for score, _ in pairs], [correct for _, correct in pairs])
    calibration = read_calibration(directory / "calibration.json")
    test = [
        gate_problem(
            labelled, [None if score is None else calibration(score) for score in scores], stage.run.pool
        )
        for labelled, scores in zip(samples.test, trained.score(samples.test), strict=True)
    ]
    table = stage.table
    rule = GateThresholds(
        auc=table.min_auc,
        error=table.max_calibration_error,
        sizes=tuple(2**power for power in range(table.samples.bit_length())),
        confidence=1 - 0.05 / len(table.tries),  # Bonferroni: the tries share their held-out questions
        seed=stage.config.seed,
    )
    if not any(sampled.correct for sampled in test):
        raise DataError("the scorer can't be judged: no held-out question has a reply that can vote")
    checks, metrics = check_gate(test, rule)
    problems = [labelled.problem for labelled in samples.test]
    data = {
        "problems": len(problems),
        "sha256": fingerprint(problems),
        "samples": table.samples,
        "policy": str(policy),
    }
    gate = Gate(checks, datetime.now(UTC).isoformat(timespec="seconds"), model_digest(directory), data)
    write_gate(directory / GATE_FILE, gate)
    return {
        "name": name,
        "passed": gate.passed,
        "model": str(directory),
        "seconds": round(seconds, 1),
        **metrics,
        "checks": [asdict(check) for check in checks],
        "training": trained.metrics,
    }


def _train_generative(stage: Stage[ScorerTable], samples: _Samples, policy: Path) -> _TrainedTry:
    table, held_out = stage.table, stage.config.held_out
    if table.checks is None:
        raise DataError("the generative try needs a table [scorer.checks]")
    validation = [labelled.problem for labelled in samples.validation]
    problems = _new_problems(stage, table.checks.problems, stage.seed + 1, validation)
    start = policy if table.start is None else Path(table.start)
    directory, metrics = train_judge(
        stage, table.checks, start, problems, train=samples.train, validation=samples.validation
    )
    settings: dict[str, str | int] = {
        "kind": "judge",
        "method": "check",
        "model": directory.name,
        "question": table.question,
        "budget": held_out.budget,
        "rounds": table.rounds,
        "max_tokens": _served_tokens(held_out.max_tokens),
        "gate": str(directory / GATE_FILE),
        "calibration": str(directory / "calibration.json"),
    }
    _write_serving(directory, settings, '# url = "http://judge:8000/v1"   if it has a server of its own')
    prompting = JudgePrompting(table.question, held_out.budget, table.rounds, held_out.max_tokens)

    def score(samples: Sequence[LabelledProblem]) -> Scores:
        answers = [[reply.answer for reply in labelled.samples] for labelled in samples]
        return judge_answers(stage, directory, prompting, [labelled.problem for labelled in samples], answers)

    return _TrainedTry(directory, score, metrics)


def _train_classifier(stage: Stage[ScorerTable], name: Try, samples: _Samples, policy: Path) -> _TrainedTry:
    """Train a classifier; each of these tries keeps what the one before it added."""
    table = stage.table
    backbone = policy if name == "classifier" else _backbone(stage)
    _, tokenizer, prompter = stage.load(backbone)
    template = classification_template(prompter)
    train = samples.train
    if name in ("negatives", "steps"):
        train = with_hard_negatives(samples.train, stage.seed, stage.run.pool)
    directory = stage.directory / name / "model"
    metrics = train_classifier(
        backbone,
        tokenizer,
        labelled_texts(template, train, steps=name == "steps"),
        labelled_texts(template, samples.validation),
        table=table.classifier,
        directory=directory,
        seed=stage.seed,
    )
    _write_serving(directory, {"kind": "trained", "directory": str(directory), "template": template})

    def score(samples: Sequence[LabelledProblem]) -> Scores:
        cases = [case for labelled in samples for case in labelled.cases()]
        values = iter(classify(directory, template, cases))
        return [[next(values) for _ in labelled.samples] for labelled in samples]

    return _TrainedTry(directory, score, {"backbone": str(backbone), **metrics})


def _served_tokens(thinking_limit: int) -> int:
    """Return the `max_tokens` with which the gateway lets the judge think as long as at its gate.

    The gateway reserves up to half of a reply for the answer, but no more than its `answer_reserve`, 1,024
    tokens by default.
    """
    return thinking_limit + min(thinking_limit, 1024)


def _write_serving(directory: Path, settings: Mapping[str, str | int], *more: str) -> None:
    """Write the table that the gateway's settings need to serve this scorer, beside its weights."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = "\n".join(["[scorers.trained]", *lines, *more])
    (directory / "serving.toml").write_text(f"{text}\n", encoding="utf-8")


def _backbone(stage: Stage[ScorerTable]) -> Path:
    """Return the stronger backbone's directory. Raises DataError if there is none."""
    if stage.table.backbone is not None:
        return Path(stage.table.backbone)
    result = stage.directory / "generative" / "result.json"
    if not result.exists():
        raise DataError("the stronger backbone is the generative judge, and that try has not been made")
    return Path(json.loads(result.read_text(encoding="utf-8"))["model"])


def _write_report(
    stage: Stage[ScorerTable], samples: _Samples, results: Sequence[Mapping[str, object]]
) -> None:
    report = {
        "run": stage.config.name,
        "samples": {name: _summary(part) for name, part in vars(samples).items()},
        "tries": list(results),
        "settings": json.loads(stage.table.model_dump_json()),
    }
    (stage.directory / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (stage.directory / "results.md").write_text(results_table(results), encoding="utf-8")


def _summary(samples: Sequence[LabelledProblem]) -> dict[str, float]:
    correct = [reply.correct for labelled in samples for reply in labelled.samples]
    return {
        "questions": len(samples),
        "replies": len(correct),
        "right": round(sum(correct) / len(correct), 4),
    }
