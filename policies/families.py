"""Model families: how each switches thinking, limits it, marks it up and keeps it in the history.

One row of `FAMILIES` is one family; the first row with a matching glob wins. `source` says where
a row's facts come from: "template" was read in the checkpoint's chat template, "engine" in vLLM's
parser for it, and "card" is the model card as far as known. A template that can be read beats the
row: see `policies.templates.refine`.

To add a family: write one row above the rows that its models would otherwise match, and add its
requests to `tests/policies/test_families.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypedDict

from policies.thinking import Markup

__all__ = ["FAMILIES", "Family", "Switch", "TrainedLimit", "find_family"]


@dataclass(frozen=True, slots=True)
class Switch:
    """What a request carries to turn thinking on or off, or to ask for a level.

    `kwargs` go into `chat_template_kwargs` and `fields` into the request itself. `system` is a
    line for the top of the system message, `user` one for the end of the last user message.

    `beside_system` is system text too, but only for requests with other system text. There the
    template leaves out its own system prompt, which would have said the same.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    user: str = ""
    beside_system: str = ""


@dataclass(frozen=True, slots=True)
class TrainedLimit:
    """A thinking limit that the family was trained to keep, more or less; the gateway counts as well.

    A template kwarg says it, or a sentence with `{tokens}` at the end of the last user message.
    `steps` are the token counts of the training, rising.
    """

    steps: tuple[int, ...]
    kwarg: str = ""
    sentence: str = ""

    def switch(self, tokens: int) -> Switch:
        """Return the switch for the largest step within `tokens`, else for the smallest step.

        Beyond the largest step the switch is empty.
        """
        if tokens > self.steps[-1]:
            return Switch()
        step = max((step for step in self.steps if step <= tokens), default=self.steps[0])
        return Switch(kwargs={self.kwarg: step} if self.kwarg else {}, user=self.sentence.format(tokens=step))


@dataclass(frozen=True, slots=True)
class Family:
    """One row.

    - `globs`: lower-case patterns for a model's name, or for its part after the last "/".
    - `open`, `close`: the tags around thinking.
    - `opened_by`: who writes the opening tag while thinking is on. That is the model, the chat
      template or, for a model that does not think by itself, the gateway.
    - `default`: what the model does without a switch; "always" and "never" can't be changed.
    - `on`, `off`: the switches; None: nothing to send, or no such switch.
    - `off_fallback`: what replaces a missing `off` switch in a model that thinks. That is a closed
      block of thinking ("prefill"), its lowest effort, or the system prompt alone.
    - `levels`: the switches that ask for the levels minimal, low, medium, high and max. Most
      vendors call them efforts.
    - `trained_limit`: a limit that the family itself understands.
    - `answer`: tags around the answer.
    - `history`: what happens to thinking that a client sends back. It is dropped ("drop"), kept
      since the last user message so that a chain of tool calls stays whole ("loop"), or kept.
    """

    name: str
    globs: tuple[str, ...]
    source: str
    open: str = "<think>"
    close: str = "</think>"
    opened_by: Literal["model", "template", "gateway"] = "model"
    default: Literal["on", "off", "always", "never"] = "always"
    on: Switch | None = None
    off: Switch | None = None
    off_fallback: Literal["prefill", "effort", "prompt"] = "prefill"
    levels: Mapping[str, Switch] = field(default_factory=dict)
    trained_limit: TrainedLimit | None = None
    answer: tuple[str, str] | None = None
    history: Literal["drop", "loop", "keep"] = "drop"

    @property
    def markup(self) -> Markup:
        """Return the markup of a reply while thinking is on."""
        return Markup(self.open, self.close, self.opened_by != "model", self.answer)


class _OnOff(TypedDict):
    on: Switch
    off: Switch


def _kwarg_switch(name: str) -> _OnOff:
    """Return the most common switch: one boolean template kwarg."""
    return {"on": Switch(kwargs={name: True}), "off": Switch(kwargs={name: False})}


def _system_switch(on: str, off: str) -> _OnOff:
    """Return a switch by words in the system message."""
    return {"on": Switch(system=on), "off": Switch(system=off)}


