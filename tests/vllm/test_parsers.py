"""Our splitter agrees with vLLM's own reasoning parsers, or differs for a stated reason.

vLLM's parsers get the calls of its chat endpoint: the whole text, then a stream with one token a chunk, then
with four. The comparison ignores blank space at the edges, which vLLM keeps and our splitter treats as
markup. A difference that has disappeared fails too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies.thinking import Markup, ThinkingText

WAYS = ("whole", "by 1", "by 4")
Reading = tuple[str, str]
"""A reply's (thinking, answer)."""


@dataclass(frozen=True, slots=True)
class Parser:
    """One of vLLM's parsers, with its conditions.

    The vocabulary must have `tokens`. `kwargs` are the chat_template_kwargs of the request.
    """

    name: str
    open: str = "<think>"
    close: str = "</think>"
    tokens: tuple[str, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


TOOL = ("<tool_call>", "</tool_call>")
THINKING = {"thinking": True}
BY_TOKEN = (  # find the tags among the token ids of a chunk
    Parser("deepseek_r1"),
    Parser("deepseek_v3", kwargs=THINKING),
    Parser("holo2", kwargs=THINKING),
    Parser("hy_v3", kwargs={"reasoning_effort": "high"}),
    Parser("hy_v4", kwargs={"reasoning_effort": "high"}),
)
BY_GRAMMAR = (  # share vLLM's one parsing engine
    Parser("deepseek_v4", kwargs=THINKING),
    Parser("deepseek_v41", kwargs=THINKING),
    Parser("glm45", tokens=TOOL),
    Parser("glm47", tokens=TOOL),
    Parser("granite_thinking_parser", tokens=TOOL),
    Parser("kimi_k2", tokens=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")),
    Parser("ling3", tokens=TOOL),
    Parser("mimo", tokens=TOOL),
    Parser("minicpmv", tokens=TOOL),
    Parser("minimax_m2", tokens=("<minimax:tool_call>", "</minimax:tool_call>")),
    Parser("nemotron_v3", tokens=TOOL),
    Parser("qwen3", tokens=TOOL),
    Parser("seed_oss", "<seed:think>", "</seed:think>", tokens=("<seed:think>", "</seed:think>")),
    Parser("step3p5", tokens=TOOL),
)
EXPLICIT = (  # split only thinking with an opening tag in the reply
    Parser(
        "mistral",
        "[THINK]",
        "[/THINK]",
        tokens=("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    ),
    Parser("minimax_m3", "<mm:think>", "</mm:think>", tokens=("<mm:think>", "</mm:think>")),
)
OTHERS = (
    Parser("ernie45"),
    Parser("step3"),
    Parser("kimi_k3", "<|open|>think<|sep|>", "<|close|>think<|sep|>", ("<|open|>", "<|close|>", "<|sep|>")),
)
PARSERS = (*BY_TOKEN, *BY_GRAMMAR, *EXPLICIT, *OTHERS)

EXCLUDED = {
    "cohere_command3": "needs a package from Cohere",
    "cohere_command4": "needs a package from Cohere",
    "hf": "reads the markup from the metadata of the checkpoint",
    "inkling": "a block format without thinking tags",
    "k2_horizon": "has another pair of tags for each effort; none belongs to a known family",
    "minimax_m2_append_think": "does not split: adds the opening tag and returns everything as content",
    "muse_glimmer": "a block format without thinking tags",
    "openai_gptoss": "only finds the end of the thinking; harmony has its own parser",
    "plamo3": "has its own format, which no known family uses",
    "poolside_v1": "reads the conversation's roles from the prompt",
}
"""vLLM's parsers outside the comparison, with the reasons."""


@dataclass(frozen=True, slots=True)
class Text:
    """The end of a prompt and a reply; {o} and {c} are the tags. `opened` is that of `Markup`."""

    name: str
    reply: str
    prompt: str = ""
    opened: bool = False


TEXTS = (
    Text("block", "{o}\nlet me\n\nsee{c}\n\nThe é中 answer"),
    Text("opened by the template", "let me see\n{c}\n\nThe answer", "{o}\n", opened=True),
    Text("opened twice", "{o}\nlet me see\n{c}\n\nThe answer", "{o}\n", opened=True),
    Text("empty block", "{o}\n\n{c}\n\nThe answer"),
    Text("closed by the template", "The answer", "{o}\n\n{c}\n\n"),
    Text("cut short", "{o}\nlet me se"),
    Text("cut short, opened", "let me se", "{o}\n", opened=True),
    Text("half a tag", "{o}a </thin b{c}d </think"),
    Text("no tags", "The answer"),
    Text("preface", "Sure. {o}a{c}b"),
    Text("nested", "{o}a{o}b{c}d"),
    Text("two blocks", "{o}a{c}b{o}d{c}e"),
    Text("closed twice", "{o}a{c}b{c}e"),
    Text("tags in code", "{o}a{c}Use `{o}x{c}` so"),
    Text("tool call", "{o}a<tool_call>x</tool_call>"),
)


OWN_FORMS = (
    (
        Parser("gemma4", "<|channel>thought", "<channel|>", ("<|channel>", "<channel|>")),
        Text("own form", "{o}\na\n{c}b"),
    ),
    (
        Parser("granite", "Here is my thought process:", "Here is my response:"),
        Text("own form", "{o} a\n{c} b"),
    ),
    (Parser("hunyuan_a13b"), Text("own form", "{o}\na\n{c}\n<answer>\nb\n</answer>")),
    (Parser("olmo3", tokens=("Ġ</", "</", "think", ">")), Text("own form", "{o}a{c}b")),
)
"""Families whose streams vLLM splits by the tokens of their real tokenizers.

The comparison covers only whole texts, with the thinking "a" and the answer "b"."""

CASES: tuple[tuple[Parser, Text, list[int]], ...] = (
    *((parser, text, [1, 4]) for parser in PARSERS for text in TEXTS),
    *((parser, text, []) for parser, text in OWN_FORMS),
)
"""The cases for vLLM: parser, text, and the tokens a chunk of each stream."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Texts that vLLM's parsers split differently, in which ways, and the reason for our result."""

    why: str
    texts: tuple[str, ...]
    parsers: tuple[Parser, ...]
    ways: tuple[str, ...] = WAYS


IMPLICIT = (*BY_TOKEN, *BY_GRAMMAR, *OTHERS)
"""The parsers that need no opening tag in the reply."""
ERNIE, STEP3 = OTHERS[:2]
TAGGED = tuple(text.name for text in TEXTS if text.reply.startswith("{o}"))
DIFFERENCES = (
    Difference(
        "without a stream, vLLM ignores the prompt and takes an answer without tags for thinking",
        ("closed by the template",),
        IMPLICIT,
        ("whole",),
    ),
    Difference(
        "these families always think, so vLLM takes a text without tags for thinking; ours follows its "
        "markup, in which `opened` says the same",
        ("no tags",),
        IMPLICIT,
    ),
    Difference(
        "vLLM splits only after a tag from the model; the templates of these families never write one",
        ("opened by the template", "cut short, opened"),
        EXPLICIT,
    ),
    Difference(
        "text before the thinking is not thinking; vLLM treats it as thinking, or drops it",
        ("preface",),
        IMPLICIT,
    ),
    Difference(
        "vLLM does not split a stream that starts without the tag", ("preface",), EXPLICIT[1:], WAYS[1:]
    ),
    Difference(
        "vLLM drops an opening tag within the thinking",
        ("nested",),
        (*BY_GRAMMAR, EXPLICIT[0]),
    ),
    Difference(
        "vLLM drops or doubles an opening tag within the thinking", ("nested",), (*BY_TOKEN, ERNIE), WAYS[1:]
    ),
    Difference(
        "a second block is thinking too; vLLM leaves all or half of it in the answer",
        ("two blocks",),
        PARSERS,
    ),
    Difference(
        "without a stream, vLLM drops tags from the answer; in a stream it keeps them",
        ("closed twice", "tags in code"),
        (*BY_GRAMMAR, EXPLICIT[0]),
        ("whole",),
    ),
    Difference(
        "vLLM ends the thinking at a tool call, which needs a tool parser; without one the call is text",
        ("tool call",),
        tuple(parser for parser in BY_GRAMMAR if parser.tokens == TOOL),
    ),
    Difference(
        "vLLM leaves the opening tag in the thinking if the same chunk has more text",
        ("block", "opened twice", "cut short", "half a tag", "tool call"),
        BY_TOKEN,
        ("by 4",),
    ),
    Difference("the same, and also if that chunk has the closing tag", TAGGED, (ERNIE,), ("by 4",)),
    Difference("vLLM leaves the opening tag in the thinking", (*TAGGED, "opened twice"), (STEP3,)),
)


def reading_of(text: str, markup: Markup, size: int) -> Reading:
    """Split a text in chunks of `size` characters with our splitter; return it without blank edges."""
    reply = ThinkingText(markup)
    for start in range(0, len(text), size):
        reply.feed(text[start : start + size])
    reply.finish()
    return reply.reasoning.strip(), reply.content.strip()


def fill(parser: Parser, text: str) -> str:
    """Return a text with the tags of the parser."""
    return text.replace("{o}", parser.open).replace("{c}", parser.close)


@pytest.fixture(scope="module")
def probe(vllm_python: str, tiny_model: Path) -> dict[str, Any]:
    """Run `parser_probe.py` on every parser and text; return its findings."""
    cases = [
        {
            "parser": parser.name,
            "text": fill(parser, text.reply),
            "prompt": fill(parser, text.prompt),
            "kwargs": dict(parser.kwargs),
            "tokens": parser.tokens,
            "chunks": chunks,
        }
        for parser, text, chunks in CASES
    ]
    process = subprocess.run(
        [vllm_python, Path(__file__).with_name("parser_probe.py")],
        input=json.dumps({"tokenizer": str(tiny_model), "cases": cases}),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    findings: dict[str, Any] = json.loads(process.stdout)
    return findings


@pytest.fixture(scope="module")
def readings(probe: dict[str, Any]) -> dict[tuple[str, str], dict[str, Reading]]:
    """Return vLLM's readings by parser and text, and then by way."""
    return {
        (parser.name, text.name): {
            way: (reasoning.strip(), content.strip())
            for way, (reasoning, content) in zip(WAYS, results, strict=False)
        }
        for (parser, text, _), results in zip(CASES, probe["results"], strict=True)
    }


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_the_reading_is_vllms_or_differs_for_a_reason(
    readings: dict[tuple[str, str], dict[str, Reading]], parser: Parser, text: Text
) -> None:
    """Our reading is the same for all chunk sizes, and vLLM's agrees except for `DIFFERENCES`."""
    reply = fill(parser, text.reply)
    markup = Markup(parser.open, parser.close, text.opened)
    ours = reading_of(reply, markup, len(reply))
    assert all(reading_of(reply, markup, size) == ours for size in range(1, len(reply)))
    expected = {
        way: difference.why
        for difference in DIFFERENCES
        if text.name in difference.texts and parser in difference.parsers
        for way in difference.ways
    }
    theirs = readings[parser.name, text.name]
    assert {way for way in WAYS if theirs[way] != ours} == set(expected), (ours, theirs, expected)


@pytest.mark.parametrize(("parser", "text"), OWN_FORMS, ids=lambda value: value.name)
def test_special_formats_agree(
    readings: dict[tuple[str, str], dict[str, Reading]], parser: Parser, text: Text
) -> None:
    """The splitter handles only thinking; Hunyuan's <answer> is a matter of the family's row."""
    reasoning, content = reading_of(fill(parser, text.reply), Markup(parser.open, parser.close), 1)
    content = content.removeprefix("<answer>").removesuffix("</answer>").strip()
    assert (reasoning, content) == readings[parser.name, text.name]["whole"] == ("a", "b")


def test_every_parser_of_vllm_is_compared_or_excluded_for_a_reason(probe: dict[str, Any]) -> None:
    """A new parser in vLLM fails this test."""
    compared = [parser.name for parser in PARSERS] + [parser.name for parser, _ in OWN_FORMS]
    assert sorted(probe["parsers"]) == sorted(compared + list(EXCLUDED))
