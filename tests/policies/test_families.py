"""The requests that each model family gets for each budget.

The table is the specification: one entry a family, with what changes in the request when thinking
is on, off, or requested by level. A level without an entry gets the request for "on".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.families import FAMILIES, find_family
from policies.shaping import DIRECT_PROMPT, shape
from policies.thinking import Markup
from policies.types import SamplingRequest

LEVELS = {"minimal": 256, "low": 1024, "medium": 4096, "high": 16384, "max": 100_000}
QUESTION = "What is 2 + 2?"


@dataclass(frozen=True)
class Sent:
    """What the gateway adds to the client's request, and the markup of the reply."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    user: str = ""
    prefill: str = ""
    off: str | None = None
    opened: bool = False


def kwarg(**kwargs: Any) -> Sent:
    """Return a request that differs only in its template kwargs."""
    return Sent(kwargs=kwargs)


@dataclass(frozen=True)
class Row:
    """One family's entry: a model of it, its requests, and what differs from "on" at some levels."""

    model: str
    on: Sent
    off: Sent
    levels: Mapping[str, Sent] = field(default_factory=dict)


def switched(model: str, name: str, *, opened: bool = False) -> Row:
    """Return the entry of a family with one boolean template kwarg."""
    return Row(
        model,
        replace(kwarg(**{name: True}), opened=opened),
        replace(kwarg(**{name: False}), off="native"),
    )


def always(model: str, open_: str = "<think>", close: str = "</think>", *, opened: bool = False) -> Row:
    """A family that can't be switched: off, it goes on from a finished block."""
    block = f"Okay, I think I have finished thinking.\n{close}\n\n"
    return Row(
        model,
        Sent(opened=opened),
        Sent(prefill=block if opened else f"{open_}\n{block}", off="prefill"),
    )


def effort(value: str) -> Sent:
    """A request that asks a model for an effort by OpenAI's own field."""
    return Sent(fields={"reasoning_effort": value})


V4, K3 = {"thinking": True, "reasoning_effort": "high"}, {"thinking": True, "thinking_effort": "high"}
OPEN_THOUGHT = (
    "Think the question through at length first, step by step, between <|begin_of_thought|> and"
    " <|end_of_thought|>; then give the solution between <|begin_of_solution|> and <|end_of_solution|>."
)
NO_THOUGHT = always("", "<|begin_of_thought|>", "<|end_of_thought|>").off