def _level_switches(name: str, *efforts: str, top_level: bool = False) -> dict[str, Switch]:
    """Return the switches of the levels minimal to max, from a vendor's five words of effort.

    The words go into the template kwarg `name` or, with `top_level`, into that field of the request.
    """
    levels = ("minimal", "low", "medium", "high", "max")
    return {
        level: Switch(fields={name: effort}) if top_level else Switch(kwargs={name: effort})
        for level, effort in zip(levels, efforts, strict=True)
    }


_TWO_SECTIONS = (
    "Write your thoughts first, between {open} and {close}, and after them the answer, complete in itself."
)

FAMILIES: tuple[Family, ...] = (
    # DeepSeek. The 0528 releases write both tags; the template opens the block for R1 and its distills.
    Family("deepseek-r1-0528", ("*r1-0528*",), "template"),
    Family("deepseek-r1", ("*deepseek-r1*", "*r1-distill*"), "template", opened_by="template"),
    Family(
        "deepseek-v4",
        ("*deepseek-v4*",),
        "engine",
        opened_by="template",
        default="on",
        **_kwarg_switch("thinking"),
        levels=_level_switches("reasoning_effort", "low", "low", "high", "high", "max"),
        history="loop",
    ),
    Family(
        "deepseek-v3.2",
        ("*deepseek-v3.2*",),
        "template",
        opened_by="template",
        default="off",
        **_kwarg_switch("thinking"),
        history="loop",
    ),
    Family(
        "deepseek-v3.1",
        ("*deepseek-v3.1*",),
        "template",
        opened_by="template",
        default="off",
        **_kwarg_switch("thinking"),
    ),
    # Qwen. From the 2507 releases on, one checkpoint either thinks or doesn't; 3.5 is switchable again.
    Family("qwq", ("*qwq*",), "template", opened_by="template"),
    Family(
        "qwen3.5-small",
        ("*qwen3.5-0.8b*", "*qwen3.5-2b*"),
        "card",
        opened_by="template",
        default="off",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family(
        "qwen3.5",
        ("*qwen3.[5-9]*",),
        "template",
        opened_by="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family("qwen3-thinking", ("*qwen3*thinking*",), "card", opened_by="template", history="loop"),
    Family("qwen3-instruct", ("*qwen3*instruct*", "*qwen3-coder*"), "card", default="never"),
    Family(
        "qwen3", ("*qwen3*",), "template", default="on", **_kwarg_switch("enable_thinking"), history="loop"
    ),
    # NVIDIA
    Family(
        "nemotron-3",
        ("*nemotron-3*",),
        "template",
        opened_by="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family(
        "nemotron-nano-v2",
        ("*nemotron-nano-*v2*",),
        "template",
        opened_by="template",
        default="on",
        **_system_switch("/think", "/no_think"),
    ),
    Family(
        "nemotron-v1.5",
        ("*nemotron*v1[._]5*",),
        "template",
        default="on",
        **_system_switch("/think", "/no_think"),
    ),
    Family(
        "nemotron-v1",
        ("*llama-3*nemotron-nano*", "*llama-3*nemotron-super*", "*llama-3*nemotron-ultra*"),
        "card",
        default="off",
        **_system_switch("detailed thinking on", "detailed thinking off"),
    ),
    # Mistral: the template's own system prompt makes the model think, unless the request has one.
    Family(
        "magistral-2506",
        ("*magistral*2506*",),
        "card",
        default="on",
        on=Switch(beside_system=_TWO_SECTIONS.format(open="<think>", close="</think>")),
        off_fallback="prompt",
    ),
    Family(
        "magistral",
        ("*magistral*", "*ministral*reasoning*"),
        "card",
        open="[THINK]",
        close="[/THINK]",
        default="on",
        on=Switch(beside_system=_TWO_SECTIONS.format(open="[THINK]", close="[/THINK]")),
        off_fallback="prompt",
    ),
    # Z.ai
    Family("glm-5.3", ("*glm-5.3*",), "engine", opened_by="template", history="loop"),
    Family(
        "glm-4.7",
        ("*glm-4.7*", "*glm-5*"),
        "template",
        opened_by="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family(
        "glm-4.5",
        ("*glm-4.5*", "*glm-4.6*"),
        "template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family("glm-4.1v-thinking", ("*glm-4.1v*thinking*",), "card", answer=("<answer>", "</answer>")),
    Family("glm-z1", ("*glm-z1*",), "card", opened_by="template"),
    # Moonshot
    Family(
        "kimi-k3",
        ("*kimi-k3*",),
        "template",
        open="<|open|>think<|sep|>",
        close="<|close|>think<|sep|>",
        opened_by="template",
        default="on",
        **_kwarg_switch("thinking"),
        levels=_level_switches("thinking_effort", "low", "low", "high", "high", "max"),
        answer=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
        history="keep",
    ),
    Family("kimi-k2-thinking", ("*kimi-k2-thinking*",), "template", history="loop"),
    Family(
        "kimi-k2.5",
        ("*kimi-k2.[5-9]*",),
        "template",
        opened_by="template",
        default="on",
        **_kwarg_switch("thinking"),
        history="loop",
    ),
    Family("kimi-k2", ("*kimi-k2*",), "card", default="never"),
    Family(
        "kimi-k1.5",
        ("*kimi-k1.5*", "*kimi-vl*thinking*"),
        "card",
        open="◁think▷",
        close="◁/think▷",
    ),
    # MiniMax
    Family(
        "minimax-m3",  # without a switch the model decides
        ("*minimax-m3*",),
        "template",
        open="<mm:think>",
        close="</mm:think>",
        opened_by="template",
        default="off",
        on=Switch(kwargs={"thinking_mode": "enabled"}),
        off=Switch(kwargs={"thinking_mode": "disabled"}),
        history="keep",
    ),
    Family("minimax-m2", ("*minimax-m2*",), "template", opened_by="template", history="loop"),
    Family("minimax-m1", ("*minimax-m1*",), "card"),
    # Tencent
    Family(
        "hunyuan-a13b",
        ("*hunyuan-a13b*",),
        "card",
        default="on",
        **_kwarg_switch("enable_thinking"),
        answer=("<answer>", "</answer>"),
    ),
    Family(
        "hy3",
        ("*tencent/hy3*", "*tencent-hy3*", "hy3", "hy3-*"),
        "template",
        open="<think:opensource>",
        close="</think:opensource>",
        opened_by="template",
        default="off",
        on=Switch(kwargs={"reasoning_effort": "high"}),
        off=Switch(kwargs={"reasoning_effort": "no_think"}),
        levels=_level_switches("reasoning_effort", "low", "low", "high", "high", "high"),
        history="loop",
    ),
    # ByteDance
    Family(
        "seed-oss",
        ("*seed-oss*",),
        "template",
        open="<seed:think>",
        close="</seed:think>",
        default="on",
        off=Switch(kwargs={"thinking_budget": 0}),
        trained_limit=TrainedLimit((512, 1024, 2048, 4096, 8192, 16384), kwarg="thinking_budget"),
        history="keep",
    ),
    # OpenAI: no switch for off. The tags are harmony's channels, which the engine's own parser removes.
    Family(
        "gpt-oss",
        ("*gpt-oss*",),
        "template, engine",
        open="<|channel|>analysis<|message|>",
        close="<|end|><|start|>assistant<|channel|>final<|message|>",
        answer=("<|channel|>final<|message|>", "<|return|>"),  # some engines' parsers leave these in
        off_fallback="effort",
        levels=_level_switches("reasoning_effort", "low", "low", "medium", "high", "high", top_level=True),
        history="loop",
    ),
    # Google
    Family(
        "gemma-4",
        ("*gemma-4*", "*gemma4*"),
        "template",
        open="<|channel>thought",
        close="<channel|>",
        default="off",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    # IBM: beside other system text the template leaves out its thinking prompt.
    Family(
        "granite-3.3",
        ("*granite-3.3*instruct*",),
        "template",
        default="off",
        on=Switch(
            kwargs={"thinking": True},
            beside_system="Write your thoughts between <think></think> and your response between"
            " <response></response>, for each user query.",
        ),
        off=Switch(kwargs={"thinking": False}),
        answer=("<response>", "</response>"),
    ),
    Family(
        "granite-3.2",
        ("*granite-3.2*instruct*",),
        "engine",
        open="Here is my thought process:",
        close="Here is my response:",
        default="off",
        on=Switch(
            kwargs={"thinking": True},
            beside_system="Write your thoughts after 'Here is my thought process:' and your response after"
            " 'Here is my response:', for each user query.",
        ),
        off=Switch(kwargs={"thinking": False}),
    ),
    # LG
    Family(
        "exaone-deep",
        ("*exaone-deep*",),
        "template",
        open="<thought>",
        close="</thought>",
        opened_by="template",
    ),
    Family(
        "exaone-4",
        ("*exaone-4*",),
        "card",
        opened_by="template",
        default="off",
        **_kwarg_switch("enable_thinking"),
    ),
    # StepFun
    Family(
        "step-3.7",
        ("*step-3.[7-9]*", "*step3p[7-9]*"),
        "template",
        opened_by="template",
        off_fallback="effort",
        levels=_level_switches("reasoning_effort", "low", "low", "medium", "high", "high"),
        history="loop",
    ),
    Family("step-3.5", ("*step-3.5*", "*step3p5*"), "template", opened_by="template", history="loop"),
    Family("step3", ("*step3*",), "engine", opened_by="template"),
    # Hugging Face. SmolLM2 is an instruct model: it thinks because the gateway opens the block for it.
    Family("smollm3", ("*smollm3*",), "template", default="on", **_kwarg_switch("enable_thinking")),
    Family("smollm2", ("*smollm2*",), "card", opened_by="gateway", default="off"),
    # Models that `thinkgate train` makes from scratch.
    Family(
        "thinkgate",
        ("*thinkgate*",),
        "template",
        opened_by="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
    ),
    # Others
    Family(
        "apriel",
        ("*apriel-1.[56]*thinker*",),
        "template",
        open="Here are my reasoning steps:",
        close="[BEGIN FINAL RESPONSE]",
        opened_by="template",
    ),
    Family(
        "ernie-4.5-thinking",
        ("*ernie-4.5*thinking*",),
        "engine",
        opened_by="template",
        answer=("<response>", "</response>"),
    ),
    Family(
        "intellect-2",
        ("*intellect-2*",),
        "card",
        opened_by="template",
        trained_limit=TrainedLimit(
            (2000, 4000, 6000, 8000, 10000), sentence="Think for {tokens} tokens before giving a response."
        ),
    ),
    Family(
        "mimo-v2",
        ("*mimo-v2*",),
        "engine, card",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="keep",
    ),
    Family(
        "ling-3",
        ("*ling-3*", "*ling3*"),
        "template",
        opened_by="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family("mimo", ("*mimo-*",), "engine", default="on", **_kwarg_switch("enable_thinking")),
    Family("olmo-3-think", ("*olmo-3*think*",), "card", opened_by="template"),
    Family(
        "openthinker",
        ("*openthinker-*",),
        "card",
        open="<|begin_of_thought|>",
        close="<|end_of_thought|>",
        on=Switch(
            system="Think the question through at length first, step by step, between"
            " <|begin_of_thought|> and <|end_of_thought|>; then give the solution between"
            " <|begin_of_solution|> and <|end_of_solution|>."
        ),
        answer=("<|begin_of_solution|>", "<|end_of_solution|>"),
    ),
    Family(
        "phi-4-reasoning",
        ("*phi-4*reasoning*",),
        "card",
        on=Switch(beside_system=_TWO_SECTIONS.format(open="<think>", close="</think>")),
    ),
    Family("skywork-or1", ("*skywork-or1*",), "card", opened_by="template"),
    Family("thinks-always", ("*seed-thinking*", "*hunyuan-turbos*"), "nothing found: taken to think always"),
    Family("generic", ("*",), "nothing known", default="on", off_fallback="prompt"),
)
"""All families. The first row with a matching glob is a model's family; the last row matches every model."""


def find_family(model: str, *, base_model: str | None = None, explicit: str | None = None) -> Family:
    """Return a model's family: the one that `explicit` names, else by its name, else by its base model.

    `base_model` (an engine's `root`) counts only where the name itself says nothing, as with an
    alias or an adapter. Raises ValueError where `explicit` is no family's name.
    """
    if explicit is not None:
        for family in FAMILIES:
            if family.name == explicit:
                return family
        allowed = ", ".join(family.name for family in FAMILIES)
        raise ValueError(f"unknown model family {explicit!r}; known families: {allowed}")
    family, generic = _by_name(model), FAMILIES[-1]
    return _by_name(base_model) if family is generic and base_model else family


def _by_name(model: str) -> Family:
    name = model.lower()
    names = (name, name.rsplit("/", 1)[-1])
    return next(row for row in FAMILIES if any(fnmatchcase(n, glob) for glob in row.globs for n in names))
