"""What is learned of a family from its checkpoint's own chat template."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policies.families import Family, find_family
from policies.shaping import shape
from policies.templates import probes, refine, refine_rendered, render
from policies.thinking import Markup
from policies.types import SamplingRequest

QWEN3, GENERIC = find_family("qwen3-8b"), find_family("x")
REQUEST = {"messages": [{"role": "user", "content": "q"}]}
OFF = SamplingRequest(level="off", thinking_limit=0)
ON, CLOSED = "<a>q\n<b><think>\n", "<a>q\n<b><think>\n\n</think>\n\n"
"""The ends of a prompt that opens a block and of one that closes it at once."""

TEMPLATE = """{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% else %}<think>{% endif %}
{%- endif %}"""


class TestTemplates:
    """A readable template beats the row."""

    def test_probes_are_requests(self) -> None:
        """One request for each state of each switch, the plain one first; all can be sent as JSON."""
        asked_for = probes(QWEN3)
        assert list(asked_for)[:3] == ["default", "on", "off"]
        assert asked_for["off"]["chat_template_kwargs"] == {"enable_thinking": False}
        assert json.loads(json.dumps(asked_for)) == asked_for

    def test_who_opens_is_seen_in_the_prompt(self) -> None:
        """A Qwen3 whose template opens the block is read from inside it."""
        family = refine_rendered(QWEN3, {"default": ON, "on": ON, "off": CLOSED})
        assert family == replace(QWEN3, opens="template")

    def test_the_default_is_seen_in_the_prompt(self) -> None:
        """A template that is off unless told otherwise."""
        family = refine_rendered(QWEN3, {"default": CLOSED, "on": ON, "off": CLOSED})
        assert family == replace(QWEN3, opens="template", default="off")

    def test_the_switch_is_the_one_that_works(self) -> None:
        """A kwarg that the template doesn't read gives way to the one that it does."""
        prompts = {"default": ON, "on": ON, "off": ON, "thinking=True": ON, "thinking=False": CLOSED}
        family = refine_rendered(QWEN3, prompts)
        assert shape(family, REQUEST, OFF, None).body["chat_template_kwargs"] == {"thinking": False}

    def test_a_switch_that_does_nothing_is_taken_away(self) -> None:
        """Then off is what it is for any model that can't be switched."""
        family = refine_rendered(QWEN3, {"default": ON, "on": ON, "off": ON})
        assert shape(family, REQUEST, OFF, None).off == "prefill"

    def test_an_unknown_model_is_known_by_its_template(self) -> None:
        """Generic becomes switchable, or at least known to think always."""
        kwargs = {"enable_thinking=True": ON, "enable_thinking=False": CLOSED}
        switchable = refine_rendered(GENERIC, {"default": ON, "on": ON, "off": ON, **kwargs})
        assert shape(switchable, REQUEST, OFF, None).off == "native"
        thinker = refine_rendered(GENERIC, {"default": ON, "on": ON, "off": ON})
        assert shape(thinker, REQUEST, OFF, None).off == "prefill"
        assert shape(thinker, REQUEST, SamplingRequest(), None).markup.opened

    def test_other_tags_are_recognised(self) -> None:
        """The tag at the prompt's end is looked up among all families'."""
        prompt = "<a>q\n<b><thought>\n"
        family = refine_rendered(GENERIC, {"default": prompt, "on": prompt, "off": prompt})
        assert family.markup == Markup("<thought>", "</thought>", opened=True)

    @pytest.mark.parametrize("family", [GENERIC, QWEN3, find_family("smollm2"), find_family("kimi-k2")])
    def test_no_prompts_tell_nothing(self, family: Family) -> None:
        """An engine that renders nothing leaves the row as it is."""
        assert refine_rendered(family, {}) == family

    def test_tags_are_read_without_rendering(self) -> None:
        """A template's text alone gives its tags away, whatever is installed."""
        family = refine(GENERIC, "{{ '[THINK]' + x + '[/THINK]' }}{{ broken( }}")
        assert (family.open, family.close) == ("[THINK]", "[/THINK]")

    def test_a_broken_template_tells_nothing(self) -> None:
        """Whatever a template does wrong, the row holds."""
        assert render("{{ 1 +", REQUEST) is None
        assert refine(QWEN3, "{{ raise_exception('no') }}<think>") == QWEN3

    def test_a_template_is_rendered_in_the_sandbox(self) -> None:
        """With jinja2 installed the text is enough: switch, default and who opens."""
        pytest.importorskip("jinja2")
        family = refine(GENERIC, TEMPLATE)
        assert (family.opens, family.default) == ("template", "on")
        assert shape(family, REQUEST, OFF, None).body["chat_template_kwargs"] == {"enable_thinking": False}
        assert render("{{ ''.__class__.__mro__ }}", REQUEST) is None