TABLE = {
    "deepseek-r1-0528": always("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"),
    "deepseek-r1": always("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", opened=True),
    "deepseek-v4": Row(
        "deepseek-ai/DeepSeek-V4",
        Sent(kwargs=V4, opened=True),
        replace(kwarg(thinking=False), off="native"),
        {
            "minimal": Sent(kwargs=V4 | {"reasoning_effort": "low"}, opened=True),
            "low": Sent(kwargs=V4 | {"reasoning_effort": "low"}, opened=True),
            "max": Sent(kwargs=V4 | {"reasoning_effort": "max"}, opened=True),
        },
    ),
    "deepseek-v3.2": switched("deepseek-ai/DeepSeek-V3.2", "thinking", opened=True),
    "deepseek-v3.1": switched("deepseek-ai/DeepSeek-V3.1-Terminus", "thinking", opened=True),
    "qwq": always("Qwen/QwQ-32B", opened=True),
    "qwen3.5-small": switched("Qwen/Qwen3.5-2B", "enable_thinking", opened=True),
    "qwen3.5": switched("Qwen/Qwen3.5-397B-A17B-FP8", "enable_thinking", opened=True),
    "qwen3-thinking": always("Qwen/Qwen3-30B-A3B-Thinking-2507", opened=True),
    "qwen3-instruct": Row("Qwen/Qwen3-30B-A3B-Instruct-2507", Sent(), Sent(off="already")),
    "qwen3": switched("Qwen/Qwen3-8B", "enable_thinking"),
    "nemotron-3": switched("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "enable_thinking", opened=True),
    "nemotron-nano-v2": Row(
        "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
        Sent(system="/think", opened=True),
        Sent(system="/no_think", off="native"),
    ),
    "nemotron-v1.5": Row(
        "nvidia/Llama-3_3-Nemotron-Super-49B-v1_5",
        Sent(system="/think"),
        Sent(system="/no_think", off="native"),
    ),
    "nemotron-v1": Row(
        "nvidia/Llama-3_1-Nemotron-Ultra-253B-v1",
        Sent(system="detailed thinking on"),
        Sent(system="detailed thinking off", off="native"),
    ),
    "magistral-2506": Row("mistralai/Magistral-Small-2506", Sent(), Sent(system=DIRECT_PROMPT, off="prompt")),
    "magistral": Row("mistralai/Magistral-Small-2509", Sent(), Sent(system=DIRECT_PROMPT, off="prompt")),
    "glm-5.3": always("zai-org/GLM-5.3", opened=True),
    "glm-4.7": switched("zai-org/GLM-4.7-Flash", "enable_thinking", opened=True),
    "glm-4.5": switched("zai-org/GLM-4.6", "enable_thinking"),
    "glm-4.1v-thinking": always("zai-org/GLM-4.1V-9B-Thinking"),
    "glm-z1": always("zai-org/GLM-Z1-32B-0414", opened=True),
    "kimi-k3": Row(
        "moonshotai/Kimi-K3",
        Sent(kwargs=K3, opened=True),
        replace(kwarg(thinking=False), off="native"),
        {
            "minimal": Sent(kwargs=K3 | {"thinking_effort": "low"}, opened=True),
            "low": Sent(kwargs=K3 | {"thinking_effort": "low"}, opened=True),
            "max": Sent(kwargs=K3 | {"thinking_effort": "max"}, opened=True),
        },
    ),
    "kimi-k2-thinking": always("moonshotai/Kimi-K2-Thinking"),
    "kimi-k2.5": switched("moonshotai/Kimi-K2.5", "thinking", opened=True),
    "kimi-k2": Row("moonshotai/Kimi-K2-Instruct-0905", Sent(), Sent(off="already")),
    "kimi-k1.5": always("moonshotai/Kimi-VL-A3B-Thinking", "◁think▷", "◁/think▷"),
    "minimax-m3": Row(
        "MiniMaxAI/MiniMax-M3",
        replace(kwarg(thinking_mode="enabled"), opened=True),
        replace(kwarg(thinking_mode="disabled"), off="native"),
    ),
    "minimax-m2": always("MiniMaxAI/MiniMax-M2.5", opened=True),
    "minimax-m1": always("MiniMaxAI/MiniMax-M1-80k"),
    "hunyuan-a13b": switched("tencent/Hunyuan-A13B-Instruct", "enable_thinking"),
    "hy3": Row(
        "tencent/Hy3",
        replace(kwarg(reasoning_effort="high"), opened=True),
        replace(kwarg(reasoning_effort="no_think"), off="native"),
        {
            "minimal": replace(kwarg(reasoning_effort="low"), opened=True),
            "low": replace(kwarg(reasoning_effort="low"), opened=True),
        },
    ),
    "seed-oss": Row(
        "ByteDance-Seed/Seed-OSS-36B-Instruct",
        Sent(),
        replace(kwarg(thinking_budget=0), off="native"),
        {
            "minimal": kwarg(thinking_budget=512),  # its smallest step; the gateway cuts at 256
            "low": kwarg(thinking_budget=1024),
            "medium": kwarg(thinking_budget=4096),
            "high": kwarg(thinking_budget=16384),
            "3000": kwarg(thinking_budget=2048),
        },
    ),
    "gpt-oss": Row(
        "openai/gpt-oss-20b",
        effort("high"),
        replace(effort("low"), off="effort"),
        {
            "minimal": effort("low"),
            "low": effort("low"),
            "medium": effort("medium"),
            "3000": effort("medium"),
        },
    ),
    "gemma-4": switched("google/gemma-4-31B-it", "enable_thinking"),
    "granite-3.3": switched("ibm-granite/granite-3.3-8b-instruct", "thinking"),
    "granite-3.2": switched("ibm-granite/granite-3.2-8b-instruct", "thinking"),
    "exaone-deep": always("LGAI-EXAONE/EXAONE-Deep-32B", "<thought>", "</thought>", opened=True),
    "exaone-4": switched("LGAI-EXAONE/EXAONE-4.0-32B", "enable_thinking", opened=True),
    "step-3.7": Row(
        "stepfun-ai/Step-3.7-Flash",
        replace(kwarg(reasoning_effort="high"), opened=True),
        replace(kwarg(reasoning_effort="low"), off="effort", opened=True),
        {
            "minimal": replace(kwarg(reasoning_effort="low"), opened=True),
            "low": replace(kwarg(reasoning_effort="low"), opened=True),
            "medium": replace(kwarg(reasoning_effort="medium"), opened=True),
            "3000": replace(kwarg(reasoning_effort="medium"), opened=True),
        },
    ),
    "step-3.5": always("stepfun-ai/Step-3.5-Flash", opened=True),
    "step3": always("stepfun-ai/step3", opened=True),
    "smollm3": switched("HuggingFaceTB/SmolLM3-3B", "enable_thinking"),
    "smollm2": Row(
        "SmolLM2-135M-Instruct.Q4_1.gguf", Sent(prefill="<think>\n", opened=True), Sent(off="already")
    ),
    "thinkgate": switched("thinkgate-tiny", "enable_thinking", opened=True),
    "apriel": always(
        "ServiceNow-AI/Apriel-1.6-15b-Thinker",
        "Here are my reasoning steps:",
        "[BEGIN FINAL RESPONSE]",
        opened=True,
    ),
    "ernie-4.5-thinking": always("baidu/ERNIE-4.5-21B-A3B-Thinking", opened=True),
    "intellect-2": Row(
        "PrimeIntellect/INTELLECT-2",
        Sent(opened=True),
        always("", opened=True).off,
        {
            level: Sent(user=f"Think for {tokens} tokens before giving a response.", opened=True)
            for level, tokens in {"minimal": 2000, "low": 2000, "medium": 4000, "3000": 2000}.items()
        },
    ),
    "mimo-v2": switched("XiaomiMiMo/MiMo-V2-Flash", "enable_thinking"),
    "ling-3": switched("inclusionAI/Ling-3.0-flash", "enable_thinking", opened=True),
    "mimo": switched("XiaomiMiMo/MiMo-7B-RL", "enable_thinking"),
    "olmo-3-think": always("allenai/Olmo-3-7B-Think", opened=True),
    "openthinker": Row("open-thoughts/OpenThinker-32B", Sent(system=OPEN_THOUGHT), NO_THOUGHT),
    "phi-4-reasoning": always("microsoft/Phi-4-reasoning-plus"),
    "skywork-or1": always("Skywork/Skywork-OR1-32B", opened=True),
    "thinks-always": always("ByteDance/Seed-Thinking-v1.5"),
    "generic": Row("acme/parrot-7b", Sent(), Sent(system=DIRECT_PROMPT, off="prompt")),
}


def requested(level: str) -> SamplingRequest:
    """The budget of a level by its default tokens, or of a bare number."""
    if level == "off":
        return SamplingRequest(level="off", thinking_limit=0)
    return (
        SamplingRequest(level=level, thinking_limit=LEVELS[level])
        if level in LEVELS
        else SamplingRequest(None, int(level))
    )


@pytest.mark.parametrize("level", ["off", *LEVELS, "3000"])
@pytest.mark.parametrize("name", TABLE)
def test_each_family_is_sent_exactly_this(name: str, level: str) -> None:
    """Each family gets exactly this request for each budget."""
    row = TABLE[name]
    sent = row.off if level == "off" else row.levels.get(level, row.on)
    user = f"{QUESTION}\n\n{sent.user}" if sent.user else QUESTION
    messages = [{"role": "user", "content": user}]
    if sent.system:
        messages.insert(0, {"role": "system", "content": sent.system})
    expected = {"model": "m", "messages": messages, "temperature": 0.6, **sent.fields}
    if sent.kwargs:
        expected["chat_template_kwargs"] = sent.kwargs

    family = find_family(row.model)
    body = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0.6}
    shaped = shape(family, body, requested(level), None)

    assert family.name == name
    assert shaped.body == expected
    assert (shaped.prefill, shaped.off) == (sent.prefill, sent.off)
    assert shaped.markup == Markup(family.open, family.close, sent.opened, family.answer)


