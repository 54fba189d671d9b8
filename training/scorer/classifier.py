"""Train a classifier that estimates whether a reply is correct: one label, cross-entropy on verified samples.

Source: the verifiers of Cobbe et al. 2021, arXiv:2110.14168. With step labels (process supervision,
arXiv:2305.20050) the head that reads the last token is trained at the end of each step too. The same weights
therefore serve unchanged, by vLLM's `/classify` or from a local directory.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from scorers.calibration import fit_calibration
from scorers.local_classifier import LocalClassifier
from scorers.trained import ClassifierInput
from training.config import ClassifierTable
from training.data.problems import DataError
from training.data.prompts import Prompter
from training.scorer.labels import LabelledText
from training.types import Problem

__all__ = ["classification_template", "classify", "train_classifier", "write_calibration"]

_BATCH = 64  # texts in a forward pass without gradients
Encoded = tuple[list[int], list[int], list[bool]]
"""A text's token ids, the positions of its labels among them, and the labels."""


def classification_template(prompter: Prompter) -> str:
    """Return the text to classify: the question and the reply as the policy itself sees and writes them.

    Serving needs the same template. It has no budget's system prompt, because serving does not tell a
    scorer the budget.
    """
    prompt = prompter.prompt(Problem("", "{question}"), None)
    opening = "" if prompt.markup.opened else f"{prompt.markup.open}\n"
    end = prompter.tokenizer.decode([prompter.tokenizer.eos_token_id])
    return f"{prompt.text}{opening}{{reasoning}}\n{prompt.markup.close}\n\n{{answer}}{end}"


def train_classifier(
    backbone: Path,
    tokenizer: Any,
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    *,
    table: ClassifierTable,
    directory: Path,
    seed: int,
) -> dict[str, Any]:
    """Train a new head and all weights of the backbone; save the weights with the lowest validation loss.

    Writes a Hugging Face directory with safetensors, and returns metrics for the report.
    """
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1, dtype=torch.float32)
    if not hasattr(model, "score"):
        raise DataError(f"{backbone}: a {type(model).__name__} has no classification head for single tokens")
    model.config.pad_token_id = tokenizer.pad_token_id
    if torch.cuda.is_available():
        model.to("cuda")
    encoded, held_out = ([_encode(tokenizer, text) for text in part] for part in (train, validation))
    optimizer = torch.optim.AdamW(model.parameters(), lr=table.learning_rate, weight_decay=table.weight_decay)
    # OneCycleLR divides by one step less than the warm-up has, so that a single step would divide by 0.
    warmup_part = min(0.5, max(2, table.warmup_steps) / table.max_steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, table.learning_rate, total_steps=table.max_steps, pct_start=warmup_part
    )
    rng = random.Random(f"classifier {seed}")
    best_loss, best_weights = float("inf"), {}
    losses = []
    for step in range(1, table.max_steps + 1):
        model.train()
        loss = _loss(model, rng.sample(encoded, min(table.batch, len(encoded))))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % table.eval_steps == 0 or step == table.max_steps:
            losses.append(_validation_loss(model, held_out))
            print(f"scorer: step {step}: validation loss {losses[-1]:.4f}", flush=True)
            if losses[-1] < best_loss:
                best_loss = losses[-1]
                best_weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(best_weights)
    model.save_pretrained(directory)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(directory)
    return {
        "texts": len(train),
        "marks": sum(len(text.labels) for text in train),
        "validation_losses": losses,
    }


def classify(directory: Path, template: str, cases: Sequence[ClassifierInput]) -> list[float]:
    """Return the probabilities of the embedded classifier, as in serving; equal cases run once."""
    distinct = list(dict.fromkeys(cases))
    local = LocalClassifier(directory, template=template, batch=_BATCH)
    try:
        probabilities = dict(zip(distinct, asyncio.run(local.classify(distinct))[0], strict=True))
    finally:
        local.close()
    return [probabilities[case] for case in cases]


def write_calibration(directory: Path, probabilities: Sequence[float], labels: Sequence[bool]) -> None:
    """Fit the calibration and write it beside the weights, where serving reads it."""
    path = directory / "calibration.json"
    path.write_text(json.dumps(asdict(fit_calibration(probabilities, labels))) + "\n", encoding="utf-8")


def _encode(tokenizer: Any, labelled: LabelledText) -> Encoded:
    """Tokenize the text as in serving; a label belongs to the token that holds its last character."""
    encoding = tokenizer(labelled.text, return_offsets_mapping=True)
    token_ends = [end for _, end in encoding["offset_mapping"]]
    last = len(token_ends) - 1
    positions, labels = [], []
    for end, right in labelled.labels:
        positions.append(next((i for i, token_end in enumerate(token_ends) if token_end >= end), last))
        labels.append(right)
    positions[-1] = last  # the served head reads the last token, even if the tokenizer appends one
    return encoding["input_ids"], positions, labels


def _loss(model: Any, batch: Sequence[Encoded]) -> Any:
    """Return the cross-entropy at the labels; a text's steps together weigh as much as its whole reply."""
    width = max(len(ids) for ids, _, _ in batch)
    pad = model.config.pad_token_id
    device = model.device
    padded = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _, _ in batch], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _, _ in batch], device=device)
    hidden = model.base_model(input_ids=padded, attention_mask=mask).last_hidden_state
    texts = [index for index, (_, positions, _) in enumerate(batch) for _ in positions]
    tokens = [position for _, positions, _ in batch for position in positions]
    targets = torch.tensor([float(right) for _, _, labels in batch for right in labels], device=device)
    step_counts = [len(positions) - 1 for _, positions, _ in batch]
    weights = torch.tensor(
        [weight for steps in step_counts for weight in (*[1 / max(steps, 1)] * steps, 1.0)], device=device
    )
    logits = model.score(hidden[texts, tokens])[:, 0].float()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weights * losses).sum() / weights.sum()


def _validation_loss(model: Any, held_out: Sequence[Encoded]) -> float:
    """Return the loss of whole replies only, which is comparable with and without step labels."""
    model.eval()
    whole = [(ids, positions[-1:], labels[-1:]) for ids, positions, labels in held_out]
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(whole), _BATCH):
            batch = whole[start : start + _BATCH]
            total += float(_loss(model, batch)) * len(batch)
    return total / len(whole)
