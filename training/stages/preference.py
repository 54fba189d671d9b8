"""The preference reward model: Bradley-Terry on pairs of replies, from the policy's own weights.

Source: InstructGPT, arXiv:2203.02155, section 3.5; R1 uses one for what can't be verified
(arXiv:2501.12948, section 2.3.4). Pairs come from rows that carry some, as recorded feedback
does, and from rows whose good replies are known or can be checked: a good one against what the policy
itself gets wrong, or, where it gets all right, against the good one spoilt.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from scorers.answers import verify
from scorers.grader.pool import WorkerPool
from training.data.instructions import PreferencePair, constraint_pairs
from training.data.problems import DataError
from training.data.prompts import Prompter
from training.data.readers import fingerprint
from training.rewards.preference import PreferenceModel
from training.stages.collected import binding
from training.stages.fingerprints import model_bound
from training.stages.run import Stage
from training.trainer.callbacks import quieten
from training.trainer.generation import draw
from training.trainer.models import classifier_of, device
from training.types import Problem

__all__ = ["preference_model", "preference_pairs"]

_SAMPLES = 4
_EPOCHS = 3
_BATCH = 32
_RATE = 3e-4
_BOUND = "bound.txt"
"""Beside the weights: the digest of what they came from. It is written last."""


def preference_model(
    stage: Stage, start: Path | None, rows: Sequence[Problem]
) -> tuple[PreferenceModel, float]:
    """The model, trained into the stage's folder unless it is there, and its mean score of good replies."""
    directory = stage.directory / "preference"
    policy, tokenizer, prompter = stage.load(start)
    bound = binding(
        seed=stage.seed,
        model=model_bound(stage, start),
        rows=fingerprint(rows),
    )
    if not stage.ranks.gather([_made(directory, bound)])[0]:
        pairs = preference_pairs(policy, prompter, rows, stage.seed, stage.run.pool)
        if not pairs:
            raise DataError(
                "the preference model has nothing to compare: no general row has an answer, checks or ratings"
            )
        partial = directory.with_name("preference.part")
        _train(stage, policy, tokenizer, _encoded(prompter, pairs), partial)
        if stage.ranks.index == 0:
            (partial / _BOUND).write_text(bound, encoding="utf-8")
            shutil.rmtree(directory, ignore_errors=True)
            partial.replace(directory)
        stage.ranks.wait()
    del policy
    judge = _Judge(directory, tokenizer, prompter)
    known = [(row.question, good) for row in rows for good in _good(row)][:64]
    scores = judge([question for question, _ in known], [good for _, good in known])
    return judge, sum(scores) / len(scores) if scores else 0.0


def preference_pairs(
    policy: Any, prompter: Prompter, rows: Sequence[Problem], seed: int, pool: WorkerPool | None = None
) -> list[PreferencePair]:
    """Those that a row carries, up to two a row with checks, one a row with an answer."""
    asked = [row for row in rows if not row.pairs and (row.checks or "answer" in row.extra)]
    prompts = [prompter.prompt(row, None) for row in asked]
    drawn = draw(policy, prompter, prompts, samples=_SAMPLES, max_tokens=64, seed=seed)
    rng = random.Random(f"pairs {seed}")
    pairs = [PreferencePair(row, chosen, rejected) for row in rows for chosen, rejected in row.pairs]
    for row, replies in zip(asked, drawn, strict=True):
        answers = [reply.answer for reply in replies]
        if row.checks:
            pairs += constraint_pairs(row, answers, 2, seed)
        else:
            good = row.extra["answer"]
            wrong = [each for each in answers if each.strip() and verify(each, good, pool) is not True]
            pairs.append(PreferencePair(row, good, wrong[0] if wrong else _spoilt(good, rng)))
    return pairs


def _encoded(prompter: Prompter, pairs: Sequence[PreferencePair]) -> list[dict[str, list[int]]]:
    """Pairs as token ids, as TRL's trainer takes them."""
    encoded = []
    for pair in pairs:
        prompt = prompter.prompt(pair.problem, None)
        sides = {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        encoded.append(
            {name: [*prompt.ids, *prompter.target(prompt, "", text)] for name, text in sides.items()}
        )
    return encoded


def _made(directory: Path, bound: str) -> bool:
    """Whether the model is there, of these rows and this policy."""
    told = directory / _BOUND
    return told.exists() and told.read_text(encoding="utf-8") == bound


def _good(row: Problem) -> list[str]:
    """Replies to a row that are known to be good."""
    return [chosen for chosen, _ in row.pairs] or ([row.extra["answer"]] if "answer" in row.extra else [])


def _spoilt(text: str, rng: random.Random) -> str:
    """The text with one word doubled, dropped or moved."""
    words = text.split()
    place = rng.randrange(len(words))
    if len(words) == 1 or rng.random() < 0.5:
        return " ".join([*words[: place + 1], *words[place:]])
    return " ".join([*words[:place], *words[place + 1 :]])


def _train(
    stage: Stage, policy: Any, tokenizer: Any, pairs: Sequence[dict[str, list[int]]], directory: Path
) -> None:
    """Trains a scalar head and all weights below it, which begin as the policy's. Takes the policy apart."""
    model = classifier_of(policy)
    model.config.pad_token_id = tokenizer.pad_token_id
    cpu = model.device.type == "cpu"
    settings = RewardConfig(
        output_dir=str(directory / "checkpoints"),
        num_train_epochs=_EPOCHS,
        per_device_train_batch_size=max(1, _BATCH // stage.ranks.count),
        learning_rate=_RATE,
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
    quieten(trainer)
    trainer.train()
    if stage.ranks.index == 0:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


class _Judge:
    """The trained model as `training.rewards.preference.PreferenceModel`."""

    def __init__(self, directory: Path, tokenizer: Any, prompter: Prompter) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(directory)
        self._model = model.to(device()).eval()
        self._pad = tokenizer.pad_token_id
        self._prompter = prompter

    def __call__(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """One score for each pair."""
        if not questions:
            return []
        sequences = []
        for question, answer in zip(questions, answers, strict=True):
            prompt = self._prompter.prompt(Problem("", question), None)
            sequences.append([*prompt.ids, *self._prompter.target(prompt, "", answer)])
        width = max(map(len, sequences))
        at = self._model.device
        ids = torch.tensor([each + [self._pad] * (width - len(each)) for each in sequences], device=at)
        mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in sequences], device=at)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        return logits[:, 0].tolist()
