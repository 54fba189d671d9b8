"""The tiny model before it has learned anything: a Llama with a tokenizer of its own.

Its think tags are ordinary tokens, because engines strip special tokens from the text. Its heads have the
size 64, which vLLM's attention on CPUs supports. Digits are tokens of their own. `enable_thinking` switches
thinking, as in Qwen3's template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from policies.prompts import LEVELS
from training.data.arithmetic import additions, errands

__all__ = ["build"]

HEAD_SIZE = 64
CONTEXT = 1024
SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>")
TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- '<|assistant|>' + message.content.split('</think>')[-1].strip() -}}
    {%- if not loop.last or add_generation_prompt %}{{ eos_token }}{% endif -%}
  {%- else -%}
    {{- '<|' + ('system' if message.role == 'developer' else message.role) + '|>' + message.content -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|><think>\\n' -}}
  {%- if enable_thinking is defined and not enable_thinking %}{{ '\\n</think>\\n\\n' }}{% endif -%}
{%- endif -%}
"""


def build(directory: Path, *, seed: int = 0, width: int = 256, layers: int = 3) -> None:
    """Write model, tokenizer and chat template as a Hugging Face directory; `seed` decides the weights."""
    tokenizer = _tokenizer()
    torch.manual_seed(seed)
    heads = width // HEAD_SIZE
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.04,
    )
    model = LlamaForCausalLM(config)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    stop_ids = {
        "eos_token_id": config.eos_token_id,
        "bos_token_id": config.bos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    (directory / "generation_config.json").write_text(json.dumps(stop_ids))


def _tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the texts of training, with digits apart. Deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d|\n"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens(["<|pad|>", *SPECIAL])
    # A sentence that never changes means as much as one word, so it is one token.
    words = (*TAGS, "What is ", *(level.prompt for level in LEVELS.values()))
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    fast.chat_template = TEMPLATE
    return fast


def _corpus() -> Iterable[str]:
    for problem in islice(additions("tokenizer"), 200):
        yield from (problem.question, *problem.extra["chains"].values())
    for problem in islice(errands("tokenizer"), 100):
        yield from (problem.question, problem.extra["answer"])
