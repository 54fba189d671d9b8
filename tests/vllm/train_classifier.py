"""Train the classifier of this lane on labelled replies: `python train_classifier.py SAMPLES [DIRECTORY]`.

It runs inside vLLM's own environment (it needs torch and transformers). SAMPLES is a folder with two
published data sets. The tests need only the weights in `classifier/`, not the data:

- `gsm8k_model_solutions.jsonl.gz`: GSM8K's test problems with four labelled solutions by GPT-3 each
  (github.com/openai/grade-school-math, MIT);
- `qwen_math_rm_samples.jsonl.gz`: MATH problems with eight labelled replies by Qwen2.5-Math each
  (github.com/QwenLM/Qwen2.5-Math, evaluation, MIT).

Every fifth question is held out. The classifier's values for these questions fit the calibration beside the
weights. They also give the areas under the ROC curve on the card: over all pairs of a right and a wrong
reply, and over pairs of replies to the same question. A vote depends on the latter.

The training is deterministic on one machine (one thread, one seed) and takes some minutes.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

__all__ = ["build"]

WIDTH, HEAD_SIZE, LAYERS = 128, 64, 2
"""vLLM's attention on a CPU takes head sizes 32, 64, 80, 96, 112 and 128."""
VOCABULARY, LENGTH = 1_536, 512
EPOCHS, BATCH, RATE = 3, 16, 1.5e-3
GPT3 = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply to a question, and whether it is right."""

    source: str
    question: str
    text: str
    right: bool

    @property
    def prompt(self) -> str:
        """Return the text in the form of `scorers.trained.TEMPLATE`."""
        return f"{self.question}\n\n{self.text}"


def replies(samples: Path) -> Iterator[Reply]:
    """Yield all labelled replies of both data sets."""
    for row in lines(samples / "gsm8k_model_solutions.jsonl.gz"):
        for name in GPT3:
            yield Reply("GSM8K", row["question"], row[name]["solution"], row[name]["is_correct"])
    for row in lines(samples / "qwen_math_rm_samples.jsonl.gz"):
        for text, right in zip(row["code"], row["score"], strict=True):
            yield Reply("MATH", row["question"], text, right)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a gzipped file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def build_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with one token for each digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>")


def build_model() -> LlamaForSequenceClassification:
    """Return an untrained model with half a million parameters and one label (a sigmoid)."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // HEAD_SIZE,
        num_key_value_heads=1,
        head_dim=HEAD_SIZE,
        max_position_embeddings=2 * LENGTH,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForSequenceClassification(config)


def batches(encoded: Sequence[list[int]], order: Sequence[int]) -> list[list[int]]:
    """Group the indices in `order` into batches of nearly equal length, so that little padding is needed."""
    by_length = sorted(order, key=lambda place: len(encoded[place]))
    return [by_length[start : start + BATCH] for start in range(0, len(by_length), BATCH)]


