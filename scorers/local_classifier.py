"""Runs a sequence classifier from a local directory, on the CPU, in a thread of its own.

It needs torch and transformers, which load with the first request. The weights must be safetensors
and the code transformers' own: no code from the directory runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scorers.trained import TEMPLATE, ClassifierInput, fill_template
from scorers.types import ScorerError

__all__ = ["LocalClassifier"]


class LocalClassifier:
    """Classifies with a model that `transformers` can load; `close` ends its thread.

    `batch` texts run at once, each cut to its last `max_tokens` tokens. With one label the
    probability is its sigmoid; with more it is the softmax of `label`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        template: str = TEMPLATE,
        label: int = -1,
        max_tokens: int = 4096,
        batch: int = 16,
    ) -> None:
        self._directory = directory
        self._template = template
        self._label = label
        self._max_tokens = max_tokens
        self._batch = batch
        self._threads = ThreadPoolExecutor(1, "classifier")
        self._run: Callable[[Sequence[str]], tuple[list[float], int]] | None = None

    async def classify(self, inputs: Sequence[ClassifierInput]) -> tuple[list[float], int]:
        """See `Classifier`. After a cancelled call at most one batch keeps running."""
        loop = asyncio.get_running_loop()
        texts = [fill_template(self._template, item) for item in inputs]
        probabilities: list[float] = []
        tokens = 0
        for start in range(0, len(texts), self._batch):
            batch = texts[start : start + self._batch]
            values, batch_tokens = await loop.run_in_executor(self._threads, self._classify, batch)
            probabilities += values
            tokens += batch_tokens
        return probabilities, tokens

    def close(self) -> None:
        """End the thread when its work is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _classify(self, texts: Sequence[str]) -> tuple[list[float], int]:
        if self._run is None:
            try:
                self._run = _load(self._directory, self._label, self._max_tokens)
            except (ImportError, OSError, ValueError) as error:
                raise ScorerError(f"the classifier in {self._directory} can't be loaded ({error})") from error
        return self._run(texts)


def _load(directory: Path, label: int, max_tokens: int) -> Callable[[Sequence[str]], tuple[list[float], int]]:
    """Load the model; return a function that gives probabilities and the number of tokens read."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, truncation_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, local_files_only=True, use_safetensors=True, dtype=torch.float32
    ).eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id

    def run(texts: Sequence[str]) -> tuple[list[float], int]:
        inputs = tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, max_length=max_tokens
        )
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            logits = model(**inputs).logits
        single_label = logits.shape[-1] == 1
        values = torch.sigmoid(logits[:, 0]) if single_label else torch.softmax(logits, -1)[:, label]
        return values.tolist(), int(inputs["attention_mask"].sum())

    return run
