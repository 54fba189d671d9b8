"""A classifier of some hundred kilobytes that has learnt to check sums, made anew within a minute.

Runs inside vLLM's own environment (it needs torch and transformers): `python tiny_classifier.py DIRECTORY`.

The text is "3 + 4 = 7" with both numbers from 0 to 9, the label whether
the answer is right. Every fifth pair of numbers is kept out of training; what the classifier
says of those fits the calibration beside its weights and is printed with the area under the ROC
curve. Deterministic on one machine: one thread, one seed.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

__all__ = ["build"]

HEAD_SIZE = 64
"""vLLM's attention on a CPU takes head sizes 32, 64, 80, 96, 112 and 128."""
STEPS = 1_500
WORDS = ("[PAD]", "[UNK]", "+", "=", *map(str, range(19)))


def text_of(a: int, b: int, answer: int) -> str:
    """One claim."""
    return f"{a} + {b} = {answer}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, sign or number."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[PAD]"
    )


def build_model() -> LlamaForSequenceClassification:
    """Two layers, one head, one label: a sigmoid."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=HEAD_SIZE,
        intermediate_size=2 * HEAD_SIZE,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=HEAD_SIZE,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForSequenceClassification(config)


def claims(held_out: bool) -> list[tuple[str, bool]]:
    """Every claim about the pairs that are, or aren't, kept out of training."""
    pairs = [(a, b) for a in range(10) for b in range(10) if ((3 * a + b) % 5 == 0) is held_out]
    return [(text_of(a, b, answer), answer == a + b) for a, b in pairs for answer in range(19)]


def train(model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast) -> None:
    """As many right as wrong claims in every batch."""
    chance = random.Random(0)
    known = claims(held_out=False)
    right = [text for text, label in known if label]
    wrong = [text for text, label in known if not label]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    labels = torch.tensor([1.0] * 64 + [0.0] * 64)
    for _ in range(STEPS):
        texts = chance.choices(right, k=64) + chance.choices(wrong, k=64)
        logits = model(**tokenizer(texts, return_tensors="pt")).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def measure(
    model: LlamaForSequenceClassification, tokenizer: PreTrainedTokenizerFast
) -> tuple[float, list[float], list[bool]]:
    """The area under the ROC curve on the pairs kept out, and the logits and labels behind it."""
    known = claims(held_out=True)
    with torch.inference_mode():
        inputs = tokenizer([text for text, _ in known], return_tensors="pt")
        logits = model(**inputs).logits[:, 0]
    labels = torch.tensor([label for _, label in known])
    above = (logits[labels][:, None] > logits[~labels][None, :]).float().mean()
    return float(above), logits.tolist(), labels.tolist()


def build(directory: Path) -> None:
    """Writes the classifier as a Hugging Face directory, its calibration beside it."""
    from scorers.calibration import fit, logistic

    torch.manual_seed(0)
    torch.set_num_threads(1)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer, model = build_tokenizer(), build_model()
    tokenizer.save_pretrained(directory)
    train(model, tokenizer)
    model.eval().save_pretrained(directory)
    area, logits, labels = measure(model, tokenizer)
    line = fit([logistic(each) for each in logits], labels)
    calibration = {"scale": line.scale, "shift": line.shift}
    (directory / "calibration.json").write_text(json.dumps(calibration))
    print(json.dumps({"auc": area, "parameters": sum(p.numel() for p in model.parameters()), **calibration}))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