def padded(texts: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Return the token ids and their mask."""
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return {"input_ids": ids, "attention_mask": mask}


def train(
    model: LlamaForSequenceClassification, encoded: Sequence[list[int]], labels: Sequence[bool]
) -> None:
    """Minimise the binary cross-entropy over all replies for a few epochs."""
    chance = random.Random(0)
    steps = EPOCHS * len(batches(encoded, range(len(encoded))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        # The shuffle works in chunks of 20 batches: batches differ between epochs, and lengths stay together.
        order = chance.sample(range(len(encoded)), len(encoded))
        parts = [order[start : start + 20 * BATCH] for start in range(0, len(order), 20 * BATCH)]
        epoch_batches = [batch for part in parts for batch in batches(encoded, part)]
        chance.shuffle(epoch_batches)
        total = 0.0
        for batch in epoch_batches[: steps // EPOCHS]:
            logits = model(**padded([encoded[place] for place in batch])).logits[:, 0]
            target = torch.tensor([float(labels[place]) for place in batch])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(epoch_batches):.4f}", file=sys.stderr, flush=True)


def logits_of(model: LlamaForSequenceClassification, encoded: Sequence[list[int]]) -> list[float]:
    """Return one logit for each text."""
    values = [0.0] * len(encoded)
    with torch.inference_mode():
        for batch in batches(encoded, range(len(encoded))):
            logits = model(**padded([encoded[place] for place in batch])).logits[:, 0].tolist()
            for place, logit in zip(batch, logits, strict=True):
                values[place] = logit
    return values


def area(pairs: Iterator[tuple[float, float]]) -> float:
    """Return how often the right reply, the first of a pair, has the higher logit; ties count half."""
    won = [(right > wrong) + 0.5 * (right == wrong) for right, wrong in pairs]
    return sum(won) / len(won)


def areas(held_out: Sequence[Reply], logits: Sequence[float]) -> dict[str, float]:
    """Return the area under the ROC curve over all pairs, each data set and pairs to the same question."""
    scored = list(zip(held_out, logits, strict=True))
    right = [(reply, logit) for reply, logit in scored if reply.right]
    wrong = [(reply, logit) for reply, logit in scored if not reply.right]
    both = [(a, b) for a in right for b in wrong]
    values = {"all": area((x, y) for (_, x), (_, y) in both)}
    for source in ("GSM8K", "MATH"):
        values[source] = area((x, y) for (a, x), (b, y) in both if a.source == b.source == source)
    values["one question"] = area((x, y) for (a, x), (b, y) in both if a.question == b.question)
    return values


CARD = """\
---
license: mit
library_name: transformers
pipeline_tag: text-classification
---
# A classifier for tests

The classifier estimates the probability that a reply to a mathematical problem is right. It has
{parameters:,} parameters ({size:.1f} MB, half precision). `tests/vllm/train_classifier.py` trained it on
{trained:,} labelled replies: GPT-3's solutions to GSM8K
([grade-school-math](https://github.com/openai/grade-school-math), MIT) and Qwen2.5-Math's replies to MATH
([Qwen2.5-Math](https://github.com/QwenLM/Qwen2.5-Math), MIT).
Input: `{{question}}\\n\\n{{answer}}`.

The tests serve it with vLLM and embedded, and compare its values with those of Hugging Face's own code. It
is far too small, and its data are far too few, to check a solution. It mainly learned to tell the two data
sets apart, because most replies of one are right. The table shows the area under the ROC curve on
{held_out:,} replies to questions outside the training data (0.5 is chance):

| pairs of a right and a wrong reply | AUC |
|---|---|
{rows}

The same held-out replies fit `calibration.json` (Platt scaling).
"""


def build(samples: Path, directory: Path) -> None:
    """Write the classifier as a Hugging Face directory, with its calibration and its card."""
    from scorers.calibration import fit_calibration, logistic

    torch.manual_seed(0)
    torch.set_num_threads(1)
    directory.mkdir(parents=True, exist_ok=True)
    labelled = list(replies(samples))
    questions = list(dict.fromkeys(reply.question for reply in labelled))
    held_out_questions = set(questions[::5])
    training = [reply for reply in labelled if reply.question not in held_out_questions]
    held_out = [reply for reply in labelled if reply.question in held_out_questions]
    tokenizer = build_tokenizer([reply.prompt for reply in training])

    def encoded(part: Sequence[Reply]) -> list[list[int]]:
        return [ids[-LENGTH:] for ids in tokenizer([reply.prompt for reply in part])["input_ids"]]

    model = build_model()
    train(model, encoded(training), [reply.right for reply in training])
    model = model.eval().half().float()  # measures the weights as saved
    logits = logits_of(model, encoded(held_out))
    line = fit_calibration([logistic(logit) for logit in logits], [reply.right for reply in held_out])
    values = areas(held_out, logits)
    parameters = sum(p.numel() for p in model.parameters())
    tokenizer.save_pretrained(directory)
    model.half().save_pretrained(directory)
    (directory / "calibration.json").write_text(json.dumps({"scale": line.scale, "shift": line.shift}) + "\n")
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in values.items())
    card = CARD.format(
        parameters=parameters,
        size=2e-6 * parameters,
        trained=len(training),
        held_out=len(held_out),
        rows=rows,
    )
    (directory / "README.md").write_text(card)
    print(json.dumps({"auc": values, "parameters": parameters, "scale": line.scale, "shift": line.shift}))


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "classifier"
    build(Path(sys.argv[1]), target)