def test_the_table_has_every_family() -> None:
    """Every row of the code has an entry here, and the last row is generic."""
    assert list(TABLE) == [family.name for family in FAMILIES]
    assert FAMILIES[-1].name == "generic"


def test_the_page_has_every_family() -> None:
    """docs/reference/families.md shows each row with its globs."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "families.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        globs = ", ".join(f"`{glob}`" for glob in family.globs)
        assert f"| {family.name} | {globs} |" in page


class TestChoosing:
    """The choice of a model's family."""

    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("qwen3:8b", "qwen3"),
            ("QWEN/QWEN3-CODER-480B-A35B-INSTRUCT", "qwen3-instruct"),
            ("Qwen/Qwen3-VL-8B-Thinking", "qwen3-thinking"),
            ("Qwen/Qwen3.6-35B-A3B", "qwen3.5"),
            ("bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF", "deepseek-r1"),
            ("deepseek-r1-0528-qwen3-8b", "deepseek-r1-0528"),
            ("nvidia/Llama-3.1-Nemotron-Nano-8B-v1", "nemotron-v1"),
            ("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "generic"),
            ("mistralai/Ministral-3-14B-Reasoning-2512", "magistral"),
            ("stepfun-ai/step3-fp8", "step3"),
            ("zai-org/GLM-5", "glm-4.7"),
            ("meta-llama/Llama-3.3-70B-Instruct", "generic"),
        ],
    )
    def test_by_name(self, model: str, name: str) -> None:
        """Served names come in many spellings; the most specific row wins."""
        assert find_family(model).name == name

    def test_an_alias_has_the_family_of_its_base_model(self) -> None:
        """Only a served name that says nothing falls back to the engine's `root`."""
        assert find_family("house-model", base_model="Qwen/Qwen3-8B").name == "qwen3"
        assert find_family("Qwen/QwQ-32B", base_model="Qwen/Qwen3-8B").name == "qwq"
        assert find_family("house-model", base_model="/models/mine").name == "generic"

    def test_the_configuration_beats_the_name(self) -> None:
        """`family = "..."` wins over every glob."""
        assert find_family("Qwen/Qwen3-8B", explicit="gpt-oss").name == "gpt-oss"

    def test_an_unknown_family_is_refused_with_the_known_ones(self) -> None:
        """The error for an unknown family lists all families."""
        with pytest.raises(ValueError, match=r"unknown model family 'qwen'.*deepseek-r1.*generic"):
            find_family("m", explicit="qwen")

    @given(st.text(max_size=40))
    def test_every_model_has_a_family(self, name: str) -> None:
        """The last row matches every other name."""
        assert find_family(name) in FAMILIES
