"""Build a model of a million parameters with exactly known behaviour: a Markov chain as a Llama checkpoint.

It runs inside vLLM's own environment (it needs torch and transformers): `python tiny_model.py DIRECTORY`.

The layers write nothing to the residual stream, and the embeddings are one-hot. So the next token depends
only on the last token, with the logits of `LOGITS`. The result is a reasoning model with statistics that a
test can state:

- After the generation prompt it thinks, with words in a fixed cycle. At temperature 1 the thinking closes
  after any word with probability 1/40 (mean 40 words).
- At temperature 0 the thinking never closes, so that only a limit can stop it.
- After `</think>`, a blank line or a colon it answers "The answer is \\boxed{7}." and stops. A forced close
  ends with one of these.
- At temperature 1 the digit is 7, 3 or 5 with probabilities 0.6, 0.25 and 0.15.
- After anything else it starts to think.

The chat template is like that of DeepSeek-R1. The generation prompt opens `<think>`, and the template drops
the text before `</think>` in earlier assistant messages.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["LOGITS", "build"]

HEADS, HEAD_SIZE = 6, 64
"""vLLM's attention on a CPU takes head sizes 32, 64, 80, 96, 112 and 128."""
FLOOR, BLANK_FLOOR = -20.0, -30.0
"""Logits of the tokens that a row does not name: never sampled, but available to a grammar, blanks last."""

SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
MARKUP = ("<think>", "</think>")
"""Ordinary tokens: vLLM would strip special ones from the text."""

THOUGHTS = (" first", " we", " add", " two", " to", " five", " then", " check", " that", " again", " and")
ANSWER = ("The", " answer", " is", " \\", "boxed", "{")
DIGITS = {"7": 0.6, "3": 0.25, "5": 0.15}
CLOSE = 1 / 40
TEXT = (
    "The answer is \\boxed{7}.\n\n",
    " first we add two to five then check that again and",
    "What is two plus five? Reply with one number: ",
    "I have thought long enough. Now the final answer.\n",
    '{"answer": 7}',
)

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- '<|assistant|>' + message.content.split('</think>')[-1] -}}
    {%- if not loop.last or add_generation_prompt %}{{ eos_token }}{% endif -%}
  {%- else -%}
    {{- '<|' + message.role + '|>' + message.content -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif -%}
"""


def logits() -> dict[str, dict[str, float]]:
    """Return the rows of the chain: last token -> next token -> log probability.

    The first word of thinking follows a last token without a row.
    """
    rows: dict[str, dict[str, float]] = {}
    for word, following in zip(THOUGHTS, THOUGHTS[1:] + THOUGHTS[:1], strict=True):
        rows[word] = {following: math.log(1 - CLOSE), "</think>": math.log(CLOSE)}
    for opener in ("</think>", "\n\n", ":"):
        rows[opener] = {ANSWER[0]: 0.0}
    for word, following in itertools.pairwise(ANSWER):
        rows[word] = {following: 0.0}
    rows["{"] = {digit: math.log(p) for digit, p in DIGITS.items()}
    rows |= {digit: {"}": 0.0} for digit in DIGITS}
    rows["}"] = {".": 0.0}
    rows["."] = {"<|end|>": 0.0}
    rows["<|assistant|>"] = {"<think>": 0.0}
    return rows


LOGITS: Mapping[str, Mapping[str, float]] = logits()


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, deterministically, with one token for every word of the chain."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=HEADS * HEAD_SIZE - len(SPECIAL) - len(MARKUP),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = [*TEXT * 4, *THOUGHTS * 8, *(word for word in ANSWER for _ in range(8)), "\n\n" * 8]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in MARKUP])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def token_id(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """Return the id of a text that must be exactly one token."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens, not one")
    return int(ids[0])


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Write the chain as weights: identity embeddings, silent layers and an output column for each token."""
    torch.manual_seed(0)
    width = HEADS * HEAD_SIZE
    config = LlamaConfig(
        vocab_size=width,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=HEAD_SIZE,
        max_position_embeddings=131_072,
        tie_word_embeddings=False,
        bos_token_id=token_id(tokenizer, "<|begin|>"),
        eos_token_id=token_id(tokenizer, "<|end|>"),
    )
    model = LlamaForCausalLM(config)
    floor = torch.full((width,), FLOOR)
    floor[[i for i in range(len(tokenizer)) if tokenizer.decode([i]).isspace()]] = BLANK_FLOOR
    columns = floor[:, None].repeat(1, width)  # [next token, last token]
    columns[token_id(tokenizer, THOUGHTS[0]), :] = 0.0
    for last, row in LOGITS.items():
        column = token_id(tokenizer, last)
        columns[:, column] = floor
        for following, value in row.items():
            columns[token_id(tokenizer, following), column] = value
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(width))
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # The last norm scales a one-hot vector to sqrt(width).
        model.lm_head.weight.copy_(columns / math.sqrt(width))
    return model


def build(directory: Path) -> None:
    """Write the model, its tokenizer and its chat template as a Hugging Face directory."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(directory)
    model = build_model(tokenizer)
    model.save_pretrained(directory)
    defaults = {"eos_token_id": model.config.eos_token_id, "bos_token_id": model.config.bos_token_id}
    (directory / "generation_config.json").write_text(json.dumps(defaults))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
