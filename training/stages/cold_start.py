"""The cold start: fine-tuning on a teacher's verified chains of thought. With another model, distillation.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.1 (and 2.4 for distillation). The teacher is the problems'
own worked chains, an OpenAI-compatible endpoint (a gateway that votes among samples), or the model of the
stage before, such as R1-Zero. The start model learns. It imitates replies that the verifier finds right and
that pass the rules of `training.stages.reply_filter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.config import SftTable
from training.data.budgets import BudgetSampler
from training.data.mixing import general_count
from training.data.prompts import Example, Prompter
from training.data.readers import fingerprint
from training.stages.cache import TeacherReplyLog, digest
from training.stages.reply_filter import is_fit_to_imitate
from training.stages.sft_examples import correctness, general_examples
from training.stages.sft_stage import Collection, run_sft
from training.stages.stage import Stage
from training.stages.teachers import Replies, ask_endpoint
from training.stages.worked_examples import worked_examples
from training.trainer.generation import sample_completions
from training.trainer.untyped import Model
from training.types import Completion, Problem

__all__ = ["run", "teacher_examples"]


def run(stage: Stage[SftTable]) -> Path:
    """Collect the teacher's replies, verify them, and fine-tune on the correct ones."""
    problems = stage.problems(stage.table.problems)
    general = stage.general_problems(general_count(len(problems), stage.table.general))

    def collect(model: Model, prompter: Prompter) -> Collection:
        if stage.table.teacher == "worked":
            examples = worked_examples(stage.data, prompter, problems, general)
            return Collection(examples, [*problems, *general])
        teacher, before = model, stage.run.model_before("cold-start")
        if stage.table.teacher == "policy" and before is not None:
            teacher = stage.load(before)[0]
        examples, counts = teacher_examples(stage, teacher, prompter, problems)
        examples += general_examples(stage, model, prompter, general)
        return Collection(examples, [*problems, *general], counts)

    return run_sft(stage, stage.run.start_model(), problems, collect)


def teacher_examples(
    stage: Stage[SftTable], model: Model, prompter: Prompter, problems: Sequence[Problem]
) -> tuple[list[Example], Mapping[str, object]]:
    """Return a teacher's correct replies at each problem's budget, and counts of the others by reason."""
    table = stage.table
    sampler = BudgetSampler(table.budgets, stage.seed, stage.config.budgets)
    budgets = [sampler.level(problem, 0) for problem in problems]
    prompts = [prompter.prompt(problem, budget) for problem, budget in zip(problems, budgets, strict=True)]
    replies: Sequence[Replies]
    if table.teacher == "endpoint":
        replies = stage.group.gather(
            _endpoint_replies(stage, problems, budgets) if stage.group.rank == 0 else []
        )
    else:
        samples = sample_completions(
            model,
            prompter,
            prompts,
            samples=table.samples,
            temperature=table.temperature,
            max_tokens=table.max_tokens,
            seed=stage.seed,
        )
        replies = [
            [(completion.thinking, completion.answer) for completion in completions if completion.finished]
            for completions in samples
        ]
    is_correct = correctness(stage, problems)
    examples: list[Example] = []
    unanswered = sum(not answers for answers in replies)
    counts = {"asked": len(problems), "without a reply": unanswered, "wrong": 0, "unfit": 0}
    for problem, prompt, answers in zip(problems, prompts, replies, strict=True):
        values = is_correct(
            problem,
            [Completion("", (), thinking, answer, 0, True, prompt.budget) for thinking, answer in answers],
        )
        right = [reply for reply, value in zip(answers, values, strict=True) if value == 1.0]
        fit = [reply for reply in right if is_fit_to_imitate(problem, *reply, prompt.budget)]
        counts["wrong"] += len(answers) - len(right)
        counts["unfit"] += len(right) - len(fit)
        for thinking, answer in fit[: table.keep]:
            examples.append(Example(prompt, prompter.target(prompt, thinking, answer)))
    return examples, counts


def _endpoint_replies(
    stage: Stage[SftTable], problems: Sequence[Problem], budgets: Sequence[str | None]
) -> Sequence[Replies]:
    """Return an endpoint's replies, each of which is saved as it arrives."""
    table = stage.table
    teacher = (table.endpoint, table.endpoint_model, table.samples, table.temperature, table.max_tokens)
    log_digest = digest(teacher=teacher, rows=fingerprint(problems), asked=budgets)
    log = TeacherReplyLog(stage.directory / "asked.jsonl", log_digest)
    return ask_endpoint(table, problems, budgets, earlier=log.replies, save=log.add)
