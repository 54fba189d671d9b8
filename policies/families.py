"""Model families: how each one's thinking is switched, limited, marked up and carried on.

One row of `FAMILIES` is one family; the first row with a fitting glob wins. `source` says
where a row's facts come from: "template" was read in the checkpoint's chat template,
"engine" in vLLM's parser for it, "card" is the model card as far as known. A template that
can be read beats the row: see `policies.templates.refine`.

To add a family: one row above those it would otherwise fall to, and its requests in
`tests/policies/test_families.py`.
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
    """What a request must carry to bring a model into a state.

    `kwargs` go into `chat_template_kwargs`, `fields` into the request itself, `system` is a
    line for the top of the system message, `user` one for the end of the last user message.
    `beside` is system text too, but only for requests that have other system text: there the
    template leaves out the system prompt of its own that would have said the same.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    user: str = ""
    beside: str = ""


@dataclass(frozen=True, slots=True)
class TrainedLimit:
    """A limit on thinking that the family was trained to keep, more or less: the gateway counts as well.

    It is said by a template kwarg, or by a sentence with `{tokens}` at the end of the last
    user message. `steps` are the token counts it was trained on, rising.
    """

    steps: tuple[int, ...]
    kwarg: str = ""
    sentence: str = ""

    def switch(self, tokens: int) -> Switch:
        """Says the largest step within `tokens`, else the smallest; nothing beyond the largest step."""
        if tokens > self.steps[-1]:
            return Switch()
        step = max((step for step in self.steps if step <= tokens), default=self.steps[0])
        return Switch(kwargs={self.kwarg: step} if self.kwarg else {}, user=self.sentence.format(tokens=step))


@dataclass(frozen=True, slots=True)
class Family:
    """One row.

    - `globs`: patterns in lower case for a model's name or the part after its last "/".
    - `open`, `close`: the tags around thinking. `opens`: who writes the first one while
      thinking is on: the model, the chat template, or, for a model that doesn't think by
      itself, the gateway.
    - `default`: what the model does when it is told nothing; "always" and "never" can't be changed.
    - `on`, `off`: what switches thinking on and off; None: nothing to send, or no such switch.
    - `without`: what stands in where `off` is None though the model thinks: a closed block
      written for it, its lowest effort, or the system prompt alone.
    - `efforts`: what asks for each of the levels minimal, low, medium, high and max.
    - `limit`: a limit of the family's own.
    - `answer`: tags around the answer.
    - `history`: thinking that a client sends back is dropped, kept since the last user
      message so that a chain of tool calls stays whole ("loop"), or kept.
    """

    name: str
    globs: tuple[str, ...]
    source: str
    open: str = "<think>"
    close: str = "</think>"
    opens: Literal["model", "template", "gateway"] = "model"
    default: Literal["on", "off", "always", "never"] = "always"
    on: Switch | None = None
    off: Switch | None = None
    without: Literal["prefill", "effort", "prompt"] = "prefill"
    efforts: Mapping[str, Switch] = field(default_factory=dict)
    limit: TrainedLimit | None = None
    answer: tuple[str, str] | None = None
    history: Literal["drop", "loop", "keep"] = "drop"

    @property
    def markup(self) -> Markup:
        """The markup of a reply while thinking is on."""
        return Markup(self.open, self.close, self.opens != "model", self.answer)


class _OnOff(TypedDict):
    on: Switch
    off: Switch


def _kwarg_switch(name: str) -> _OnOff:
    """The commonest switch: one boolean template kwarg."""
    return {"on": Switch(kwargs={name: True}), "off": Switch(kwargs={name: False})}


def _system_switch(on: str, off: str) -> _OnOff:
    """A switch by words in the system message."""
    return {"on": Switch(system=on), "off": Switch(system=off)}


def _level_switches(name: str, *words: str, top_level: bool = False) -> dict[str, Switch]:
    """Words for minimal, low, medium, high and max, said by a template kwarg or by a field of the request."""
    levels = ("minimal", "low", "medium", "high", "max")
    return {
        level: Switch(fields={name: word}) if top_level else Switch(kwargs={name: word})
        for level, word in zip(levels, words, strict=True)
    }


_TWO_SECTIONS = (
    "Write your thoughts first, between {open} and {close}, and after them the answer, complete in itself."
)

