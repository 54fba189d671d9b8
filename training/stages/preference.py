"""The preference reward model: Bradley-Terry on pairs of replies, from the policy's own weights.

Source: InstructGPT, arXiv:2203.02155, section 3.5. R1 uses one for what can't be verified (arXiv:2501.12948,
section 2.3.4). Some problems carry pairs, as recorded feedback does. For others a good reply is known or can
be checked. It is paired with a wrong reply of the policy, or, if the policy's are all correct, with a spoilt
copy of the good one.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from scorers.answers import verify
from scorers.grader.pool import WorkerPool
from training.config import RlTable
from training.data.instructions import PreferencePair, constraint_pairs
from training.data.problems import DataError
from training.data.prompts import Prompter
from training.data.readers import fingerprint
from training.rewards.preference import PreferenceModel
from training.stages.cache import digest
from training.stages.checkpoint_identity import model_identity
from training.stages.stage import Stage
from training.trainer.callbacks import replace_progress_bars
from training.trainer.generation import sample_completions
from training.trainer.models import classifier_of, device
from training.trainer.untyped import HFTokenizer, Model
from training.types import Problem

__all__ = ["preference_model", "preference_pairs"]

_SAMPLES = 4
_EPOCHS = 3
_BATCH = 32
_LEARNING_RATE = 3e-4
_DIGEST_FILE = "bound.txt"
"""Beside the weights: the digest of what they came from. It is written last."""


def preference_model(
    stage: Stage[RlTable], start: Path | None, problems: Sequence[Problem]
) -> tuple[PreferenceModel, float]:
    """Return the model and its mean score of good replies, after training it if it is missing."""
    directory = stage.directory / "preference"
    policy, tokenizer, prompter = stage.load(start)
    expected_digest = digest(seed=stage.seed, model=model_identity(stage, start), rows=fingerprint(problems))
    if not stage.group.gather([_is_trained(directory, expected_digest)])[0]:
        pairs = preference_pairs(policy, prompter, problems, stage.seed, stage.run.pool)
        if not pairs:
            raise DataError(
                "the preference model has nothing to compare: no general problem has an answer, checks or "
                "ratings"
            )
        partial = directory.with_name("preference.part")
        _train(stage, policy, tokenizer, _encode_pairs(prompter, pairs), partial)
        if stage.group.rank == 0:
            (partial / _DIGEST_FILE).write_text(expected_digest, encoding="utf-8")
            shutil.rmtree(directory, ignore_errors=True)
            partial.replace(directory)
        stage.group.wait()
    del policy
    model = _TrainedModel(directory, tokenizer, prompter)
    good = [(problem.question, reply) for problem in problems for reply in _good_replies(problem)][:64]
    scores = model([question for question, _ in good], [reply for _, reply in good])
    return model, sum(scores) / len(scores) if scores else 0.0


def preference_pairs(
    policy: Model, prompter: Prompter, problems: Sequence[Problem], seed: int, pool: WorkerPool | None = None
) -> list[PreferencePair]:
    """Return the problems' own pairs, up to two a problem with checks, and one a problem with an answer."""
    unpaired = [
        problem for problem in problems if not problem.pairs and (problem.checks or "answer" in problem.extra)
    ]
    prompts = [prompter.prompt(problem, None) for problem in unpaired]
    samples = sample_completions(policy, prompter, prompts, samples=_SAMPLES, max_tokens=64, seed=seed)
    rng = random.Random(f"pairs {seed}")
    pairs = [
        PreferencePair(problem, chosen, rejected)
        for problem in problems
        for chosen, rejected in problem.pairs
    ]
    for problem, completions in zip(unpaired, samples, strict=True):
        answers = [completion.answer for completion in completions]
        if problem.checks:
            pairs += constraint_pairs(problem, answers, 2, seed)
        else:
            good = problem.extra["answer"]
            wrong = [
                answer for answer in answers if answer.strip() and verify(answer, good, pool) is not True
            ]
            pairs.append(PreferencePair(problem, good, wrong[0] if wrong else _spoilt(good, rng)))
    return pairs


def _encode_pairs(prompter: Prompter, pairs: Sequence[PreferencePair]) -> list[dict[str, list[int]]]:
    """Return pairs as token ids, in the columns of TRL's trainer."""
    encoded = []
    for pair in pairs:
        prompt = prompter.prompt(pair.problem, None)
        sides = {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        encoded.append(
            {name: [*prompt.ids, *prompter.target(prompt, "", text)] for name, text in sides.items()}
        )
    return encoded


def _is_trained(directory: Path, expected_digest: str) -> bool:
    """Return whether the directory holds the model of these problems and this policy."""
    saved = directory / _DIGEST_FILE
    return saved.exists() and saved.read_text(encoding="utf-8") == expected_digest


def _good_replies(problem: Problem) -> list[str]:
    """Return a problem's replies that are known to be good."""
    answers = [problem.extra["answer"]] if "answer" in problem.extra else []
    return [chosen for chosen, _ in problem.pairs] or answers


def _spoilt(text: str, rng: random.Random) -> str:
    """Return the text with one word doubled or dropped."""
    words = text.split()
    index = rng.randrange(len(words))
    if len(words) == 1 or rng.random() < 0.5:
        return " ".join([*words[: index + 1], *words[index:]])
    return " ".join([*words[:index], *words[index + 1 :]])


def _train(
    stage: Stage[RlTable],
    policy: Model,
    tokenizer: HFTokenizer,
    pairs: Sequence[dict[str, list[int]]],
    directory: Path,
) -> None:
    """Train a scalar head and all weights below it, which begin as the policy's. The policy is used up."""
    model = classifier_of(policy)
    model.config.pad_token_id = tokenizer.pad_token_id
    cpu = model.device.type == "cpu"
    settings = RewardConfig(
        output_dir=str(directory / "checkpoints"),
        num_train_epochs=_EPOCHS,
        per_device_train_batch_size=max(1, _BATCH // stage.group.world_size),
        learning_rate=_LEARNING_RATE,
        weight_decay=0.0,
        save_strategy="no",
        seed=stage.seed,
        use_cpu=cpu,
        bf16=not cpu,
        gradient_checkpointing=False,
        max_length=None,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not cpu,
    )
    trainer = RewardTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(list(pairs)), processing_class=tokenizer
    )
    replace_progress_bars(trainer)
    trainer.train()
    if stage.group.rank == 0:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


class _TrainedModel:
    """The trained model as a `training.rewards.preference.PreferenceModel`."""

    def __init__(self, directory: Path, tokenizer: HFTokenizer, prompter: Prompter) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(directory)
        self._model = model.to(device()).eval()
        self._pad = tokenizer.pad_token_id
        self._prompter = prompter

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Return one score for each pair of question and answer."""
        if not questions:
            return []
        sequences = []
        for question, answer in zip(questions, answers, strict=True):
            prompt = self._prompter.prompt(Problem("", question), None)
            sequences.append([*prompt.ids, *self._prompter.target(prompt, "", answer)])
        width = max(map(len, sequences))
        padding = [width - len(ids) for ids in sequences]
        model_device = self._model.device
        ids = torch.tensor(
            [ids + [self._pad] * pads for ids, pads in zip(sequences, padding, strict=True)],
            device=model_device,
        )
        mask = torch.tensor([[1] * (width - pads) + [0] * pads for pads in padding], device=model_device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        scores: list[float] = logits[:, 0].tolist()
        return scores