FAMILIES: tuple[Family, ...] = (
    # DeepSeek. The 0528 releases write both tags themselves; R1 and its distills have the first one written.
    Family("deepseek-r1-0528", ("*r1-0528*",), "template"),
    Family("deepseek-r1", ("*deepseek-r1*", "*r1-distill*"), "template", opens="template"),
    Family(
        "deepseek-v4",
        ("*deepseek-v4*",),
        "engine",
        opens="template",
        default="on",
        **_kwarg_switch("thinking"),
        efforts=_level_switches("reasoning_effort", "low", "low", "high", "high", "max"),
        history="loop",
    ),
    Family(
        "deepseek-v3.2",
        ("*deepseek-v3.2*",),
        "template",
        opens="template",
        default="off",
        **_kwarg_switch("thinking"),
        history="loop",
    ),
    Family(
        "deepseek-v3.1",
        ("*deepseek-v3.1*",),
        "template",
        opens="template",
        default="off",
        **_kwarg_switch("thinking"),
    ),
    # Qwen. From the 2507 releases on, one checkpoint either thinks or doesn't; 3.5 is switchable again.
    Family("qwq", ("*qwq*",), "template", opens="template"),
    Family(
        "qwen3.5-small",
        ("*qwen3.5-0.8b*", "*qwen3.5-2b*"),
        "card",
        opens="template",
        default="off",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family(
        "qwen3.5",
        ("*qwen3.[5-9]*",),
        "template",
        opens="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family("qwen3-thinking", ("*qwen3*thinking*",), "card", opens="template", history="loop"),
    Family("qwen3-instruct", ("*qwen3*instruct*", "*qwen3-coder*"), "card", default="never"),
    Family(
        "qwen3", ("*qwen3*",), "template", default="on", **_kwarg_switch("enable_thinking"), history="loop"
    ),
    # NVIDIA
    Family(
        "nemotron-3",
        ("*nemotron-3*",),
        "template",
        opens="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family(
        "nemotron-nano-v2",
        ("*nemotron-nano-*v2*",),
        "template",
        opens="template",
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
    # Mistral: a system prompt of the template's own makes it think, unless the request has one.
    Family(
        "magistral-2506",
        ("*magistral*2506*",),
        "card",
        default="on",
        on=Switch(beside=_TWO_SECTIONS.format(open="<think>", close="</think>")),
        without="prompt",
    ),
    Family(
        "magistral",
        ("*magistral*", "*ministral*reasoning*"),
        "card",
        open="[THINK]",
        close="[/THINK]",
        default="on",
        on=Switch(beside=_TWO_SECTIONS.format(open="[THINK]", close="[/THINK]")),
        without="prompt",
    ),
    # Z.ai
    Family("glm-5.3", ("*glm-5.3*",), "engine", opens="template", history="loop"),
    Family(
        "glm-4.7",
        ("*glm-4.7*", "*glm-5*"),
        "template",
        opens="template",
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
    Family("glm-z1", ("*glm-z1*",), "card", opens="template"),
    # Moonshot
    Family(
        "kimi-k3",
        ("*kimi-k3*",),
        "template",
        open="<|open|>think<|sep|>",
        close="<|close|>think<|sep|>",
        opens="template",
        default="on",
        **_kwarg_switch("thinking"),
        efforts=_level_switches("thinking_effort", "low", "low", "high", "high", "max"),
        answer=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
        history="keep",
    ),
    Family("kimi-k2-thinking", ("*kimi-k2-thinking*",), "template", history="loop"),
    Family(
        "kimi-k2.5",
        ("*kimi-k2.[5-9]*",),
        "template",
        opens="template",
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
        "minimax-m3",  # left alone it decides for itself
        ("*minimax-m3*",),
        "template",
        open="<mm:think>",
        close="</mm:think>",
        opens="template",
        default="off",
        on=Switch(kwargs={"thinking_mode": "enabled"}),
        off=Switch(kwargs={"thinking_mode": "disabled"}),
        history="keep",
    ),
    Family("minimax-m2", ("*minimax-m2*",), "template", opens="template", history="loop"),
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
        opens="template",
        default="off",
        on=Switch(kwargs={"reasoning_effort": "high"}),
        off=Switch(kwargs={"reasoning_effort": "no_think"}),
        efforts=_level_switches("reasoning_effort", "low", "low", "high", "high", "high"),
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
        limit=TrainedLimit((512, 1024, 2048, 4096, 8192, 16384), kwarg="thinking_budget"),
        history="keep",
    ),
    # OpenAI: no off; harmony's channels, of which the engine's own parser leaves no trace in the text.
    Family(
        "gpt-oss",
        ("*gpt-oss*",),
        "template, engine",
        open="<|channel|>analysis<|message|>",
        close="<|end|><|start|>assistant<|channel|>final<|message|>",
        without="effort",
        efforts=_level_switches("reasoning_effort", "low", "low", "medium", "high", "high", top_level=True),
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
    # IBM: the template's thinking prompt is left out beside other system text.
    Family(
        "granite-3.3",
        ("*granite-3.3*instruct*",),
        "template",
        default="off",
        on=Switch(
            kwargs={"thinking": True},
            beside="Write your thoughts between <think></think> and your response between"
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
            beside="Write your thoughts after 'Here is my thought process:' and your response after"
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
        opens="template",
    ),
    Family(
        "exaone-4",
        ("*exaone-4*",),
        "card",
        opens="template",
        default="off",
        **_kwarg_switch("enable_thinking"),
    ),
    # StepFun
    Family(
        "step-3.7",
        ("*step-3.[7-9]*", "*step3p[7-9]*"),
        "template",
        opens="template",
        without="effort",
        efforts=_level_switches("reasoning_effort", "low", "low", "medium", "high", "high"),
        history="loop",
    ),
    Family("step-3.5", ("*step-3.5*", "*step3p5*"), "template", opens="template", history="loop"),
    Family("step3", ("*step3*",), "engine", opens="template"),
    # Hugging Face. SmolLM2 is an instruct model: it thinks because the gateway opens the block for it.
    Family("smollm3", ("*smollm3*",), "template", default="on", **_kwarg_switch("enable_thinking")),
    Family("smollm2", ("*smollm2*",), "card", opens="gateway", default="off"),
    # What `thinkgate train` makes from nothing.
    Family(
        "thinkgate",
        ("*thinkgate*",),
        "template",
        opens="template",
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
        opens="template",
    ),
    Family(
        "ernie-4.5-thinking",
        ("*ernie-4.5*thinking*",),
        "engine",
        opens="template",
        answer=("<response>", "</response>"),
    ),
    Family(
        "intellect-2",
        ("*intellect-2*",),
        "card",
        opens="template",
        limit=TrainedLimit(
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
        opens="template",
        default="on",
        **_kwarg_switch("enable_thinking"),
        history="loop",
    ),
    Family("mimo", ("*mimo-*",), "engine", default="on", **_kwarg_switch("enable_thinking")),
    Family("olmo-3-think", ("*olmo-3*think*",), "card", opens="template"),
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
        on=Switch(beside=_TWO_SECTIONS.format(open="<think>", close="</think>")),
    ),
    Family("skywork-or1", ("*skywork-or1*",), "card", opens="template"),
    Family("thinks-always", ("*seed-thinking*", "*hunyuan-turbos*"), "nothing found: taken to think always"),
    Family("generic", ("*",), "nothing known", default="on", without="prompt"),
)
"""All rows; the first whose glob fits is a model's family, and the last one fits every model."""


def find_family(model: str, *, base_model: str | None = None, explicit: str | None = None) -> Family:
    """A model's family: the one named by `explicit`, else by the model's name, else by its base model.

    `base_model` (an engine's `root`) is asked only where the name itself says nothing, as an
    alias or an adapter's name does. Raises ValueError where `explicit` is no family's name.
    """
    if explicit is not None:
        for family in FAMILIES:
            if family.name == explicit:
                return family
        allowed = ", ".join(family.name for family in FAMILIES)
        raise ValueError(f"unknown model family {explicit!r}; known families: {allowed}")
    generic = FAMILIES[-1]
    found = _by_name(model)
    return _by_name(base_model) if found is generic and base_model else found


def _by_name(model: str) -> Family:
    name = model.lower()
    names = (name, name.rsplit("/", 1)[-1])
    return next(row for row in FAMILIES if any(fnmatchcase(n, glob) for glob in row.globs for n in names))
